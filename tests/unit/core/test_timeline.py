"""A timeline hands out its items as one heap would, whatever order they come in."""

from __future__ import annotations

import heapq
import random

import pytest

from verifier.core.timeline import Timeline


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("disorder", [0.0, 0.1, 1.0])
def test_items_come_out_as_of_one_heap(seed: int, disorder: float) -> None:
    rng = random.Random(seed)
    timeline, heap = Timeline(), list[tuple[float, str]]()
    for step in range(300):
        if rng.random() < 0.6:
            at = float(rng.randrange(300)) if rng.random() < disorder else float(step)
            item = (at, f"r{rng.randrange(5)}")
            timeline.push(*item)
            heapq.heappush(heap, item)
        elif heap:
            assert timeline.first() == heapq.heappop(heap)
            timeline.pop()
        if rng.random() < 0.02:
            heap = [item for item in heap if item[1] != "r0"]
            heapq.heapify(heap)
            timeline.keep(lambda item: item[1] != "r0")
        assert len(timeline) == len(heap)
        assert timeline.first() == (heap[0] if heap else None)


def test_what_replaces_is_ordered() -> None:
    timeline = Timeline()
    timeline.push(5.0, "gone")
    timeline.replace([(3.0, "b"), (1.0, "a")])
    assert timeline.first() == (1.0, "a")
    timeline.push(2.0, "c")
    timeline.pop()
    assert timeline.first() == (2.0, "c")
