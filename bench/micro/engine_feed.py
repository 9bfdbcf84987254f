"""What one core spends on a record from its bytes to the journal entry and what is made of it, without any server.

Feeds the codec and the engine of one partition index with a seeded workload (bodies of 200 to 4,000 bytes, 30 % of the
requests writing one to three rows, 2 % differing in known ways, 0.5 % lacking a side), checks the verdicts against what
was planted, and prints the CPU of each stage. The digest is over all journal entries: an optimisation leaves it as it
is.

    python bench/micro/engine_feed.py --requests 50000
    python bench/micro/engine_feed.py --requests 20000 --profile decode,judge
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import hashlib
import json
import pstats
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from verifier.adapters.metrics import Metrics
from verifier.core.conflict import order_key, stored_claimant
from verifier.core.engine import Engine, Slice
from verifier.core.events import Source
from verifier.core.join import JoinConfig
from verifier.core.journal import Entry, encode_entry
from verifier.core.partitioner import murmur2_partition
from verifier.core.policy import Policy
from verifier.core.rollup import fold
from verifier.core.routes import Router
from verifier.core.verdict import Judge, JudgeConfig
from verifier.core.watermark import Watermark
from verifier.stream.codec import Codec, CodecConfig
from verifier.stream.outputs import Outputs, OutputTopics

WINDOW_REQUESTS = 200
TS = 1_767_225_600.0
PARTITIONS = 4
BODY_BYTES_MIN, BODY_BYTES_MAX = 200, 4_000
WRITING_SHARE, DIVERGENT_SHARE, ONE_SIDED_SHARE = 0.30, 0.02, 0.005
_WORDS = ("market", "council", "river", "annual", "report", "signal", "harbor", "winter", "budget", "launch")
_ROUTES = ("news", "data-sources", "users", "orders", "feeds", "alerts", "reports", "sessions")
_encode = msgspec.json.encode


class FedRecord:
    """A record as the client hands it over."""

    __slots__ = ("headers", "key", "offset", "timestamp", "value")

    def __init__(self, offset: int, value: bytes, timestamp: int) -> None:
        self.offset = offset
        self.key: bytes | None = None
        self.value: bytes | None = value
        self.timestamp = timestamp
        self.headers = ()


class Workload:
    """Values by source, in windows of requests, and the verdicts they must lead to."""

    def __init__(self, requests: int, seed: int, *, differing_headers: bool) -> None:
        self._random = random.Random(seed)
        self._partition_of = murmur2_partition(PARTITIONS)
        self._differing_headers = differing_headers
        self.values: list[list[list[bytes]]] = []
        self.expected: Counter[str] = Counter()
        self.records = 0
        self.bytes = 0
        bodies = [self._body(n) for n in range(500)]
        for first in range(0, requests, WINDOW_REQUESTS):
            window: list[list[bytes]] = [[] for _ in Source]
            for number in range(first, min(first + WINDOW_REQUESTS, requests)):
                self._request(number, bodies, window)
            self.values.append(window)
            self.records += sum(map(len, window))
            self.bytes += sum(len(value) for values in window for value in values)

    def _body(self, number: int) -> dict[str, Any]:
        draw = self._random
        size = int(BODY_BYTES_MIN * (BODY_BYTES_MAX / BODY_BYTES_MIN) ** draw.random())
        items: list[dict[str, Any]] = []
        body = {"id": number, "total": 3, "next": None, "items": items}
        while len(_encode(body)) < size - 60:
            items.append(
                {
                    "id": draw.randrange(10**6),
                    "title": " ".join(draw.choices(_WORDS, k=4)),
                    "price": round(draw.random() * 100, 2),
                    "active": draw.random() < 0.5,
                    "tags": draw.choices(_WORDS, k=2),
                    "author": {"name": draw.choice(_WORDS), "rank": draw.randrange(100)},
                }
            )
        return body

    def _request_id(self) -> str:
        while True:
            request_id = f"{self._random.getrandbits(128):032x}"
            if self._partition_of(request_id) == 0:
                return request_id

    def _request(self, number: int, bodies: list[dict[str, Any]], window: list[list[bytes]]) -> None:
        draw = self._random
        request_id, ts = self._request_id(), round(TS + number / 1000, 3)
        writing = draw.random() < WRITING_SHARE
        fate = draw.random()
        divergent, one_sided = fate < DIVERGENT_SHARE, fate > 1 - ONE_SIDED_SHARE
        method = "POST" if writing else "GET"
        path = f"/api/v1/{draw.choice(_ROUTES)}/{draw.randrange(10**6)}?page={draw.randrange(10)}"
        rows = draw.choice((1, 1, 2, 3)) if writing else 0
        body = draw.choice(bodies)
        key = f"{draw.getrandbits(64):016x}" if writing and draw.random() < 0.3 else None
        for side, lag_s in (("main", 0.0), ("shadow", 0.004)):
            edge = {
                "v": 1, "request_id": request_id, "side": side, "ts": ts + lag_s, "method": method, "uri": path,
                "status": 200, "upstream_status": "200", "upstream_addr": "10.0.3.17:8080",
                "upstream_time_s": "0.012", "request_time_s": "0.013", "bytes_sent": 1843, "host": "api.example.com",
                "user_id": f"u{number % 5000}", "idempotency_key": key or "", "shed": False, "sampled": True,
            }  # fmt: skip
            window[Source.EDGE].append(_encode(edge))
            if one_sided and side == "shadow":
                continue
            answer = body
            if divergent and side == "shadow":
                answer = {**body, "total": 4}
            headers = {"content-type": "application/json", "cache-control": "no-store", "x-served-by": "app"}
            if self._differing_headers:
                headers["date"] = f"Thu, 01 Jan 2026 00:00:{number % 60:02d} GMT"
                headers["x-served-by"] = side
            response = {
                "v": 1, "request_id": request_id, "side": side, "ts": ts + 0.012 + lag_s, "method": method,
                "path": path, "status": 200, "headers": headers, "body": answer, "duration_ms": 12.25,
                "user_id": f"u{number % 5000}", "idempotency_key": key, "writes": rows,
            }  # fmt: skip
            window[Source.MAIN_RESPONSES if side == "main" else Source.SHADOW_RESPONSES].append(
                _encode(response)
            )
            for seq in range(rows):
                write = {
                    "v": 1, "request_id": request_id, "side": side, "ts": ts + 0.010 + lag_s,
                    "entity": "articles", "key": number * 4 + seq, "op": "upsert", "seq": seq,
                    "data": {"id": number * 4 + seq, "title": "river report", "rank": seq, "views": number % 100,
                             "meta": {"source": "feed", "lang": "en"}},
                    "operation": f"{method} /api/v1/articles", "idempotency_key": key, "status": "applied",
                }  # fmt: skip
                window[Source.MAIN_WRITES if side == "main" else Source.SHADOW_WRITES].append(_encode(write))
        self.expected["incomplete" if one_sided else "divergence" if divergent else "match"] += 1


class Stages:
    """CPU seconds of each piece of work by stage, and a profile of the stages asked for.

    A piece is short and every repetition has the same ones, so the least that each has ever cost is what it costs on a
    machine that does nothing else meanwhile.
    """

    def __init__(self, profiled: frozenset[str]) -> None:
        self._pieces: list[tuple[str, float]] = []
        self._least: list[tuple[str, float]] = []
        self.profile = cProfile.Profile() if profiled else None
        self._profiled = profiled

    def run(self, name: str, call: Callable[[], Any]) -> Any:
        profile = self.profile if name in self._profiled and self.profile is not None else nullcontext()
        begun = time.process_time()
        with profile:
            result = call()
        self._pieces.append((name, time.process_time() - begun))
        return result

    def repeated(self) -> None:
        """Note that a repetition is over."""
        pieces, self._pieces = self._pieces, []
        least = self._least or pieces
        self._least = [(name, min(one, two)) for (name, one), (_, two) in zip(least, pieces, strict=True)]

    @property
    def cpu_s(self) -> dict[str, float]:
        """CPU seconds by stage."""
        totals: dict[str, float] = {}
        for name, spent in self._least:
            totals[name] = totals.get(name, 0.0) + spent
        return totals


class Pipeline:
    """One partition index and what is made of its entries."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._codec = Codec(CodecConfig(partitions=PARTITIONS))
        judge = Judge(Policy.default(), Router((), routes_max=500), JudgeConfig())
        watermark = Watermark(len(Source), lateness_s=1.0, idle_s=1.0, now=0.0)
        self.engine = Engine(0, JoinConfig(), judge, watermark)
        topics = OutputTopics(sources=tuple("edrsw"), divergences="d", conflicts="c", rejected="r")
        self._outputs = Outputs(topics, Metrics())
        self._offsets = [0 for _ in Source]
        self._now = 0.0
        self.verdicts: Counter[str] = Counter()
        self.digest = hashlib.sha256()
        self.claims = 0
        self.entry_bytes = 0

    def feed(self, window: list[list[bytes]]) -> None:
        self._now += 0.05
        self._stages.run("yardstick", _yardstick)
        for source in Source:
            values = window[source]
            if not values:
                continue
            start = self._offsets[source]
            stamp = int((TS + 100_000) * 1000)
            records = [FedRecord(start + at, value, stamp) for at, value in enumerate(values)]
            self._offsets[source] += len(records)
            seen, rejections = self._stages.run("decode", partial(self._decode, source, records))
            assert not rejections, rejections[0]
            batch = Slice(source=source, start=start, end=start + len(records), seen=seen)
            self._stages.run("join", partial(self.engine.feed, batch, self._now, ceiling=TS + 200_000))
        self.step(at_end=False)

    def _decode(self, source: Source, records: list[FedRecord]) -> Any:
        return self._codec.decode(source, 0, records, self.engine.known)

    def step(self, *, at_end: bool) -> None:
        run = self._stages.run
        self._now += 0.05
        run("join", lambda: self.engine.advance(self._now, [at_end] * len(Source)))
        assert not self.engine.take_strays()
        findings = run("judge", self.engine.conclude)
        entry = self.engine.entry(findings, worker="w", at=self._now, published_n=self.engine.n, epoch="")
        encoded = run("encode entry", lambda: encode_entry(entry))
        self.digest.update(encoded)
        self.entry_bytes += len(encoded)
        self.engine.journaled(entry)
        self.verdicts.update(resolved.outcome.verdict for resolved in entry.resolved)
        self.claims += len(entry.claims)
        run("claim rows", lambda: _claim_rows(entry))
        run("messages", lambda: self._outputs.messages(entry))
        run("metrics", lambda: self._outputs.observe(entry, TS))
        run("rollup", lambda: fold([(0, entry)]))

    def finish(self) -> None:
        self.engine.finish()
        self.step(at_end=True)


