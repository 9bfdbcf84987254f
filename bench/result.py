"""What a measured run came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.measure import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A contestant's run. `wrong` says what was not exact: such a run is void. `busy_s`: first to last record."""

    name: str
    records: int
    requests: int
    usage: Usage
    busy_s: float
    wrong: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether every count is right."""
        return not self.wrong

    @property
    def cpu_s_per_million(self) -> float:
        """CPU-seconds of the whole process, its start included, for a million records."""
        return self.usage.cpu_s / self.records * 1e6

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
            "busy_s": round(self.busy_s, 2),
            "void": list(self.wrong),
            **{name: round(value, 3) for name, value in asdict(self.usage).items()},
            **self.more,
        }
