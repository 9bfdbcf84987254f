"""However the records are read, repeated, cut into slices, or read again after a crash: the same final outcomes.

The bench stands in for a partition worker: it keeps the journal, answers for the store, and fetches former records.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import judge, seen
from verifier.core.engine import Engine, Slice
from verifier.core.events import Seen, Source
from verifier.core.join import JoinConfig
from verifier.core.journal import Entry, decode_entry, encode_entry
from verifier.core.outcome import Outcome, Resolved
from verifier.core.watermark import Watermark
from verifier.testing import TS, edge, response, source_of, write

JUDGE = judge()
Logs = dict[Source, list[Seen]]


# -- traffic ----------------------------------------------------------------------------------------------------------


def records_of(request_id: str, ts: float, rng: Random) -> list[dict[str, Any]]:
    """A request's records: mostly a pair, with parts lost, repeated, differing, late or excused."""
    served = rng.random() < 0.1
    sides = ("canary",) if served else ("main", "shadow")
    count = rng.choice((0, 0, 1, 2))
    made: list[dict[str, Any]] = []
    for side in sides:

        def at() -> float:
            return round(ts + rng.choice((0, 0, 0.5, 1, 5, 20, 40)), 3)

        made.append(
            edge(request_id, side, ts=at(), shed=rng.random() < 0.05, status=rng.choice((200, 200, 502)))
        )
        announced = rng.choice((count, count, None, count + 1))
        body = {"a": rng.choice((1, 1, 1, 2))}
        made.append(response(request_id, side, ts=at(), writes=announced, body=body))
        if rng.random() < 0.15:
            made.append(response(request_id, side, ts=at(), writes=rng.choice((0, 1)), status=500))
        for seq in range(count):
            made.append(
                write(request_id, side, ts=at(), seq=seq, key=seq, idempotency_key=rng.choice((None, "k")))
            )
    if rng.random() < 0.1:
        made.append(response(request_id, "reference", ts=ts))
    return [each for each in made if rng.random() < 0.93]


def logs_of(requests: int, rng: Random) -> Logs:
    """The five topics: about in the order of time, with repeats anywhere after their original."""
    made = [
        each for n in range(requests) for each in records_of(f"r{n}", TS + rng.choice((1, 30, 100)) * n, rng)
    ]
    made.sort(key=lambda each: each["ts"] + rng.choice((0, 0, 0, 3, 50)))
    for each in list(made):
        if rng.random() < 0.15:
            made.insert(rng.randint(made.index(each) + 1, len(made)), each)
    logs: Logs = {source: [] for source in Source}
    for each in made:
        log = logs[source_of(each)]
        log.append(seen(each, len(log)))
    return logs


def judged_at_once(logs: Logs) -> dict[str, Outcome]:
    """What is to be said of each request, from the set of its records."""
    by_request: dict[str, dict[int, Seen]] = {}
    for source in Source:
        for record in logs[source]:
            by_request.setdefault(record.event.request_id, {}).setdefault(record.digest, record)
    return {
        request_id: JUDGE.judge(request_id, list(records.values()))[0]
        for request_id, records in by_request.items()
    }


# -- the bench ---------------------------------------------------------------------------------------------------------


class Bench:
    """Drives one engine over the logs, step by step."""

    def __init__(self, logs: Logs, rng: Random, journal: list[Entry], **config: Any) -> None:
        self.logs, self.rng, self.journal, self.now = logs, rng, journal, 0.0
        mark = Watermark(len(Source), lateness_s=2.0, idle_s=1.0, now=0.0)
        self.engine = Engine(0, JoinConfig(**config), JUDGE, mark)
        self.store: dict[str, Resolved] = {}
        for entry in journal:
            self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        for resolved in entry.resolved:
            request_id = resolved.outcome.request_id
            known = self.store.get(request_id)
            assert resolved.rev == (0 if known is None else known.rev + 1), (
                f"{request_id}: a second first verdict"
            )
            assert resolved.was == (None if known is None else known.outcome)
            self.store[request_id] = resolved

    def recover(self) -> None:
        """Take up where the last entry of the journal stands, as a new owner does."""
        last = self.journal[-1]
        tail = [(e.n, resolved) for e in self.journal if e.n >= last.keep_n for resolved in e.resolved]
        self.engine.restore(last, tail)
        for source in Source:
            start, end = last.safe[source], last.positions[source]
            while start < end:
                stop = min(end, start + self.rng.randint(1, 5))
                self.engine.refeed(
                    Slice(source=source, start=start, end=stop, seen=self.logs[source][start:stop])
                )
                start = stop

    def run(self) -> None:
        """Read everything to its end, in random steps, then close the window."""
        while any(self._left(source) for source in Source):
            self.step()
        for _ in range(self.rng.randint(0, 3)):
            self.step()
        self.engine.finish()
        self._conclude()

    def _left(self, source: Source) -> int:
        return len(self.logs[source]) - self.engine.positions[source]

    def step(self) -> None:
        for source in self.rng.sample(list(Source), self.rng.randint(1, 5)):
            start = self.engine.positions[source]
            end = min(len(self.logs[source]), start + self.rng.randint(0, 6))
            if end > start:
                batch = Slice(source=source, start=start, end=end, seen=self.logs[source][start:end])
                self.engine.feed(batch, self.now)
        self.now += self.rng.choice((0.0, 0.1, 2.0, 40.0))
        self.engine.advance(self.now, [not self._left(source) for source in Source])
        self._conclude()

    def _conclude(self) -> None:
        engine = self.engine
        for stray in engine.take_strays():
            known = self.store.get(stray.event.request_id)
            if known is None:
                engine.open(stray)
            else:
                engine.recall(known, stray)
        for reopening in engine.take_reopenings():
            former = [self.logs[Source(ref.source)][ref.offset] for ref in reopening.resolved.events]
            engine.rejudge(reopening, former)
        findings = engine.conclude()
        if not findings.empty:
            entry = engine.entry(findings, worker="w", at=self.now, published_n=-1, epoch="")
            entry = decode_entry(encode_entry(entry))
            engine.journaled(entry)
            self.journal.append(entry)
            self._keep(entry)


