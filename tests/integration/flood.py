"""The engine under floods: records made on the fly, entries folded and dropped, so that memory is the engine's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from msgspec import Struct

from verifier.core.engine import Engine, Slice
from verifier.core.events import Source
from verifier.core.join import JoinConfig
from verifier.core.journal import encode_entry
from verifier.core.policy import Policy
from verifier.core.routes import Router
from verifier.core.verdict import Judge, JudgeConfig
from verifier.core.watermark import Watermark
from verifier.stream.codec import Codec, CodecConfig
from verifier.testing import TS, StubRecord

BATCH_REQUESTS = 1_000
LIVE = (Source.EDGE, Source.MAIN_RESPONSES)


class Flood(Struct, kw_only=True):
    """What came of a flood: the verdicts with their reasons, and the most that was held at once."""

    verdicts: Counter[str]
    reasons: Counter[str]
    pending_max: int = 0
    closed_max: int = 0
    stale_max: int = 0
    entry_bytes_max: int = 0


def unanswered(requests: int, requests_a_second: float) -> Iterator[tuple[StubRecord, StubRecord]]:
    """Requests whose shadow never answers: main's line and main's response, and nothing else ever."""
    for number in range(requests):
        ts = TS + number / requests_a_second
        head = f'{{"request_id":"flood-{number}","side":"main","ts":{ts:.5f},"method":"GET"'
        line = f'{head},"uri":"/api/v1/news","status":200}}'
        answer = f'{head},"path":"/api/v1/news","status":200,"headers":{{}},"body":{{"items":[1,2,3]}},"writes":0}}'
        yield (
            StubRecord(offset=number, value=line.encode()),
            StubRecord(offset=number, value=answer.encode()),
        )


def engine_of(join: JoinConfig) -> Engine:
    judge = Judge(Policy.default(), Router([], routes_max=100), JudgeConfig())
    return Engine(0, join, judge, Watermark(len(Source), lateness_s=1.0, idle_s=1.0, now=0.0))


def run_flood(join: JoinConfig, requests: int, requests_a_second: float) -> tuple[Flood, Engine]:
    """Feed the flood at its own pace; three of the five sources are read to their end and stay idle for good."""
    engine, codec = engine_of(join), Codec(CodecConfig())
    found = Flood(verdicts=Counter(), reasons=Counter())
    at_end = [source not in LIVE for source in Source]
    made = unanswered(requests, requests_a_second)
    fed = 0
    while batch := list(islice(made, BATCH_REQUESTS)):
        now = 2.0 + fed / requests_a_second
        for source, records in zip(LIVE, zip(*batch, strict=True), strict=True):
            seen, rejections = codec.decode(source, 0, records, engine.known)
            assert not rejections
            engine.feed(Slice(source=source, start=fed, end=fed + len(seen), seen=seen), now)
        fed += len(batch)
        before = engine.watermark.value
        engine.advance(now, at_end)
        assert engine.watermark.value >= before
        assert engine.watermark.value >= TS + (fed - BATCH_REQUESTS) / requests_a_second - 1.0
        note(found, engine)
    for late_s in (10.0, 10.0 + join.join_timeout_s):
        engine.advance(fed / requests_a_second + late_s, [True for _ in Source])
        note(found, engine)
        while engine.more_due:
            engine.advance(fed / requests_a_second + late_s, [True for _ in Source])
            note(found, engine)
    return found, engine


def note(found: Flood, engine: Engine) -> None:
    """Journal what was concluded, as a worker does, and note what the engine still holds."""
    findings = engine.conclude()
    entry = engine.entry(findings, worker="w", at=0.0, published_n=engine.n, epoch="")
    found.entry_bytes_max = max(found.entry_bytes_max, len(encode_entry(entry)))
    engine.journaled(entry)
    join = engine.join
    found.pending_max = max(found.pending_max, join.pending)
    found.closed_max = max(found.closed_max, len(join._closed))
    found.stale_max = max(
        found.stale_max, len(join._timers), len(join._ages), *(len(runs) for runs in join._runs._of)
    )
    for resolved in entry.resolved:
        found.verdicts[resolved.outcome.verdict] += 1
        found.reasons.update(resolved.outcome.reasons)


def weigh_flood(join: JoinConfig, requests: int, requests_a_second: float) -> tuple[Flood, float]:
    """Run a flood in a process that does nothing else; returns by how many MB its memory rose at the most."""
    before = _memory_mb("VmRSS")
    found, _ = run_flood(join, requests, requests_a_second)
    return found, _memory_mb("VmHWM") - before


def _memory_mb(field: str) -> float:
    line = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line is not None
    return int(line[1]) / 1024
