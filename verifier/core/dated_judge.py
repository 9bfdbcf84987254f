"""Judging by the rules in force at a request's own time, so that a replay says what was said then."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import inf

from verifier.core.events import Seen
from verifier.core.outcome import Claim, Outcome
from verifier.core.policy import Policy
from verifier.core.verdict import Judge


class DatedJudge(Judge):
    """A judge for each span of time in which the same rules hold.

    What decides is the event time of a request's first record: never the time of judging, which is another one after a
    crash, for a revision, or in a replay.
    """

    def __init__(self, until: Sequence[float], judges: Sequence[Judge]) -> None:
        """`until` are the ends of all spans but the last (Unix seconds), in order."""
        self._until = tuple(until)
        self._judges = tuple(judges)

    def judge(
        self, request_id: str, seen: Sequence[Seen], *, bound_hit: bool = False
    ) -> tuple[Outcome, list[Claim]]:
        """As `Judge.judge`, by the rules of the request's time."""
        ts = min([item.event.ts for item in seen])
        return self._judges[bisect_right(self._until, ts)].judge(request_id, seen, bound_hit=bound_hit)


def judge_by_date(policy: Policy, make: Callable[[Policy], Judge]) -> Judge:
    """Return a judge that heeds when the policy's rules expire; `make` makes one for rules that never do."""
    until = sorted({rule.expires_at for rule in policy.rules if rule.expires_at is not None})
    if not until:
        return make(policy)
    return DatedJudge(until, [make(_policy_until(policy, end)) for end in (*until, inf)])


def _policy_until(policy: Policy, end: float) -> Policy:
    """The rules that hold up to `end`; a default rule comes back when what replaced it has expired."""
    rules = [rule for rule in policy.rules if rule.expires_at is None or rule.expires_at >= end]
    return Policy.default(rules, redact=policy.redact)
