"""Which sources of a partition are to wait because they are ahead of another: watermark alignment, as Flink calls it.

The five sources of a backlog are not fetched at one pace, and what one is ahead of another is open requests. So once
many are open, a source whose event time is well ahead of the one furthest behind is not read on. A source read to its
end holds nobody back.

Time stamps are not trusted further than that: how far a source has come is the median of some records of what was read
last, so a single wrong clock among many says nothing; and where holding back has not helped, because a source's clock
is hours off and half of what may be open is open, everything is read as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from msgspec import Struct

from verifier.core.events import Seen, Source
from verifier.core.watermark import NEVER

_SAMPLES = 9


class AlignmentConfig(Struct, frozen=True, kw_only=True):
    """When a source is to wait.

    It is held back while it is more than `apart_s` of event time ahead of the source furthest behind, and more than
    `open_min` but at most `open_max` requests of the partition are open.
    """

    apart_s: float = 2.0
    open_min: int = 5_000
    open_max: int = 250_000


class Alignment:
    """How far each source of a partition has come, in event time."""

    def __init__(self, config: AlignmentConfig) -> None:
        self._config = config
        self._fronts = [NEVER for _ in Source]

    def note(self, source: Source, seen: Sequence[Seen]) -> None:
        """Note what was read of a source last."""
        if seen:
            step = -(-len(seen) // _SAMPLES)
            self._fronts[source] = median_low([each.event.ts for each in seen[::step]])

    def front(self, source: Source) -> float:
        """Event time that a source has come to, in Unix seconds; `NEVER` when nothing was read of it."""
        return self._fronts[source]

    def held(self, at_end: Sequence[bool], open_requests: int) -> frozenset[Source]:
        """Sources not to be read for now; `at_end` tells of each whether it is read to its end."""
        config = self._config
        if not config.open_min < open_requests <= config.open_max:
            return frozenset()
        behind = [front for front, ended in zip(self._fronts, at_end, strict=True) if not ended]
        if not behind:
            return frozenset()
        limit = min(behind) + config.apart_s
        return frozenset(source for source in Source if self._fronts[source] > limit)
