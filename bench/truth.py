"""What a run over a workload must find, to the last count; and what is wrong with what a run says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.divergence import Change

if TYPE_CHECKING:
    from bench.workload import Line

VERDICTS = ("match", "divergence", "incomplete", "incomparable")


class Truth:
    """Counts that grow with the workload.

    `bytes_same`, `bytes_differ` and `bytes_missing` are what a comparison of the two bodies' bytes must come to.
    """

    def __init__(self) -> None:
        self.requests = Counter[str]()
        self.records = Counter[int]()
        self.fields = Counter[tuple[str, str, str, str]]()
        self.conflicts = 0
        self.bytes_same = self.bytes_differ = self.bytes_missing = 0
        self.value_bytes = 0

    def note(self, lines: Sequence[Line]) -> None:
        """Count records."""
        for line in lines:
            self.records[line.source] += 1
            self.value_bytes += len(line.value)

    def judge(self, route: str, verdict: str, changes: Sequence[Change], *, same_bytes: bool | None) -> None:
        """Note a request's verdict and differences; `same_bytes` is None where a response is missing."""
        self.requests[verdict] += 1
        for change in changes:
            self.fields[(route, *change)] += 1
        if same_bytes is None:
            self.bytes_missing += 1
        elif same_bytes:
            self.bytes_same += 1
        else:
            self.bytes_differ += 1

    def as_json(self) -> str:
        """Everything, for another process."""
        return json.dumps(
            {
                "requests": {verdict: self.requests[verdict] for verdict in VERDICTS},
                "records": [self.records[source] for source in range(5)],
                "fields": [[*place, count] for place, count in sorted(self.fields.items())],
                "conflicts": self.conflicts,
                "bytes": [self.bytes_same, self.bytes_differ, self.bytes_missing],
                "value_bytes": self.value_bytes,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Truth:
        """Read what `as_json` wrote."""
        told: dict[str, Any] = json.loads(text)
        truth = cls()
        truth.requests.update(told["requests"])
        truth.records.update(dict(enumerate(told["records"])))
        for *place, count in told["fields"]:
            route, kind, field, change = place
            truth.fields[route, kind, field, change] = count
        truth.conflicts = told["conflicts"]
        truth.bytes_same, truth.bytes_differ, truth.bytes_missing = told["bytes"]
        truth.value_bytes = told["value_bytes"]
        return truth

    @property
    def requests_total(self) -> int:
        """Requests of the workload."""
        return sum(self.requests.values())

    @property
    def records_total(self) -> int:
        """Records of the workload."""
        return sum(self.records.values())
