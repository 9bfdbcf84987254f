"""Times that are to come, the earliest first. What comes in order, as nearly all does, is only appended."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable

Item = tuple[float, str]


class Timeline:
    """A priority queue of (time, request id): a line for what comes in order, a heap for the rest."""

    __slots__ = ("_line", "_others")

    def __init__(self) -> None:
        self._line: deque[Item] = deque()
        self._others: list[Item] = []

    def __len__(self) -> int:
        return len(self._line) + len(self._others)

    def push(self, item: Item) -> None:
        """Add an item."""
        line = self._line
        if not line or line[-1] <= item:
            line.append(item)
        else:
            heapq.heappush(self._others, item)

    def first(self) -> Item | None:
        """The earliest item, None when there is none."""
        line, others = self._line, self._others
        if not others:
            return line[0] if line else None
        return others[0] if not line or others[0] < line[0] else line[0]

    def pop(self) -> None:
        """Drop the earliest item."""
        line, others = self._line, self._others
        if others and (not line or others[0] < line[0]):
            heapq.heappop(others)
        else:
            line.popleft()

    def keep(self, is_wanted: Callable[[Item], bool]) -> None:
        """Drop the items that are not wanted."""
        self.replace([item for item in (*self._line, *self._others) if is_wanted(item)])

    def replace(self, items: Iterable[Item]) -> None:
        """Hold these items instead."""
        self._line = deque(sorted(items))
        self._others = []
