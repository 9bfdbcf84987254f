"""Many seeds on several processes. A child that dies, or that gets stuck in a seed, ends the run with an error."""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from tests.simulation.simulator import Result, run_seed

STUCK_S = 120.0
"""A seed takes a fraction of a second; a child that takes so long for one says where it is and dies."""
_CHUNK_SEEDS = 20
_STDERR = 2


class ChildDied(RuntimeError):
    """A child ended in the middle of its seeds: killed, out of memory, or stuck (then its traceback is on stderr)."""


def run_seeds(first: int, count: int, jobs: int) -> Iterator[Result]:
    """Run seeds on `jobs` processes; results come in order, without their traces. Raises ChildDied."""
    seeds = range(first, first + count)
    if jobs == 1:
        yield from map(_without_trace, seeds)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=gc.freeze)  # what is loaded is no garbage
    done = 0
    try:
        for result in pool.map(_run_in_child, seeds, chunksize=min(_CHUNK_SEEDS, -(-count // jobs))):
            yield result
            done += 1
    except BrokenProcessPool as error:
        raise ChildDied(
            f"a child died running seeds from {first + done} on; run them with --jobs 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _run_in_child(seed: int) -> Result:
    faulthandler.dump_traceback_later(STUCK_S, exit=True, file=_STDERR)
    try:
        return _without_trace(seed)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _without_trace(seed: int) -> Result:
    result = run_seed(seed)
    result.trace.clear()
    return result
