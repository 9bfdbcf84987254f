"""How a partition gets on, as seen from outside: what waits for it, where it stands, whether it stands still."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from verifier.core.engine import Engine
from verifier.core.events import Source
from verifier.core.watermark import NEVER
from verifier.stream.ends import Ends
from verifier.stream.ports import Clock, Status, Tables

_log = structlog.get_logger(__name__)


class Progress:
    """What a partition has journaled against what its sources hold.

    `doing` says in a few words what the partition worker is at. A partition that gets no further for `stuck_s`, though
    records wait, is said to be stuck.
    """

    def __init__(self, partition: int, *, tables: Tables, clock: Clock, stuck_s: float) -> None:
        self._partition = partition
        self._tables = tables
        self._clock = clock
        self._stuck_s = stuck_s
        self._positions: Sequence[int] | None = None
        self._standing: Status | None = None
        self._moved_at = clock.monotonic()
        self._told = False
        self.ends = Ends()
        self.doing = "starting"

    # -- what the partition worker says --------------------------------------------------------------------

    def begin_again(self) -> None:
        """Note that the partition recovers."""
        self.doing = "recovering"
        self.ends = Ends()
        self._standing = None

    def journaled(self, positions: Sequence[int]) -> None:
        """Note what had been read when the last entry was written, or found."""
        self._positions, self._moved_at = tuple(positions), self._clock.monotonic()

    def stands(self, engine: Engine) -> None:
        """Note where the partition stands between steps: within one, requests are closed that are not journaled yet."""
        watermark = engine.event_time
        self._standing = Status(
            pending=engine.join.pending,
            lag=0,
            watermark=watermark if watermark != NEVER else 0.0,
            verified_through=engine.verified_through,
            n=engine.n,
        )
        self._tell()

    def note_ends(self, ends: Sequence[int], positions: Sequence[int]) -> list[str]:
        """Note how far the sources go, as the broker has just said; return those that end before what was read."""
        now = self._clock.monotonic()
        cut = self.ends.note(ends, positions, now)
        waiting = self.lag
        if self._positions is not None and not waiting:
            self._moved_at = now
        stuck_s = self.stuck_s
        if stuck_s and not self._told:
            _log.warning(
                "partition_stuck", partition=self._partition, waiting=waiting, at=self.doing, seconds=round(stuck_s)
            )  # fmt: skip
        elif self._told and not stuck_s:
            _log.info("partition_goes_on", partition=self._partition, waiting=waiting)
        self._told = bool(stuck_s)
        self._tell()
        return cut

    def _tell(self) -> None:
        if self._standing is not None:
            self._tables.note_status(self._partition, replace(self._standing, lag=self.lag))

    # -- what others ask -----------------------------------------------------------------------------------

    @property
    def lag(self) -> int:
        """Number of records that the journal does not tell of, as far as known: in Kafka, waiting here, or in work."""
        return sum(self.lag_by_source().values())

    def lag_by_source(self) -> dict[Source, int]:
        """`lag` by source."""
        return dict.fromkeys(Source, 0) if self._positions is None else self.ends.lag(self._positions)

    @property
    def verified_through(self) -> float:
        """Event time up to which every request read has its verdict."""
        return 0.0 if self._standing is None else self._standing.verified_through

    @property
    def stuck_s(self) -> float:
        """For how long the partition has got no further though records wait; 0 while that is no longer than usual."""
        still_s = self._clock.monotonic() - self._moved_at
        return still_s if still_s > self._stuck_s else 0.0
