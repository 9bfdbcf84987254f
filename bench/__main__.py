"""`python -m bench`: every contestant on the same records of real Kafka in one run, then latency and growth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from rich.console import Console

from bench.arena import Arena, Dataset, NotPrepared
from bench.kafka_streams_build import kafka_streams_peer
from bench.measure import RunFailed
from bench.peer_run import C_CEILING, CEILING, QUIX_STREAMS, STOCK_FAUST, run_peer
from bench.report import Results, keep, outcome_row, show
from bench.result import Outcome
from bench.verifier_run import run_verifier
from bench.workload import REQUESTS

QUICK_REQUESTS = 22_000

CONTESTANTS: dict[str, Callable[[Arena, Dataset], Outcome]] = {
    "ceiling": lambda arena, dataset: run_peer(arena, CEILING, dataset),
    "c_ceiling": lambda arena, dataset: run_peer(arena, C_CEILING, dataset),
    "verifier": run_verifier,
    "stock_faust": lambda arena, dataset: run_peer(arena, STOCK_FAUST, dataset),
    "quix_streams": lambda arena, dataset: run_peer(arena, QUIX_STREAMS, dataset),
    "kafka_streams": lambda arena, dataset: run_peer(arena, kafka_streams_peer(), dataset),
}


def bench(given: argparse.Namespace, say: Callable[[str], None]) -> Results:
    """Run what was asked for."""
    requests = given.requests or (QUICK_REQUESTS if given.quick else REQUESTS)
    wanted = given.only.split(",") if given.only else list(CONTESTANTS)
    results = Results(command="python -m bench " + " ".join(sys.argv[1:]))
    with Arena(say) as arena:
        dataset = arena.load(requests)
        results.records, results.requests = dataset.truth.records_total, dataset.truth.requests_total
        for name in wanted:
            say(f"{name} ...")
            try:
                outcome = CONTESTANTS[name](arena, dataset)
            except RunFailed as failed:
                say(str(failed))
                results.notes.append(f"{name} failed: {str(failed)[:400]}")
                continue
            results.contestants[name] = outcome
            say(f"{name}: {outcome_row(outcome.as_json())}")
    return results


def main() -> int:
    """Run, show, keep. Exits with 1 when a run was void or failed, with 2 when something is not prepared."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small workload, under three minutes")
    parser.add_argument("--requests", type=int, help=f"requests of the workload (default {REQUESTS})")
    parser.add_argument("--only", help=f"contestants, comma-separated: {', '.join(CONTESTANTS)}")
    parser.add_argument("--dry", action="store_true", help="show the result, keep no file")
    given = parser.parse_args()
    console = Console(stderr=True)
    try:
        results = bench(given, lambda line: console.print(line, markup=False, highlight=False))
    except NotPrepared as missing:
        console.print(str(missing), markup=False)
        return 2
    show(results, Console(width=None if sys.stdout.isatty() else 120))
    if not given.dry:
        print(keep(results, quick=given.quick))
    return int(not all(outcome.exact for outcome in results.contestants.values()) or bool(results.notes))


if __name__ == "__main__":
    sys.exit(main())
