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
Witnesses = Callable[[], tuple[Any, Any]]


class Findings:
    """Collects the differences of one comparison.

    Pairs of generated ids that differ are judged last, by `settle_ids`: after the equal ones, which bind an id to
    itself. So an id that is equal in one place and different in another shows, whichever place is read first.
    """

    __slots__ = ("_differences", "_doubts", "_dropped", "_ignored", "_ignored_dropped", "_waiting", "limits", "mapping",
                 "policy", "route")  # fmt: skip

    def __init__(self, route: str, policy: Policy, limits: Limits, mapping: IdMapping | None) -> None:
        self.route = route
        self.policy = policy
        self.limits = limits
        self.mapping = IdMapping() if mapping is None else mapping
        self._differences: list[Difference] = []
        self._ignored: list[Difference] = []
        self._doubts: dict[str, None] = {}
        self._waiting: list[tuple[Match, Kind, str, str, Json, Json, Witnesses | None]] = []
        self._dropped = 0
        self._ignored_dropped = 0

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
        found = self.rule_at(kind, field)
        same_type = json_type(main) == json_type(other)
        if found is not None and found.action == GENERATED_ID:
            self._waiting.append((found, kind, path, field, main, other, witnesses))
            return
        excused = found is not None and self._excuses(found, main, other, same_type=same_type)
        change = Change.VALUE if same_type else Change.TYPE
        self._keep(found if excused else None, kind, path, field, change, main, other, witnesses)

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
        if found.action == IGNORE:
            return True
        if found.action == PRESENCE:
            return not found.at or (main is not None and other is not None)
        if found.action == TYPE:
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
        if len(self._ignored if rule else self._differences) >= self.limits.differences_max:
            if rule:
                self._ignored_dropped += 1
            else:
                self._dropped += 1
            return
        if self.policy.hides(path):
            shown = tuple(None if isinstance(side, _Absent) else REDACTED for side in (main, other))
        elif witnesses is not None:
            shown = witnesses()
        else:
            shown = self._shown(main), self._shown(other)
        self._store(
            Difference(
                kind=kind.value,
                path=path,
                field=field,
                change=change.value,
                main=shown[0],
                shadow=shown[1],
                rule=rule.rule.id if rule else None,
            )
        )

    def _shown(self, side: Value) -> Any:
        return (
            None if isinstance(side, _Absent) else witness(side, self.limits.value_bytes, self.policy.redact)
        )

    def _store(self, difference: Difference) -> None:
        kept = self._ignored if difference.rule is not None else self._differences
        if len(kept) < self.limits.differences_max:
            kept.append(difference)
        elif difference.rule is not None:
            self._ignored_dropped += 1
        else:
            self._dropped += 1