def _yardstick() -> int:
    """A fixed piece of work: on a shared machine its cost tells how fast the machine was meanwhile."""
    counts: dict[str, int] = {}
    for at in range(2_000):
        name = f"{at % 97}"
        counts[name] = counts.get(name, 0) + len(name)
    return len(counts)


def _claim_rows(entry: Entry) -> bytes:
    """What the claims of an entry cost before they leave for Redis."""
    rows: list[Any] = []
    for claim in entry.claims:
        claimant = claim.claimant
        rows.append((1, claimant.request_id, claim.rev, order_key(claimant), stored_claimant(claimant)))
    return msgspec.msgpack.encode(rows)


def _report(workload: Workload, requests: int, pipeline: Pipeline, stages: Stages) -> dict[str, Any]:
    cpu_s = stages.cpu_s
    yardstick = cpu_s.pop("yardstick") / len(workload.values)
    total = sum(cpu_s.values())
    per_request = {name: round(1e6 * spent / requests, 2) for name, spent in cpu_s.items()}
    return {
        "requests": requests,
        "records": workload.records,
        "record_bytes_mean": round(workload.bytes / workload.records),
        "claims": pipeline.claims,
        "entry_bytes_per_request": round(pipeline.entry_bytes / requests),
        "yardstick_us": round(1e6 * yardstick, 1),
        "us_per_request": {**per_request, "all": round(1e6 * total / requests, 2)},
        "us_per_record": {
            "decode": round(1e6 * cpu_s["decode"] / workload.records, 2),
            "all": round(1e6 * total / workload.records, 2),
        },
        "digest": pipeline.digest.hexdigest()[:16],
    }


