"""How far the sources go, as the broker last said, against how far they are read."""

from __future__ import annotations

from collections.abc import Sequence

from verifier.core.events import Source

FRESH_S = 5.0
"""For how long an answer of the broker may be taken for the present."""


class Ends:
    """The next offset to be written in every source; nothing is known before the first `note`."""

    def __init__(self) -> None:
        self._ends: Sequence[int] | None = None
        self._read: Sequence[int] = ()
        self.noted_at = float("-inf")

    def note(self, ends: Sequence[int], positions: Sequence[int], now: float) -> list[str]:
        """Note what the broker has just said; return the sources that end before what was read by the last time."""
        before, self._read = self._read, tuple(positions)
        self._ends, self.noted_at = tuple(ends), now
        return [s.name.lower() for s, at, end in zip(Source, before, ends, strict=False) if end < at]

    def lag(self, positions: Sequence[int]) -> dict[Source, int]:
        """Number of records of each source not yet read, as far as known."""
        ends = positions if self._ends is None else self._ends
        return {source: max(0, ends[source] - positions[source]) for source in Source}

    def reached(self, positions: Sequence[int], now: float) -> list[bool]:
        """Whether each source is read to its end; no when that was long ago."""
        if self._ends is None or now - self.noted_at > FRESH_S:
            return [False for _ in Source]
        return [end <= position for end, position in zip(self._ends, positions, strict=True)]
