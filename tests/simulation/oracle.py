"""The truth about a run: a naive computation over all records at once, from the public contract alone.

It shares nothing with the product's join, engine, judge, comparison, claims, fold or conflict code. Records are the
plain values that were written, all in memory; order, time and workers do not occur.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.traffic import Produced
from verifier.core.events import Source

Value = Mapping[str, Any]
Difference = tuple[str, str, str, str, Any, Any]
"""(kind, path, field, change, main, shadow)"""
_RANK = {"main": 0, "canary": 1, "shadow": 2}


@dataclass
class Truth:
    """What is true of one request."""

    verdict: str
    reasons: tuple[str, ...]
    missing: tuple[str, ...]
    differences: list[Difference]
    ts: float
    writes: dict[str, Any] | None


@dataclass(frozen=True)
class Claim:
    """One request's writes to one key on one side."""

    side: str
    request_id: str
    ts: float
    seq: int
    entity: str
    data: Any
    content: Any

    @property
    def order(self) -> tuple[float, int, str, int]:
        return (self.ts, _RANK[self.side], self.request_id, self.seq)

    @property
    def told(self) -> Told:
        return (self.side, self.request_id, self.ts, repr(self.data))


Told = tuple[str, str, float, str]
Conflict = tuple[str, str, str, str, Told, Told]
"""(scope, key, entity, kind, winner, loser), the last two as (side, request id, time, data)"""


@dataclass
class Answer:
    """The truth about a whole run."""

    requests: dict[str, Truth] = field(default_factory=dict)
    records: Counter[int] = field(default_factory=Counter)
    rejected: int = 0
    duplicates: int = 0
    conflicts: set[Conflict] = field(default_factory=set)


def compute(produced: Sequence[Produced], *, ttl_s: float, conflict_timeout_s: float) -> Answer:
    """Compute what is true of everything that was written."""
    answer = Answer()
    events: dict[str, list[tuple[Source, Value]]] = defaultdict(list)
    known: set[tuple[Source, bytes]] = set()
    for record in produced:
        answer.records[int(record.source)] += 1
        if record.truth is None:
            answer.rejected += 1
        elif (record.source, record.value) in known:
            answer.duplicates += 1
        else:
            known.add((record.source, record.value))
            events[record.truth["request_id"]].append((record.source, record.truth))
    claims: dict[tuple[str, str], list[Claim]] = defaultdict(list)
    for request_id, its in events.items():
        answer.requests[request_id] = _judge(request_id, its)
        _claim(request_id, its, claims)
    for (scope, key), claimants in claims.items():
        claimants.sort(key=lambda claim: claim.order)
        if scope == "idempotency":
            answer.conflicts.update(_same_key(key, claimants, ttl_s))
        else:
            answer.conflicts.update(_main_and_canary(key, claimants, conflict_timeout_s))
            answer.conflicts.update(_other_order(key, claimants))
    return answer


# -- verdicts ----------------------------------------------------------------------------------------------------


def _judge(request_id: str, its: list[tuple[Source, Value]]) -> Truth:
    edges = {e["side"]: e for source, e in its if source is Source.EDGE}
    answers = {
        e["side"]: e for source, e in its if source in (Source.MAIN_RESPONSES, Source.SHADOW_RESPONSES)
    }
    writes = {
        side: sorted((e for _, e in its if "entity" in e and e["side"] == side), key=lambda e: e["seq"])
        for side in ("main", "shadow", "canary")
    }
    ts = min(e["ts"] for _, e in its)
    sides = {e["side"] for _, e in its}
    truth = Truth(
        "match", (), (), [], ts, _rows(answers, edges, writes, "canary" if "canary" in sides else "shadow")
    )
    if "canary" in sides:
        truth.verdict, truth.reasons = "incomparable", ("served_by_canary",)
        return truth
    for e in edges.values():
        if e.get("shed") or not e.get("sampled", True):
            truth.verdict = "incomparable"
            truth.reasons = ("shed" if e.get("shed") else "not_sampled",)
            return truth
    missing = []
    for side in ("main", "shadow"):
        if side not in edges:
            missing.append(f"{side}.edge")
        if side not in answers:
            missing.append(f"{side}.responses")
        elif answers[side].get("writes", 0) > len(writes[side]):
            missing.append(f"{side}.writes")
    truth.missing = tuple(missing)
    truth.differences = _differences(edges, answers, writes)
    truth.verdict = "incomplete" if missing else "divergence" if truth.differences else "match"
    return truth


def _differences(
    edges: Mapping[str, Value], answers: Mapping[str, Value], writes: Mapping[str, list[Value]]
) -> list[Difference]:
    found: list[Difference] = []
    status = {side: (answers.get(side) or edges.get(side) or {}).get("status") for side in ("main", "shadow")}
    if None not in status.values() and status["main"] != status["shadow"]:
        found.append(("status", "", "", "value", status["main"], status["shadow"]))
    if len(answers) == 2:
        mine, theirs = answers["main"]["body"], answers["shadow"]["body"]
        found += [("body", f"/{name}", f"/{name}", *change) for name, *change in _members(mine, theirs)]
    whole = all(
        len(writes[side]) >= answers[side].get("writes", 0) if side in answers else writes[side]
        for side in ("main", "shadow")
    )
    if whole and (writes["main"] or writes["shadow"]):
        found += _of_writes(writes["main"], writes["shadow"])
    return found


