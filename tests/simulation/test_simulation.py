"""Runs of the simulator: many seeds, each a different day with different faults, each of them repeatable."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import subprocess
import sys
import time
from dataclasses import fields
from random import Random

import pytest

from tests.simulation.faults import Faults, draw_setup
from tests.simulation.mutants import MUTANTS
from tests.simulation.seeds import ChildDied, run_seeds
from tests.simulation.simulator import run_seed
from tests.simulation.virtual_loop import Deadlock, Livelock, VirtualLoop

SEEDS = 500


@pytest.mark.timeout(900)
def test_every_seed_ends_in_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m tests.simulation --seeds 50000` runs more of them, as `make test-long` does."""
    began_s = time.monotonic()
    failed = [
        f"seed {result.seed}: {result.failure} (python -m tests.simulation --seed {result.seed})"
        for result in run_seeds(0, SEEDS, os.cpu_count() or 1)
        if result.failure
    ]
    elapsed_s = time.monotonic() - began_s
    with capsys.disabled():
        sys.stdout.write(f" {SEEDS} seeds in {elapsed_s:.0f} s, {SEEDS / elapsed_s:.1f} seeds/s ")
    assert failed == []


def test_a_seed_is_the_same_run_every_time() -> None:
    for seed in (3, 11, 14):
        first, second = run_seed(seed), run_seed(seed)
        assert first.trace_hash == second.trace_hash
        assert first.trace == second.trace
    assert run_seed(3).trace_hash != run_seed(11).trace_hash


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_seed_is_the_same_run_in_another_process(hash_seed: str) -> None:
    seed = 11
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"trace ([0-9a-f]{32})", ran.stdout)
    assert found is not None and found[1] == run_seed(seed).trace_hash


def test_the_program_runs_seeds_on_several_processes() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", "4", "--jobs", "2"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert re.search(r"^4 seeds in .* seeds/s, 0 failed$", ran.stdout, re.MULTILINE)
    assert ran.stderr == ""


def test_a_child_that_dies_fails_the_run() -> None:
    results = run_seeds(0, 10_000, 2)
    assert next(results).failure is None
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(ChildDied, match="seeds from"):
        list(results)


def test_a_failure_names_its_seed_and_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS["no_duplicate_check_while_open"](monkeypatch)
    failed = next(result for result in map(run_seed, range(50)) if result.failure)
    again = run_seed(failed.seed)
    assert again.failure == failed.failure
    assert again.trace_hash == failed.trace_hash


def test_each_fault_is_on_in_some_seeds_and_off_in_others() -> None:
    drawn = [draw_setup(Random(seed)).faults for seed in range(SEEDS)]
    for fault in fields(Faults):
        on = sum(getattr(faults, fault.name) for faults in drawn)
        assert SEEDS / 5 < on < 4 * SEEDS / 5, fault.name
    assert sum(faults == Faults() for faults in drawn) > SEEDS / 30


# -- the loop itself ---------------------------------------------------------------------------------------------


def test_virtual_time_passes_only_by_waiting() -> None:
    loop = VirtualLoop()
    try:
        order: list[tuple[float, str]] = []

        async def wait(duration_s: float, name: str) -> None:
            await asyncio.sleep(duration_s)
            order.append((loop.elapsed_s, name))

        async def both() -> None:
            await asyncio.gather(wait(3600.0, "late"), wait(0.5, "early"))

        loop.run_until_complete(both())
        assert order == [(0.5, "early"), (3600.0, "late")]
    finally:
        loop.close()


def test_waiting_for_nobody_is_a_deadlock() -> None:
    loop = VirtualLoop()
    try:
        with pytest.raises(Deadlock):
            loop.run_until_complete(loop.create_future())
    finally:
        loop.close()


def test_being_busy_for_ever_is_a_livelock() -> None:
    loop = VirtualLoop()
    try:

        async def busy() -> None:
            while True:
                await asyncio.sleep(0)

        with pytest.raises(Livelock):
            loop.run_until_complete(busy())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.rounds = 0
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
