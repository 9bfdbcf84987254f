"""Event time of one partition index: how far every source has told its story.

The watermark is the least, over the sources that may still hold something back, of the highest event time seen, less
the lateness. A source read to its end with nothing new for `idle_s` holds nothing back. When every source is
like that, the clock carries the watermark on from the newest event, so that the last requests end too. It follows
the elapsed time rather than the absolute one: events from the past, or from a clock that is off, keep their pace.

The idea of idle sources is Flink's (`withIdleness`); bytewax's event clock carries on with the system clock likewise.
"""

from __future__ import annotations

from collections.abc import Sequence

NEVER = float("-inf")


class Watermark:
    """Watermark over `sources` inputs. Times are Unix seconds; `now` is any clock that only moves forward."""

    def __init__(self, sources: int, *, lateness_s: float, idle_s: float, now: float) -> None:
        self._lateness_s = lateness_s
        self._idle_s = idle_s
        self._max_ts = [NEVER] * sources
        self._busy_at = [now] * sources
        self._at_end = [False] * sources
        self.value = NEVER

    @property
    def max_ts(self) -> tuple[float, ...]:
        """Highest event time seen of each source."""
        return tuple(self._max_ts)

    def restore(self, value: float, max_ts: Sequence[float]) -> None:
        """Take up where a former owner of the partition stood."""
        self.value = max(self.value, value)
        for source, ts in enumerate(max_ts):
            self._max_ts[source] = max(self._max_ts[source], ts)

    def observe(self, source: int, max_ts: float, now: float) -> None:
        """Note that records up to event time `max_ts` were read from `source`."""
        self._busy_at[source] = now
        self._max_ts[source] = max(self._max_ts[source], max_ts)

    def note_end(self, source: int, at_end: bool) -> None:
        """Note whether `source` is read to its end."""
        self._at_end[source] = at_end

    def advance(self, now: float) -> float:
        """Move the watermark as far as it may go, and return it. It never moves back."""
        newest = max(self._max_ts)
        if newest == NEVER:
            return self.value
        least = NEVER
        held = [
            ts
            for ts, at_end, busy_at in zip(self._max_ts, self._at_end, self._busy_at, strict=True)
            if not (at_end and now - busy_at >= self._idle_s)
        ]
        least = min(held) if held else newest + (now - max(self._busy_at))
        self.value = max(self.value, least - self._lateness_s)
        return self.value
