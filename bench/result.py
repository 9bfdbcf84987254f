"""What a measured run came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench.measure import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A contestant's run. `wrong` says what was not exact: such a run is void. `busy_s`: first to last record.

    A slow contestant may have run on fewer records than the `of_records` of the others. Then its start, which took
    `start_cpu_s`, is spread over as many as theirs, so that it does not weigh more than theirs does.
    """

    name: str
    records: int
    requests: int
    usage: Usage
    busy_s: float
    wrong: tuple[str, ...] = ()
    start_cpu_s: float = 0.0
    of_records: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether every count is right."""
        return not self.wrong

    @property
    def cpu_s_per_million(self) -> float:
        """CPU-seconds of the whole process, its start included, for a million records."""
        if self.of_records <= self.records:
            return self.usage.cpu_s / self.records * 1e6
        working = (self.usage.cpu_s - self.start_cpu_s) / self.records
        return (working + self.start_cpu_s / self.of_records) * 1e6

    def as_json(self) -> dict[str, Any]:
        """The contestant's part of the result file."""
        per_s = self.records / self.busy_s
        return {
            "cpu_s_per_million": round(self.cpu_s_per_million, 3),
            "records_per_s": round(per_s),
            "peak_rss_mb": round(self.usage.peak_rss_mb, 1),
            "exact": self.exact,
            "records": self.records,
            "requests": self.requests,
            "requests_per_s": round(self.requests / self.busy_s),
            "start_cpu_s": round(self.start_cpu_s, 3),
            "busy_s": round(self.busy_s, 2),
            "void": list(self.wrong),
            **{name: round(value, 3) for name, value in asdict(self.usage).items()},
            **self.more,
        }


def middle(runs: Sequence[Outcome]) -> Outcome:
    """The run of median cost, to stand for all: what was wrong in any of them is wrong with it.

    Machines are shared, and one run in three may cost a third more. Of an even number it is the cheaper in the middle.
    """
    by_cost = sorted(runs, key=lambda run: run.cpu_s_per_million)
    costs = [round(run.cpu_s_per_million, 3) for run in runs]
    chosen = by_cost[(len(by_cost) - 1) // 2]
    wrong = tuple(dict.fromkeys(wrong for run in runs for wrong in run.wrong))
    return replace(chosen, wrong=wrong, more={**chosen.more, "runs_cpu_s_per_million": costs})
