"""The simulator finds the mistakes that are planted in the product: else its silence would mean nothing."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.simulator import run_seed

SEEDS = 500


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_planted_mistake_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    found = next((result for result in map(run_seed, range(SEEDS)) if result.failure), None)
    assert found is not None, f"{name} survived {SEEDS} seeds"


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 15
