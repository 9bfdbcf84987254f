"""What a comparison in progress has found: each difference is judged by the policy, cut, redacted and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from verifier.core.canonical import Json, json_type
from verifier.core.difference import NOTHING, Change, Comparison, Difference, Kind
from verifier.core.limits import Limits
from verifier.core.mapping import IdMapping, id_pairs
from verifier.core.policy import Match, Policy
from verifier.core.rules import GENERATED_ID, IGNORE, PRESENCE, TYPE, UNORDERED
from verifier.core.witness import REDACTED, witness


class _Absent:
    """The side has nothing at this place."""


ABSENT: Final = _Absent()
Value: TypeAlias = "Json | _Absent"
Mark: TypeAlias = tuple[int, int, int, int, int]
Witnesses = Callable[[], tuple[Any, Any]]


class Findings:
    """Collects the differences of one comparison.

    Pairs of generated ids that differ are judged last, by `settle_ids`: after the equal ones, which bind an id to
    itself. So an id that is equal in one place and different in another shows, whichever place is read first.
    """

    __slots__ = ("_differences", "_doubts", "_dropped", "_ignored", "_ignored_dropped", "_mapping", "_waiting",
                 "limits", "policy", "route")  # fmt: skip

    def __init__(self, route: str, policy: Policy, limits: Limits, mapping: IdMapping | None) -> None:
        self.route = route
        self.policy = policy
        self.limits = limits
        self._mapping = mapping
        self._differences: list[Difference] = []
        self._ignored: list[Difference] = []
        self._doubts: dict[str, None] = {}
        self._waiting: list[tuple[Match, Kind, str, str, Json, Json, Witnesses | None]] = []
        self._dropped = 0
        self._ignored_dropped = 0

    @property
    def mapping(self) -> IdMapping:
        """The generated ids of the request, made when the first is asked for."""
        if self._mapping is None:
            self._mapping = IdMapping()
        return self._mapping

    def rule_at(self, kind: Kind, field: str) -> Match | None:
        """Return the rule that decides at a field, if any."""
        return self.policy.lookup(self.route, kind, field)

    def tracks_ids(self, kind: Kind) -> bool:
        """Say whether equal values matter here, too, because ids must map one to one."""
        return self.policy.tracks_ids(self.route, kind)

    def doubt(self, reason: str) -> None:
        """Note why a part could not be compared fairly."""
        self._doubts[reason] = None

    def structure(self, kind: Kind, path: str, field: str, change: Change, main: Value, other: Value) -> None:
        """Note something there on one side only, doubled, in another order, or of another length.

        Rules about values do not excuse it: only `ignore` does, less asked of what lies above, and `unordered` for an
        order.
        """
        found = self.rule_at(kind, field)
        excused = found is not None and (
            found.excuses_absence or (change is Change.ORDER and found.at and found.action == UNORDERED)
        )
        self._keep(found if excused else None, kind, path, field, change, main, other)

    def value(
        self, kind: Kind, path: str, field: str, main: Json, other: Json, witnesses: Witnesses | None = None
    ) -> None:
        """Note two different values at the same place, of the same type or not."""
        found = self.policy.lookup(self.route, kind, field)
        same_type = type(main) is type(other) or json_type(main) == json_type(other)
        if found is not None:
            if found.action == GENERATED_ID:
                self._waiting.append((found, kind, path, field, main, other, witnesses))
                return
            if not self._excuses(found, main, other, same_type=same_type):
                found = None
        change = Change.VALUE if same_type else Change.TYPE
        self._keep(found, kind, path, field, change, main, other, witnesses)

    def statement(self, kind: Kind, path: str, field: str, main: Json, other: Json) -> None:
        """Note two statements about a place, such as which operation it met; only `ignore` excuses them."""
        found = self.rule_at(kind, field)
        excused = found is not None and found.action == IGNORE
        change = Change.VALUE if json_type(main) == json_type(other) else Change.TYPE
        self._keep(found if excused else None, kind, path, field, change, main, other)

    def equal(self, kind: Kind, path: str, field: str, value: Json) -> None:
        """Note an equal value where ids are tracked: a generated id that is equal must be equal everywhere."""
        found = self.rule_at(kind, field)
        if found is None or found.action != GENERATED_ID:
            return
        space = found.rule.params.get("space", "")
        for mine, theirs in id_pairs(value, value) or ():
            if not self.mapping.observe(mine, theirs, space):
                partner = self.mapping.partner(mine, space)
                self._keep(None, kind, path, field, Change.VALUE, {"$id": mine, "elsewhere": partner}, value)

    def settle_ids(self) -> None:
        """Judge the generated ids that differ."""
        waiting, self._waiting = self._waiting, []
        for found, kind, path, field, main, other, witnesses in waiting:
            space = found.rule.params.get("space", "")
            pairs = id_pairs(main, other)
            consistent = pairs is not None
            for mine, theirs in pairs or ():
                consistent = self.mapping.observe(mine, theirs, space) and consistent
            change = Change.VALUE if json_type(main) == json_type(other) else Change.TYPE
            self._keep(found if consistent else None, kind, path, field, change, main, other, witnesses)

    def mark(self) -> Mark:
        """Return where things stand, for `back_to`."""
        return (
            len(self._differences), len(self._ignored), len(self._waiting), self._dropped, self._ignored_dropped,
        )  # fmt: skip

    def back_to(self, mark: Mark) -> None:
        """Forget the differences noted since a mark."""
        differences, ignored, waiting, self._dropped, self._ignored_dropped = mark
        del self._differences[differences:], self._ignored[ignored:], self._waiting[waiting:]

    def absorb(self, part: Comparison, *, rule: str | None = None) -> None:
        """Take over what a part found; with a rule, its differences are ignored by that rule."""
        for difference in part.differences:
            explained = difference if rule is None else msgspec.structs.replace(difference, rule=rule)
            self._store(explained)
        for difference in part.ignored:
            self._store(difference)
        if rule is None:
            self._dropped += part.dropped
        else:
            self._ignored_dropped += part.dropped
        self._ignored_dropped += part.ignored_dropped
        for reason in part.doubts:
            self.doubt(reason)

    def result(self) -> Comparison:
        """Return all that was found."""
        self.settle_ids()
        if not (self._differences or self._ignored or self._doubts):
            return NOTHING
        return Comparison(
            differences=tuple(self._differences),
            ignored=tuple(self._ignored),
            doubts=tuple(self._doubts),
            dropped=self._dropped,
            ignored_dropped=self._ignored_dropped,
        )

    def _excuses(self, found: Match, main: Json, other: Json, *, same_type: bool) -> bool:
        action = found.action
        if action == IGNORE:
            return True
        if action == PRESENCE:
            return not found.at or (main is not None and other is not None)
        if action == TYPE:
            return not found.at or same_type
        check = found.compiled.check
        return check is not None and check(main, other)

    def _keep(
        self,
        rule: Match | None,
        kind: Kind,
        path: str,
        field: str,
        change: Change,
        main: Value,
        other: Value,
        witnesses: Witnesses | None = None,
    ) -> None:
        kept = self._differences if rule is None else self._ignored
        if len(kept) >= self.limits.differences_max:
            if rule is None:
                self._dropped += 1
            else:
                self._ignored_dropped += 1
            return
        policy = self.policy
        shown: tuple[Any, Any]
        if policy.hides(path):
            shown = (None if main is ABSENT else REDACTED), (None if other is ABSENT else REDACTED)
        elif witnesses is not None:
            shown = witnesses()
        else:
            bytes_max, hidden = self.limits.value_bytes, policy.redact
            shown = (
                None if isinstance(main, _Absent) else witness(main, bytes_max, hidden),
                None if isinstance(other, _Absent) else witness(other, bytes_max, hidden),
            )
        kept.append(
            Difference(
                kind=str(kind),
                path=path,
                field=field,
                change=str(change),
                main=shown[0],
                shadow=shown[1],
                rule=None if rule is None else rule.compiled.rule.id,
            )
        )

    def _store(self, difference: Difference) -> None:
        kept = self._ignored if difference.rule is not None else self._differences
        if len(kept) < self.limits.differences_max:
            kept.append(difference)
        elif difference.rule is not None:
            self._ignored_dropped += 1
        else:
            self._dropped += 1
