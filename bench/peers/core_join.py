"""The verifier's core as a user of another stream framework would call it: one record at a time, nothing else on.

No journal, tables, claims or metrics: verdicts are counted in memory. So a framework's figure is its own cost and that
of the same decoding, join and comparison.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from verifier.core.engine import Engine, Slice
from verifier.core.events import Source
from verifier.core.join import JoinConfig
from verifier.core.policy import Policy
from verifier.core.routes import Router
from verifier.core.verdict import Judge, JudgeConfig
from verifier.core.watermark import Watermark
from verifier.stream.codec import Codec, CodecConfig, Record

CONCLUDE_EVERY = 1_000  # records; judging in small batches costs less than one by one


class CoreJoin:
    """Joins and judges the records of every partition; a record can be given again only after those before it."""

    def __init__(self, partitions: int, routes: tuple[str, ...]) -> None:
        self._codec = Codec(CodecConfig(partitions=partitions))
        judge = Judge(Policy.default(), Router(routes, routes_max=500), JudgeConfig())
        now = time.monotonic()
        self._engines = [
            Engine(n, JoinConfig(), judge, Watermark(len(Source), lateness_s=1.0, idle_s=1.0, now=now))
            for n in range(partitions)
        ]
        self._ends = [False] * len(Source)
        self._since = 0
        self._records = [0 for _ in Source]
        self.total = 0
        self.verdicts: Counter[str] = Counter()
        self.fields: Counter[tuple[str, str, str, str]] = Counter()

    def feed(self, source: Source, partition: int, record: Record) -> None:
        """Take one record."""
        engine = self._engines[partition]
        seen, rejections = self._codec.decode(source, partition, [record], engine.known)
        batch = Slice(
            source=source, start=record.offset, end=record.offset + 1, seen=seen, rejections=rejections
        )
        engine.feed(batch, time.monotonic())
        self._records[source] += 1
        self.total += 1
        self._since += 1
        if self._since >= CONCLUDE_EVERY:
            self.conclude()

    def conclude(self) -> None:
        """Judge what is complete or has waited too long."""
        self._since = 0
        now = time.monotonic()
        for engine in self._engines:
            engine.advance(now, self._ends)
            for stray in engine.take_strays():
                engine.open(stray)
            found = engine.conclude()
            for resolved in found.resolved:
                self.verdicts[resolved.outcome.verdict] += 1
                for each in resolved.outcome.differences:
                    self.fields[(resolved.outcome.route, each.kind, each.field, each.change)] += 1

    def tell(self, path: str, first_at: float, start_cpu_s: float) -> None:
        """Judge what is left, and write what was found where the bench looks for it.

        `first_at`, `start_cpu_s`: when the first record came, and the CPU time that the process had taken by then.
        """
        self.conclude()
        fields = [[*place, count] for place, count in sorted(self.fields.items())]
        told = {
            "records": self._records,
            "requests": dict(self.verdicts),
            "fields": fields,
            "first_at": first_at,
            "start_cpu_s": start_cpu_s,
            "last_at": time.monotonic(),
        }
        part = Path(f"{path}.part")
        part.write_text(json.dumps(told))
        part.replace(path)
