"""The shipped NGINX files between backends of the test's own, for whoever asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_driver import Backend, Edge, edges_over, running_backends


@pytest.fixture
def backends() -> Iterator[dict[str, Backend]]:
    with running_backends() as three:
        yield three


@pytest.fixture
def edge(backends: dict[str, Backend], tmp_path: Path) -> Iterator[Edge]:
    with edges_over(backends, tmp_path) as start:
        yield start
