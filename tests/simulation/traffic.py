"""Seeded traffic: the records of a number of requests, when each is written, and to which partition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.faults import Setup
from verifier.core.events import Source
from verifier.core.partitioner import murmur2_partition
from verifier.testing import TS, edge, response, source_of, write

ROUTES = (
    "GET /api/v1/news",
    "GET /api/v1/market-data/buffer",
    "POST /api/v1/market-data/fetch",
    "POST /api/v1/news/fetch",
    "PUT /api/v1/news/buffer",
)
_ENTITIES = ("news", "market_data")
_FAR_S = 45.0
POISON = "poison"
"""The field that makes the simulated codec fail."""
POISON_TO_THE_ENGINE = "bane"
"""What a request id begins with that makes the simulated engine fail."""


@dataclass(frozen=True)
class Produced:
    """A record to be written at a virtual time. `truth` is what it says, or None if no reader can make sense of it."""

    at_s: float
    source: Source
    partition: int
    value: bytes
    truth: Mapping[str, Any] | None


def make_traffic(rng: Random, setup: Setup) -> list[Produced]:
    """Return all records of a run in the order of their writing."""
    return _Traffic(rng, setup).make()


class _Traffic:
    def __init__(self, rng: Random, setup: Setup) -> None:
        self._rng = rng
        self._setup = setup
        self._faults = setup.faults
        self._partition_of = murmur2_partition(setup.partitions)
        self._idle = {0} if self._faults.idle and setup.partitions > 1 else set()
        skew_max = 0.7 * setup.join_timeout_s if self._faults.skew else 0.0
        self._skew = {"main": 0.0, "shadow": rng.uniform(-skew_max, skew_max), "canary": rng.uniform(-1, 1)}
        self._keys = 1 if self._faults.hot else 3
        self._made: list[Produced] = []

    def make(self) -> list[Produced]:
        number = 0
        for _ in range(self._setup.requests):
            number += 1
            while self._partition_of(f"r{number}") in self._idle:
                number += 1
            self._request(f"r{number}", number, self._rng.uniform(0, self._setup.produce_s))
        if self._faults.garbage:
            for _ in range(self._rng.randint(1, 8)):
                self._garbage()
        if self._faults.poison:
            for _ in range(self._rng.randint(1, 3)):
                self._poison()
        return sorted(self._made, key=lambda made: (made.at_s, made.value))

    # -- one request ---------------------------------------------------------------------------------------

    def _request(self, request_id: str, number: int, at_s: float) -> None:
        rng = self._rng
        route = rng.choice(ROUTES)
        if self._faults.canary and rng.random() < 0.3:
            self._serve(request_id, number, at_s, route, ("canary",), excuse={})
            return
        excuse: dict[str, Any] = {}
        sides: tuple[str, ...] = ("main", "shadow")
        if rng.random() < 0.1:
            excuse = rng.choice(({"shed": True}, {"sampled": False}))
            sides = ("main",) if rng.random() < 0.7 else sides
        self._serve(request_id, number, at_s, route, sides, excuse)

    def _serve(
        self,
        request_id: str,
        number: int,
        at_s: float,
        route: str,
        sides: tuple[str, ...],
        excuse: dict[str, Any],
    ) -> None:
        rng = self._rng
        method, _, path = route.partition(" ")
        mutating = method != "GET"
        body = {"n": number, "title": f"t{rng.randint(0, 3)}"}
        writes = self._writes(number) if mutating else []
        about: dict[str, Any] = {"method": method}
        if mutating:
            about["user_id"] = f"u{number % 3}"
            if rng.random() < 0.5:
                about["idempotency_key"] = f"key{rng.randrange(self._keys)}"
        for side in sides:
            new = side != "main" and rng.random() < 0.35
            ts = at_s + self._skew[side] + rng.uniform(0, 0.4)
            status = 500 if new and rng.random() < 0.3 else 200
            told = self._changed_writes(writes) if new else writes
            said = self._changed_body(body) if new else body
            events = [edge(request_id, side, uri=path, status=status, **about)]
            if side == "main":
                events[0].update(excuse)
            announced: int | None = len(told)
            if self._faults.unannounced and mutating and rng.random() < 0.5:
                announced = None
            events.append(
                response(request_id, side, path=path, status=status, body=said, writes=announced, **about)
            )
            for seq, (entity, key, data) in enumerate(told):
                common = {name: value for name, value in about.items() if name != "method"}
                events.append(
                    write(
                        request_id,
                        side,
                        entity=entity,
                        key=key,
                        op="upsert",
                        seq=seq,
                        data=data,
                        operation=route,
                        **common,
                    )
                )
            for event in events:
                event["ts"] = TS + ts + rng.uniform(0, 0.3)
                if self._faults.ties:
                    event["ts"] = round(2 * event["ts"]) / 2
                slow_s = (
                    rng.uniform(0, 5.0)
                    if announced is None and "entity" in event and rng.random() < 0.5
                    else 0.0
                )
                self._emit(event, at_s + slow_s + rng.uniform(0, 0.9))

    def _writes(self, number: int) -> list[tuple[str, str, dict[str, Any]]]:
        rng = self._rng
        rows = {
            (rng.choice(_ENTITIES), f"k{rng.randrange(self._keys)}"): None for _ in range(rng.randint(0, 2))
        }
        return [(entity, key, {"v": number, "w": rng.randint(0, 1)}) for entity, key in rows]

    def _changed_body(self, body: dict[str, Any]) -> dict[str, Any]:
        change = self._rng.randrange(4)
        if change == 0:
            return {**body, "n": body["n"] + 1}
        if change == 1:
            return {"n": body["n"]}
        if change == 2:
            return {**body, "more": 1}
        return body

    def _changed_writes(
        self, writes: list[tuple[str, str, dict[str, Any]]]
    ) -> list[tuple[str, str, dict[str, Any]]]:
        if not writes or self._rng.random() < 0.5:
            return writes
        entity, key, data = writes[-1]
        if self._rng.random() < 0.5:
            return writes[:-1]
        return [*writes[:-1], (entity, key, {**data, "w": 7})]

    # -- writing -------------------------------------------------------------------------------------------

    def _emit(self, event: dict[str, Any], at_s: float) -> None:
        rng, faults = self._rng, self._faults
        if faults.missing and rng.random() < 0.08:
            return
        if faults.late and rng.random() < 0.1:
            at_s += rng.uniform(2, rng.choice((8.0, _FAR_S)))
        value = json.dumps(event).encode()
        source, partition = source_of(event), self._partition_of(event["request_id"])
        self._made.append(Produced(at_s, source, partition, value, event))
        if faults.duplicates and rng.random() < 0.12:
            again_at_s = at_s + rng.choice((0.0, rng.uniform(0, 2), rng.uniform(0, _FAR_S)))
            self._made.append(Produced(again_at_s, source, partition, value, event))

    def _garbage(self) -> None:
        rng, partitions = self._rng, self._setup.partitions
        at_s = rng.uniform(0, self._setup.produce_s)
        partition = rng.randrange(partitions)
        number = rng.randrange(10_000)
        value, source = rng.choice(
            (
                (b"{", Source.EDGE),
                (b"\xff\xfe%d" % number, Source.MAIN_WRITES),
                (b'{"request_id": "g%d"}' % number, Source.MAIN_RESPONSES),
                (json.dumps(edge(f"g{number}", "nobody")).encode(), Source.EDGE),
                (json.dumps(response(f"g{number}", "main", ts=5.0)).encode(), Source.MAIN_RESPONSES),
                (json.dumps(response(f"g{number}", "shadow")).encode(), Source.MAIN_RESPONSES),
            )
        )
        if partitions > 1 and rng.random() < 0.3:  # a readable record on a partition where it must not be
            at_home = self._partition_of(f"g{number}")
            partition = (at_home + 1) % partitions
            value, source = json.dumps(edge(f"g{number}", ts=TS + at_s)).encode(), Source.EDGE
        self._made.append(Produced(at_s, source, partition, value, None))

    def _poison(self) -> None:
        """A good record, if only the code did not fail on it."""
        rng = self._rng
        to_the_engine = rng.random() < 0.5
        request_id = f"{POISON_TO_THE_ENGINE if to_the_engine else 'p'}{rng.randrange(10_000)}"
        at_s = rng.uniform(0, self._setup.produce_s)
        make = rng.choice((edge, response, write))
        mark = {} if to_the_engine else {POISON: True}
        event = make(request_id, rng.choice(("main", "shadow")), ts=TS + at_s, **mark)
        value = json.dumps(event).encode()
        partition = self._partition_of(request_id)
        self._made.append(Produced(at_s, source_of(event), partition, value, None))
