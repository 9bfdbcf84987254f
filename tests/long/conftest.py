"""Deployments and a voice for the tests that take minutes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import new_cluster, servers

__all__ = ["Say", "new_cluster", "say", "servers"]

Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints progress at once, with the seconds since the test began."""
    began = time.monotonic()

    def speak(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {time.monotonic() - began:6.1f} s  {text}", end="", flush=True)  # noqa: T201

    return speak
