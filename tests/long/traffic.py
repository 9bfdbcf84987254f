"""Requests written by hand from the public contract, with the truth about each; cheap to make, to leave the CPU free.

Everything follows from a seed and the time of the first request. Rows have keys of their own, so that requests conflict
only where it is planned: a repeated idempotency key.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

DIVERGENT, INCOMPLETE, WITH_WRITES = 0.02, 0.005, 0.30
CONFLICTING, REPEATED, GARBAGE = 0.01, 0.005, 0.0005
EARLIER_KEYS = 1_000

READING, WRITING = "GET /api/v1/news", "POST /api/v1/news/fetch"

Conflict = tuple[str, str, str, str]
"""(kind, side, winner's request id, loser's request id)"""


class Line(NamedTuple):
    """A record as it is produced: topic without prefix, key, value."""

    topic: str
    key: bytes
    value: bytes


@dataclass
class Truth:
    """What must be found, grown while the traffic is made."""

    verdicts: dict[str, str] = field(default_factory=dict)
    routes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests by route and verdict."""
    missing: dict[str, str] = field(default_factory=dict)
    conflicts: set[Conflict] = field(default_factory=set)
    records: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    rejected: int = 0
    writes: int = 0

    @property
    def by_verdict(self) -> dict[str, int]:
        return dict(Counter(self.verdicts.values()))


class Traffic:
    """Makes requests one after the other, `requests_a_second` of event time apart."""

    def __init__(self, seed: int, began_at: float, requests_a_second: float) -> None:
        self._random = random.Random(seed)
        self._began_at = began_at
        self._requests_a_second = requests_a_second
        self._keys: list[tuple[str, str, int]] = []  # idempotency key, who holds it, what was written
        self.truth = Truth()

    def request(self, number: int) -> list[Line]:
        """The records of one request, in a random order."""
        draw, truth = self._random.random, self.truth
        request_id, ts = f"r-{number}", self._began_at + number / self._requests_a_second
        writing = draw() < WITH_WRITES
        fate = draw()
        status = 500 if fate < DIVERGENT and not writing else 200
        other = 1 if fate < DIVERGENT and writing else 0
        lines = list(self._answers(request_id, ts, status, writing))
        missing = ""
        if writing:
            lines += self._writes(request_id, ts, number, other)
        if DIVERGENT <= fate < DIVERGENT + INCOMPLETE:
            missing = self._random.choice(("main", "shadow")) + ".responses"
            lines = [line for line in lines if line.topic != missing]
            truth.missing[request_id] = missing
        verdict = "incomplete" if missing else "divergence" if fate < DIVERGENT else "match"
        truth.verdicts[request_id] = verdict
        truth.routes[WRITING if writing else READING, verdict] += 1
        self._random.shuffle(lines)
        if draw() < REPEATED:
            lines.append(self._random.choice(lines))
            truth.duplicates += 1
        if draw() < GARBAGE:
            lines.append(
                Line(lines[0].topic, lines[0].key, b'{"request_id":"' + request_id.encode() + b'","side')
            )
            truth.rejected += 1
        for line in lines:
            truth.records[line.topic] += 1
        return lines

    def _answers(self, request_id: str, ts: float, status: int, writing: bool) -> Iterator[Line]:
        key = request_id.encode()
        method, path = ("POST", "/api/v1/news/fetch") if writing else ("GET", "/api/v1/news?page=2")
        for side, code in (("main", 200), ("shadow", status)):
            head = f'"request_id":"{request_id}","side":"{side}","method":"{method}","status":{code}'
            line = f'{{{head},"ts":{ts:.4f},"uri":"{path}","host":"api"}}'
            answer = (
                f'{{{head},"ts":{ts + 0.01:.4f},"path":"{path}","headers":{{"content-type":"application/json"}},'
                f'"body":{{"id":"{request_id}","name":"n","tags":[1,2,3]}},"duration_ms":5,"writes":{int(writing)}}}'
            )
            yield Line("edge.requests", key, line.encode())
            yield Line(f"{side}.responses", key, answer.encode())

    def _writes(self, request_id: str, ts: float, number: int, other: int) -> Iterator[Line]:
        """A row on each side; a few carry an idempotency key that another request has used before."""
        title = number
        earlier = self._keys[self._random.randrange(len(self._keys))] if self._keys else None
        if earlier is not None and self._random.random() < CONFLICTING and not other:
            name, holder, written = earlier
            kind = self._random.choice(("duplicate", "conflict"))
            title = written if kind == "duplicate" else number
            self.truth.conflicts |= {(kind, side, holder, request_id) for side in ("main", "shadow")}
        else:
            name = f"u:fetch:{number}"
            if not other:
                self._keys = (
                    [*self._keys[-EARLIER_KEYS:], (name, request_id, title)]
                    if number % 7 == 0
                    else self._keys
                )
        self.truth.writes += 1
        for side, wrong in (("main", 0), ("shadow", other)):
            value = (
                f'{{"request_id":"{request_id}","side":"{side}","ts":{ts + 0.005:.4f},"entity":"articles",'
                f'"key":{number},"op":"insert","seq":0,"data":{{"title":{title + wrong}}},'
                f'"idempotency_key":"{name}"}}'
            )
            yield Line(f"{side}.writes", request_id.encode(), value.encode())
