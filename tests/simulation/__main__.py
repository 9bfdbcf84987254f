"""`python -m tests.simulation --seed N` runs one seed again; `--seeds N` runs many."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.simulation.seeds import run_seeds
from tests.simulation.simulator import run_seed

PROGRESS_SEEDS = 250


def main() -> int:
    """Run what the arguments say; 1 if a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every step")
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes to use")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    wanted = parser.parse_args()
    if wanted.seed is not None:
        result = run_seed(wanted.seed)
        if wanted.trace:
            print("\n".join(result.trace))
        print(f"seed {result.seed}: {result.failure or 'all true'}")
        print(
            f"faults: {result.setup.faults}; {result.virtual_s:.0f} virtual seconds; trace {result.trace_hash}"
        )
        return 1 if result.failure else 0
    began_s, failed = time.monotonic(), 0
    for done, result in enumerate(run_seeds(wanted.first, wanted.seeds, wanted.jobs), start=1):
        if result.failure:
            failed += 1
            print(f"seed {result.seed}: {result.failure}\n  faults: {result.setup.faults}", flush=True)
            if not wanted.keep_going:
                break
        if done % PROGRESS_SEEDS == 0:
            print(f"{done} seeds, {done / (time.monotonic() - began_s):.0f} seeds/s", flush=True)
    elapsed_s = time.monotonic() - began_s
    print(f"{done} seeds in {elapsed_s:.1f} s, {done / elapsed_s:.0f} seeds/s, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
