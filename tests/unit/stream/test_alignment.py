"""Which sources wait because they are ahead: by event time, robustly, and only while it helps."""

from __future__ import annotations

import pytest

from tests.builders import all_seen
from verifier.core.events import Seen, Source
from verifier.core.watermark import NEVER
from verifier.stream.alignment import Alignment, AlignmentConfig
from verifier.testing import TS, edge

CONFIG = AlignmentConfig(apart_s=2.0, open_min=10, open_max=100)
NOT_AT_END = [False for _ in Source]


def read(*times: float) -> list[Seen]:
    return all_seen(*[edge(f"r{n}", ts=ts) for n, ts in enumerate(times)])


def at(**fronts: float) -> Alignment:
    """Sources by name that have come so far, the others to TS."""
    alignment = Alignment(CONFIG)
    for source in Source:
        alignment.note(source, read(fronts.get(source.name, TS)))
    return alignment


@pytest.mark.parametrize(
    ("fronts", "at_end", "open_requests", "held"),
    [
        ({}, (), 50, set()),
        ({"EDGE": TS + 2.0}, (), 50, set()),
        ({"EDGE": TS + 2.1}, (), 50, {Source.EDGE}),
        ({"EDGE": TS + 2.1}, (), 10, set()),
        ({"EDGE": TS + 2.1}, (), 100, {Source.EDGE}),
        ({"EDGE": TS + 2.1}, (), 101, set()),
        ({"SHADOW_WRITES": TS - 9.0}, (), 50, set(Source) - {Source.SHADOW_WRITES}),
        ({"SHADOW_WRITES": TS - 9.0}, (Source.SHADOW_WRITES,), 50, set()),
        ({"SHADOW_WRITES": TS - 9.0, "EDGE": TS + 5.0}, (Source.SHADOW_WRITES,), 50, {Source.EDGE}),
        ({"EDGE": TS + 9.0}, tuple(Source), 50, set()),
    ],
)
def test_a_source_well_ahead_of_one_with_more_to_read_waits_while_many_requests_are_open(
    fronts: dict[str, float], at_end: tuple[Source, ...], open_requests: int, held: set[Source]
) -> None:
    ended = [source in at_end for source in Source]
    assert at(**fronts).held(ended, open_requests) == held


def test_sources_wait_for_one_of_which_nothing_was_read_yet() -> None:
    alignment = Alignment(CONFIG)
    alignment.note(Source.EDGE, read(TS))
    assert alignment.front(Source.MAIN_WRITES) == NEVER
    assert alignment.held(NOT_AT_END, 50) == {Source.EDGE}


@pytest.mark.parametrize("wrong", [TS + 1e6, TS - 1e6])
def test_a_few_wrong_clocks_do_not_tell_how_far_a_source_has_come(wrong: float) -> None:
    alignment = Alignment(CONFIG)
    times = [wrong if n % 7 == 3 else TS + n / 1_000 for n in range(501)]
    alignment.note(Source.EDGE, read(*times))
    assert TS <= alignment.front(Source.EDGE) <= TS + 0.501


def test_nothing_read_changes_nothing() -> None:
    alignment = at(EDGE=TS + 9.0)
    alignment.note(Source.EDGE, [])
    assert alignment.front(Source.EDGE) == TS + 9.0
