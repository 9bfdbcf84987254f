"""What a reader of the contract would work out about a workload by hand: slowly, with the standard library alone."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from bench.workload import Line

NEEDED = {("edge", "main"), ("edge", "shadow"), ("response", "main"), ("response", "shadow")}
KINDS = ("edge", "response", "response", "write", "write")


def verdicts(lines: Iterable[Line]) -> tuple[Counter[str], list[int]]:
    """Counts by verdict, and how many pairs of bodies are the same bytes, are not, or lack one."""
    requests: defaultdict[str, list[tuple[str, dict[str, Any], bytes]]] = defaultdict(list)
    for line in lines:
        record = json.loads(line.value)
        assert line.key.decode() == record["request_id"]
        requests[record["request_id"]].append((KINDS[line.source], record, line.value))
    counts = Counter[str]()
    bodies = [0, 0, 0]
    for records in requests.values():
        counts[verdict(records)] += 1
        bodies[compared(records)] += 1
    return counts, bodies


def verdict(records: list[tuple[str, dict[str, Any], bytes]]) -> str:
    """The verdict on one request."""
    if NEEDED - {(kind, record["side"]) for kind, record, _ in records}:
        return "incomplete"
    responses = {record["side"]: record for kind, record, _ in records if kind == "response"}
    rows = {side: writes(records, side) for side in ("main", "shadow")}
    if any(responses[side]["writes"] > len(rows[side]) for side in rows):
        return "incomplete"
    answers = [
        (r["status"], r["body"], r["headers"]["content-type"], r["headers"]["cache-control"])
        for r in responses.values()
    ]
    same = as_json(answers[0]) == as_json(answers[1]) and rows["main"] == rows["shadow"]
    return "match" if same else "divergence"


def writes(records: list[tuple[str, dict[str, Any], bytes]], side: str) -> list[tuple[Any, ...]]:
    """The rows a side wrote, in their order."""
    written = [r for kind, r, _ in records if kind == "write" and r["side"] == side]
    written.sort(key=lambda record: record["seq"])
    return [(r["entity"], r["key"], r["op"], as_json(r["data"])) for r in written]


def compared(records: list[tuple[str, dict[str, Any], bytes]]) -> int:
    """0 for two bodies of the same bytes, 1 for two that differ, 2 where one is not there."""
    told = [value for kind, _, value in records if kind == "response"]
    if len(told) < 2:
        return 2
    bodies = [value[value.index(b'"body":') : value.rindex(b',"duration_ms":')] for value in told]
    return int(bodies[0] != bodies[1])


def as_json(value: Any) -> str:
    """JSON with its members in order: equal for equal values, whatever order they were written in."""
    return json.dumps(value, sort_keys=True)