def _windows(workload: Workload, skew: int) -> Iterator[list[list[bytes]]]:
    """The windows with the shadow's records `skew` windows behind main's."""
    late = {Source.SHADOW_RESPONSES, Source.SHADOW_WRITES}
    for at in range(len(workload.values) + skew):
        window: list[list[bytes]] = [[] for _ in Source]
        for source in Source:
            place = at - skew if source in late else at
            if 0 <= place < len(workload.values):
                window[source] = workload.values[place][source]
        yield window


def main() -> None:
    """Measure, check, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--skew", type=int, default=5, help="windows of 200 requests that the shadow is behind"
    )
    parser.add_argument("--gc-threshold", type=int, default=50_000, help="as a worker sets it; 0: 700")
    parser.add_argument(
        "--repeat", type=int, default=9, help="of so many runs the least cost of each piece counts"
    )
    parser.add_argument("--differing-headers", action="store_true")
    parser.add_argument("--profile", default="", help="stages to profile, comma-separated")
    given = parser.parse_args()
    workload = Workload(given.requests, given.seed, differing_headers=given.differing_headers)
    if given.gc_threshold:
        gc.set_threshold(given.gc_threshold, 20, 100)
    stages = Stages(frozenset(filter(None, given.profile.split(","))))
    for _ in range(given.repeat):
        pipeline = Pipeline(stages)
        gc.collect()
        for window in _windows(workload, given.skew):
            pipeline.feed(window)
        pipeline.finish()
        assert pipeline.verdicts == workload.expected, (pipeline.verdicts, workload.expected)
        stages.repeated()
    print(json.dumps(_report(workload, given.requests, pipeline, stages), indent=1))
    if stages.profile is not None:
        pstats.Stats(stages.profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
