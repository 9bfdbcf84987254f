"""Holds what the verifier found against what was planted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verifier.demo.faults import Expect

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A planted fault that was not found, or not as what it is; `seen` says what was said instead."""

    request_id: str
    fault: str
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarm:
    """Something said about a request that has no fault."""

    request_id: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KindScore:
    """Found so many of `planted` faults of one kind."""

    found: int
    planted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result: `found` request ids, what was `missed`, the `false_alarms`, and both counts by kind of fault."""

    found: tuple[str, ...] = ()
    missed: tuple[Missed, ...] = ()
    false_alarms: tuple[FalseAlarm, ...] = ()
    kinds: dict[str, KindScore] = field(default_factory=dict)

    @property
    def perfect(self) -> bool:
        """Everything was found and nothing made up."""
        return not self.missed and not self.false_alarms


def score(
    truth: Iterable[Row],
    findings: Iterable[Row],
    conflicts: Iterable[Row] = (),
    *,
    latencies: Mapping[str, tuple[float, float]] | None = None,
) -> Score:
    """Score findings and conflicts against the truth (`Plan.truth`).

    `findings` are at least all requests whose verdict is not `match`: {request_id, verdict, differences, missing}; a
    request without one counts as a match. `conflicts` are as the contract has them. `latencies` gives main's and the
    shadow's seconds by request id, for faults that show there alone.
    """
    truth = list(truth)
    by_request = {str(row["request_id"]): row for row in findings}
    conflicts = list(conflicts)
    of_request: dict[str, list[Row]] = defaultdict(list)
    for conflict in conflicts:
        for request_id in _parties(conflict):
            of_request[request_id].append(conflict)
    found: list[str] = []
    missed: list[Missed] = []
    totals: dict[str, list[int]] = {}
    for row in truth:
        request_id, expect = str(row["request_id"]), _expectation(row["expect"])
        finding = by_request.get(request_id, {"verdict": "match"})
        hit = _is_found(expect, finding, of_request[request_id], (latencies or {}).get(request_id))
        total = totals.setdefault(row["fault"], [0, 0])
        total[0] += hit
        total[1] += 1
        if hit:
            found.append(request_id)
        else:
            missed.append(
                Missed(request_id=request_id, fault=row["fault"], seen=_said(finding, of_request[request_id]))
            )
    return Score(
        found=tuple(found),
        missed=tuple(missed),
        false_alarms=tuple(_false_alarms(truth, by_request, conflicts)),
        kinds={
            name: KindScore(found=hits, planted=planted) for name, (hits, planted) in sorted(totals.items())
        },
    )


def _is_found(
    expect: Expect, finding: Row, conflicts: Sequence[Row], latency: tuple[float, float] | None
) -> bool:
    if expect.verdict is not None and finding["verdict"] != expect.verdict:
        return False
    differences = finding.get("differences") or ()
    if expect.kind is not None and not any(expect.accepts(dict(each)) for each in differences):
        return False
    if expect.missing is not None and not any(
        str(part).startswith(expect.missing) for part in finding.get("missing") or ()
    ):
        return False
    if expect.conflict is not None and not any(
        (each["scope"], each["kind"]) == expect.conflict for each in conflicts
    ):
        return False
    if expect.latency_s is None:
        return True
    return latency is not None and latency[1] - latency[0] >= expect.latency_s


def _false_alarms(
    truth: Sequence[Row], by_request: Mapping[str, Row], conflicts: Sequence[Row]
) -> Iterable[FalseAlarm]:
    touched = {request_id for row in truth for request_id in row["touches"]}
    for request_id, finding in by_request.items():
        if request_id not in touched and finding["verdict"] != "match":
            yield FalseAlarm(request_id=request_id, what=_said(finding, ()))
    for conflict in conflicts:
        parties = _parties(conflict)
        if not all(request_id in touched for request_id in parties):
            yield FalseAlarm(request_id=parties[-1], what=f"conflict {conflict['scope']}/{conflict['kind']}")


def _parties(conflict: Row) -> list[str]:
    return list(dict.fromkeys(str(conflict[role]["request_id"]) for role in ("winner", "loser")))


def _expectation(row: Row) -> Expect:
    # The truth file leaves out what is not asked for; a verdict that is not there is not asked for either.
    given = dict(row)
    conflict = given.pop("conflict", None)
    changes = given.pop("changes", ())
    return Expect(
        verdict=given.pop("verdict", None),
        conflict=None if conflict is None else (conflict[0], conflict[1]),
        changes=tuple(changes),
        **given,
    )


def _said(finding: Row, conflicts: Sequence[Row]) -> str:
    parts = [str(finding["verdict"]), *(str(part) for part in finding.get("missing") or ())]
    parts += [
        f"{each.get('kind')} {each.get('field', '')} {each.get('change')}"
        for each in (finding.get("differences") or ())[:5]
    ]
    parts += [f"conflict {each['scope']}/{each['kind']}" for each in conflicts[:5]]
    return "; ".join(parts)
