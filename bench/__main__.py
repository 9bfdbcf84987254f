"""`python -m bench`: every contestant on the same records of real Kafka in one run, then latency and growth."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from rich.console import Console

from bench.arena import Arena, Dataset, NotPrepared, Say
from bench.growth import cost_us, pending, start_cpu_s, two_workers, volume
from bench.kafka_streams_build import kafka_streams_peer
from bench.latency import latency
from bench.measure import RunFailed
from bench.peer_run import C_CEILING, CEILING, QUIX_STREAMS, STOCK_FAUST, run_peer
from bench.report import Results, keep, keep_chart, outcome_row, show
from bench.result import Outcome, middle
from bench.verifier_run import WITHIN_S, run_verifier
from bench.workload import REQUESTS

CONTESTANTS: dict[str, Callable[[Arena, Dataset], Outcome]] = {
    "ceiling": lambda arena, dataset: run_peer(arena, CEILING, dataset),
    "c_ceiling": lambda arena, dataset: run_peer(arena, C_CEILING, dataset),
    "verifier": run_verifier,
    "stock_faust": lambda arena, dataset: run_peer(arena, STOCK_FAUST, dataset),
    "quix_streams": lambda arena, dataset: run_peer(arena, QUIX_STREAMS, dataset),
    "kafka_streams": lambda arena, dataset: run_peer(arena, kafka_streams_peer(), dataset),
}
SLOW = ("stock_faust", "quix_streams")
PARTS = ("latency", "volume", "pending", "workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured: `requests` of the workload, of other volumes, waiting, and flowing past those.

    What is compared is run `rounds` times in turn, and the middle run of each counts; volumes beyond the workload once.
    `slow`: requests of a second, smaller workload for the contestants of `SLOW`; 0 if they take the same as all.
    """

    requests: int
    volumes: tuple[int, ...]
    waiting: tuple[int, int]
    flow: int
    live_s: float
    slow: int
    rounds: int


FULL = Size(
    slow=22_000,
    requests=REQUESTS,
    volumes=(21_300, 2_130_000),
    waiting=(1_000, 500_000),
    flow=100_000,
    live_s=60.0,
    rounds=3,
)
QUICK = Size(
    slow=8_000, requests=22_000, volumes=(6_000,), waiting=(1_000, 10_000), flow=5_000, live_s=8.0, rounds=1
)