def _members(mine: Value, theirs: Value) -> list[tuple[str, str, Any, Any]]:
    found = []
    for name in sorted(mine.keys() | theirs.keys()):
        if name not in theirs:
            found.append((name, "missing", mine[name], None))
        elif name not in mine:
            found.append((name, "extra", None, theirs[name]))
        elif mine[name] != theirs[name]:
            found.append((name, "value", mine[name], theirs[name]))
    return found


def _of_writes(main: list[Value], shadow: list[Value]) -> list[Difference]:
    found: list[Difference] = []
    mine = {(w["entity"], w["key"]): w["data"] for w in main}
    theirs = {(w["entity"], w["key"]): w["data"] for w in shadow}
    for entity, key in sorted(mine.keys() | theirs.keys()):
        path, name = f"/{entity}/{key}", f"/{entity}/*"
        if (entity, key) not in theirs:
            found.append(("write", path, name, "missing", mine[entity, key], None))
        elif (entity, key) not in mine:
            found.append(("write", path, name, "extra", None, theirs[entity, key]))
        else:
            for member, *change in _members(mine[entity, key], theirs[entity, key]):
                found.append(("write", f"{path}/{member}", f"{name}/{member}", *change))
    return found


def _rows(
    answers: Mapping[str, Value], edges: Mapping[str, Value], writes: Mapping[str, list[Value]], new: str
) -> dict[str, Any] | None:
    """The request's row of `shadow_writes`."""
    methods = {e["method"] for e in (*answers.values(), *edges.values())}
    if methods <= {"GET"} and not any(writes.values()) and methods:
        return None

    def rows(side: str) -> list[dict[str, Any]] | None:
        if side not in answers and not writes[side]:
            return None
        return [
            {"entity": w["entity"], "key": w["key"], "op": w["op"], "status": "applied", "data": w["data"]}
            for w in writes[side]
        ]

    def status(side: str) -> int | None:
        told: int | None = (answers.get(side) or edges.get(side) or {}).get("status")
        return told

    return {
        "main_data": rows("main"),
        "shadow_data": rows(new),
        "main_status": status("main"),
        "shadow_status": status(new),
    }


# -- first write wins --------------------------------------------------------------------------------------------


def _claim(
    request_id: str, its: list[tuple[Source, Value]], claims: dict[tuple[str, str], list[Claim]]
) -> None:
    for side in _RANK:
        writes = sorted((e for _, e in its if "entity" in e and e["side"] == side), key=lambda e: e["seq"])
        if not writes:
            continue
        key = writes[0].get("idempotency_key")
        if key is not None:
            content = [(w["operation"], w["entity"], w["data"]) for w in writes]
            claims["idempotency", f"{side}:{key}"].append(_of(side, request_id, writes, content))
        for entity, row in {(w["entity"], w["key"]): None for w in writes}:
            mine = [w for w in writes if (w["entity"], w["key"]) == (entity, row)]
            changes = [(w["operation"], w["data"]) for w in mine]
            claims["entity", f"{entity}/{row}"].append(_of(side, request_id, mine, changes))


def _of(side: str, request_id: str, writes: list[Value], content: Any) -> Claim:
    first = min(writes, key=lambda w: (w["ts"], w["seq"]))
    data = [w["data"] for w in writes]
    told = data[0] if len(data) == 1 else data
    return Claim(side, request_id, first["ts"], first["seq"], first["entity"], told, content)


def _same_key(key: str, claimants: list[Claim], ttl_s: float) -> list[Conflict]:
    found: list[Conflict] = []
    holders: list[Claim] = []
    for claim in claimants:
        within = [holder for holder in holders if claim.ts - holder.ts <= ttl_s]
        if not within:
            holders.append(claim)
            continue
        kind = "duplicate" if within[0].content == claim.content else "conflict"
        found.append(("idempotency", key.partition(":")[2], claim.entity, kind, within[0].told, claim.told))
    return found


def _main_and_canary(key: str, claimants: list[Claim], timeout_s: float) -> list[Conflict]:
    found: list[Conflict] = []
    holders: list[Claim] = []
    for claim in (c for c in claimants if c.side in ("main", "canary")):
        before = [
            h
            for h in holders
            if h.side != claim.side and h.content != claim.content and claim.ts - h.ts <= timeout_s
        ]
        if before:
            row = key.partition("/")[2]
            found.append(("main_canary", row, claim.entity, "conflict", before[0].told, claim.told))
        else:
            holders.append(claim)
    return found


def _other_order(key: str, claimants: list[Claim]) -> list[Conflict]:
    mains = [c for c in claimants if c.side == "main"]
    place = {c.request_id: (number, c) for number, c in enumerate(claimants) if c.side == "shadow"}
    return [
        (
            "main_shadow",
            key.partition("/")[2],
            first.entity,
            "order",
            first.told,
            place[second.request_id][1].told,
        )
        for number, first in enumerate(mains)
        for second in mains[number + 1 :]
        if first.request_id in place
        and second.request_id in place
        and place[second.request_id][0] < place[first.request_id][0]
    ]
