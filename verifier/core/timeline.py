"""Times that are to come, the earliest first. What comes in order, as nearly all does, is only appended."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable

Item = tuple[float, str]


class Timeline:
    """A priority queue of (time, request id): a line for what comes in order, a heap for the rest."""

    __slots__ = ("_ids", "_others", "_times")

    def __init__(self) -> None:
        # the line's times and ids apart: a tuple for each item would take four times the memory
        self._times: deque[float] = deque()
        self._ids: deque[str] = deque()
        self._others: list[Item] = []

    def __len__(self) -> int:
        return len(self._times) + len(self._others)

    def push(self, ts: float, request_id: str) -> None:
        """Add an item."""
        times = self._times
        if not times or times[-1] < ts or (times[-1] == ts and self._ids[-1] <= request_id):
            times.append(ts)
            self._ids.append(request_id)
        else:
            heapq.heappush(self._others, (ts, request_id))

    def first(self) -> Item | None:
        """The earliest item, None when there is none."""
        times, others = self._times, self._others
        if not times:
            return others[0] if others else None
        item = times[0], self._ids[0]
        return others[0] if others and others[0] < item else item

    def pop(self) -> None:
        """Drop the earliest item."""
        others = self._others
        if others and others[0] == self.first():
            heapq.heappop(others)
        else:
            self._times.popleft()
            self._ids.popleft()

    def keep(self, is_wanted: Callable[[Item], bool]) -> None:
        """Drop the items that are not wanted."""
        line = zip(self._times, self._ids, strict=True)
        self.replace([item for item in (*line, *self._others) if is_wanted(item)])

    def replace(self, items: Iterable[Item]) -> None:
        """Hold these items instead."""
        in_order = sorted(items)
        self._times = deque([ts for ts, _ in in_order])
        self._ids = deque([request_id for _, request_id in in_order])
        self._others = []
