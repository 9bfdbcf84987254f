"""Marks tests by the folder they are in, so that `-m "not integration"` leaves out what starts servers."""

from __future__ import annotations

from pathlib import Path

import pytest

MARKS = {"integration": "integration", "contract": "integration", "acceptance": "acceptance"}
TESTS = Path(__file__).parent / "tests"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the mark of a test's folder, before `-m` is looked at."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKS:
            item.add_marker(MARKS[folder])