class Bench:
    """One run. What fails is noted, and the rest goes on; what is known is kept after each part."""

    def __init__(self, size: Size, wanted: list[str], say: Say, keep: Callable[[Results], object]) -> None:
        self._size, self._wanted, self._say, self._keep = size, wanted, say, keep
        self._began = time.monotonic()
        self._volumes: dict[int, list[Outcome]] = {}
        self.results = Results(command=" ".join(["python -m bench", *sys.argv[1:]]))

    def run(self) -> Results:
        """Run what was asked for."""
        with Arena(self.say) as arena:
            dataset = arena.load(self._size.requests)
            truth = dataset.truth
            self.results.records, self.results.requests = truth.records_total, truth.requests_total
            slow = (
                arena.load(self._size.slow) if self._size.slow and set(SLOW) & set(self._wanted) else dataset
            )
            smaller = [
                arena.load(requests)
                for requests in self._size.volumes
                if 0 < requests < self._size.requests and "volume" in self._wanted
            ]
            for _ in range(self._size.rounds):
                for name, run in CONTESTANTS.items():
                    records = slow if name in SLOW else dataset
                    self._try(name, partial(self._contestant, name, run, arena, records))
                for other in smaller:
                    self._try("volume", partial(self._volume, arena, other))
            ours = self.results.contestants.get("verifier")
            if ours is not None:
                self._grow(arena, dataset, ours)
        return self.results

    def say(self, line: str) -> None:
        """Tell of progress."""
        self._say(f"{time.monotonic() - self._began:5.0f} s  {line}")

    def _try(self, what: str, work: Callable[[], None]) -> None:
        if what not in self._wanted:
            return
        self.say(f"{what} ...")
        try:
            work()
        except RunFailed as failed:
            self.say(str(failed))
            self.results.notes.append(f"{what} failed: {str(failed)[:400]}")
        self._keep(self.results)

    def _contestant(
        self, name: str, run: Callable[[Arena, Dataset], Outcome], arena: Arena, dataset: Dataset
    ) -> None:
        outcome = replace(run(arena, dataset), of_records=self.results.records)
        self.results.add(name, outcome)
        self.say(f"{name}: {outcome_row(outcome.as_json())}")
        for wrong in outcome.wrong:
            self.say(f"  wrong: {wrong}")

    def _volume(self, arena: Arena, dataset: Dataset) -> None:
        requests = dataset.truth.requests_total
        outcome = run_verifier(arena, dataset, within_s=WITHIN_S * max(1, requests // REQUESTS))
        self._volumes.setdefault(requests, []).append(outcome)
        self.say(f"{outcome.records:,} records: {cost_us(outcome, 0.0):.2f} us of CPU each, with the start")

    def _large_volume(self, arena: Arena, requests: int) -> None:
        self._volume(arena, arena.load(requests))

    def _grow(self, arena: Arena, dataset: Dataset, ours: Outcome) -> None:
        size, results = self._size, self.results
        half = ours.requests / ours.busy_s / 2

        def measure_latency() -> None:
            results.latency = latency(arena, requests_per_s=half, for_s=size.live_s)
            self.say(f"latency: p50 {results.latency['p50']} ms, p99 {results.latency['p99']} ms")

        self._try("latency", measure_latency)
        if not {"volume", "workers"} & set(self._wanted):
            start_s = 0.0
        else:
            start_s = start_cpu_s(arena)
            self.say(f"a worker's start takes {start_s:.2f} CPU-s")
        self._try(
            "pending", lambda: results.scaling.extend(pending(arena, list(size.waiting), size.flow, self.say))
        )
        for requests in size.volumes:
            if requests > size.requests:
                self._try("volume", partial(self._large_volume, arena, requests))
        if self._volumes:
            results.scaling += volume([ours, *map(middle, self._volumes.values())], start_s)
        self._try("workers", lambda: results.scaling.append(two_workers(arena, dataset, ours, start_s)))


def main() -> int:
    """Run, show, keep. Exits with 1 when a run was void or failed, with 2 when something is not prepared."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small workload, under three minutes")
    parser.add_argument("--requests", type=int, help="requests of the workload")
    parser.add_argument("--largest", type=int, help="requests of the largest volume; 0 for none")
    parser.add_argument("--waiting", type=int, help="the most requests that wait at once")
    parser.add_argument("--only", help=f"of {', '.join([*CONTESTANTS, *PARTS])}; comma-separated")
    parser.add_argument("--dry", action="store_true", help="show the result, keep no file")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    largest, waiting = (
        size.volumes[-1] if given.largest is None else given.largest,
        given.waiting or size.waiting[1],
    )
    size = replace(
        size,
        requests=given.requests or size.requests,
        volumes=(*size.volumes[:-1], largest),
        waiting=(size.waiting[0], waiting),
    )
    wanted = given.only.split(",") if given.only else [*CONTESTANTS, *PARTS]
    console = Console(stderr=True)
    bench = Bench(
        size,
        wanted,
        lambda line: console.print(line, markup=False, highlight=False),
        lambda results: None if given.dry else keep(results, quick=given.quick),
    )
    try:
        results = bench.run()
    except NotPrepared as missing:
        console.print(str(missing), markup=False)
        return 2
    show(results, Console(width=None if sys.stdout.isatty() else 120))
    if not given.dry:
        path = keep(results, quick=given.quick)
        keep_chart(path, quick=given.quick)
        print(path)
    return int(not all(outcome.exact for outcome in results.contestants.values()) or bool(results.notes))


if __name__ == "__main__":
    sys.exit(main())