def check(bench: Bench) -> None:
    """The journal says of every request what its records say, and counts every record once."""
    expected = judged_at_once(bench.logs)
    found = {request_id: resolved.outcome for request_id, resolved in bench.store.items()}
    assert found.keys() == expected.keys()
    for request_id, outcome in expected.items():
        assert encoded(found[request_id]) == encoded(outcome)
    check_counts(bench)


def encoded(outcome: Outcome) -> bytes:
    entry = Entry(partition=0, n=0, worker="", at=0.0, resolved=(Resolved(outcome=outcome, events=()),))
    return encode_entry(decode_entry(encode_entry(entry)))


def check_counts(bench: Bench) -> None:
    for source in Source:
        log = bench.logs[source]
        counts = [count for entry in bench.journal for count in entry.counts if count.source == source]
        assert sum(count.records for count in counts) == len(log)
        bounds = [0, *(place for count in counts for place in (count.start, count.end)), len(log)]
        assert all(bounds[at] == bounds[at + 1] for at in range(0, len(bounds), 2))
        places = {ref.offset for r in bench.store.values() for ref in r.events if ref.source == source}
        repeats = sum(count.duplicate for count in counts)
        assert len(places) + repeats == len(log)
    for before, after in pairwise(bench.journal):
        assert after.n == before.n + 1
        assert after.watermark >= before.watermark
        assert all(a >= b for a, b in zip(after.positions, before.positions, strict=True))
        assert all(a >= b for a, b in zip(after.safe, before.safe, strict=True))
        assert all(safe <= at for safe, at in zip(after.safe, after.positions, strict=True))


CONFIG = {"join_timeout_s": 30.0, "write_settle_s": 2.0, "closed_hold_s": 60.0, "unfolded_requests_max": 2}
randoms = st.integers(0, 2**32).map(Random)  # a failure is one number to run again


@settings(max_examples=120, deadline=None)
@given(requests=st.integers(1, 8), traffic=randoms, reading=randoms)
def test_however_records_are_read_the_final_outcomes_are_those_of_the_set(
    requests: int, traffic: Random, reading: Random
) -> None:
    bench = Bench(logs_of(requests, traffic), reading, [], **CONFIG)
    bench.run()
    check(bench)


@settings(max_examples=40, deadline=None)
@given(requests=st.integers(1, 6), traffic=randoms, reading=randoms)
def test_a_crash_after_any_entry_changes_no_final_outcome(
    requests: int, traffic: Random, reading: Random
) -> None:
    logs = logs_of(requests, traffic)
    whole = Bench(logs, reading, [], **CONFIG)
    whole.run()
    for survived in range(1, len(whole.journal) + 1):
        heir = Bench(logs, reading, whole.journal[:survived], **CONFIG)
        heir.recover()
        heir.run()
        check(heir)


@settings(max_examples=60, deadline=None)
@given(requests=st.integers(1, 8), traffic=randoms, reading=randoms)
def test_crashes_upon_crashes_change_nothing_either(requests: int, traffic: Random, reading: Random) -> None:
    logs = logs_of(requests, traffic)
    journal: list[Entry] = []
    for _ in range(4):
        bench = Bench(logs, reading, journal, **CONFIG)
        if journal:
            bench.recover()
        for _ in range(reading.randint(1, 6)):
            bench.step()
    if not journal:
        return
    bench = Bench(logs, reading, journal, **CONFIG)
    bench.recover()
    bench.run()
    check(bench)


@settings(max_examples=60, deadline=None)
@given(requests=st.integers(1, 8), traffic=randoms, reading=randoms, pending=st.integers(1, 3))
def test_within_tight_bounds_only_the_blame_for_what_is_missing_differs(
    requests: int, traffic: Random, reading: Random, pending: int
) -> None:
    bench = Bench(logs_of(requests, traffic), reading, [], **CONFIG, pending_requests_max=pending)
    bench.run()
    check_counts(bench)
    for request_id, expected in judged_at_once(bench.logs).items():
        found = bench.store[request_id].outcome
        assert (found.missing, found.differences) == (expected.missing, expected.differences)
        if "pending_bound" in found.reasons:
            assert (found.verdict, expected.verdict) == ("incomparable", "incomplete")
        else:
            assert found.verdict == expected.verdict


def test_the_traffic_has_what_the_properties_are_about() -> None:
    """Of the random traffic some is late, repeated, forgotten and revised: else the properties would prove little."""
    seen_kinds: set[str] = set()
    for seed in range(30):
        bench = Bench(logs_of(8, Random(seed)), Random(seed), [], **CONFIG)
        bench.run()
        seen_kinds.update(kinds_in(bench))
    assert seen_kinds == {
        "match", "divergence", "incomplete", "incomparable", "duplicate", "late", "revised", "claims",
    }  # fmt: skip


def kinds_in(bench: Bench) -> Iterator[str]:
    for entry in bench.journal:
        for count in entry.counts:
            if count.duplicate:
                yield "duplicate"
            if count.late:
                yield "late"
        for resolved in entry.resolved:
            yield resolved.outcome.verdict
            if resolved.rev:
                yield "revised"
        if entry.claims:
            yield "claims"
