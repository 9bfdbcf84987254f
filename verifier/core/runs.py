"""Which offsets of the sources are still needed: those of a run, read at once, as long as one of its records is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from verifier.core.events import Seen, Source


class Run:
    """A run of offsets read from one source at once, with the number of its records still needed."""

    __slots__ = ("first", "open")

    def __init__(self, first: int) -> None:
        self.first = first
        self.open = 0


class Runs:
    """The runs of every source, in the order of their offsets."""

    def __init__(self) -> None:
        self._of: list[list[Run]] = [[] for _ in Source]

    def begin(self, source: Source, first: int) -> Run:
        """Note that records are read from offset `first` on."""
        run = Run(first)
        self._of[source].append(run)
        return run

    def run_of(self, seen: Seen) -> Run:
        """The run that a record was read with."""
        runs = self._of[seen.source]
        at = bisect_right(runs, seen.offset, key=lambda run: run.first)
        if not at:
            runs.insert(0, Run(seen.offset))
            return runs[0]
        return runs[at - 1]

    def tidy(self, most: int) -> None:
        """Drop what is needed no more, once a source has more than `most` runs."""
        for runs in self._of:
            if len(runs) > most:
                runs[:] = [run for run in runs if run.open]

    def safe_offsets(self, positions: Sequence[int]) -> tuple[int, ...]:
        """For each source the offset below which nothing is needed; `positions` are read next."""
        safe = []
        for runs, position in zip(self._of, positions, strict=True):
            done = next((at for at, run in enumerate(runs) if run.open), len(runs))
            del runs[:done]
            safe.append(runs[0].first if runs else position)
        return tuple(safe)
