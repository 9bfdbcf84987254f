"""Counters, gauges and histograms that are fed once a batch, not once a record.

The stock ones of prometheus-client take a lock and a label look-up for each observation, and add a `_created`
series to each counter. These keep one dictionary for each family under one lock of the registry's owner, take many
observations in one call, and present themselves through prometheus-client's public collector interface.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString as go_float  # noqa: N813 - read as our own

Labels = tuple[str, ...]
L = TypeVar("L", bound=Labels)

OTHER = "(other)"
LABEL_CHARS_MAX = 256


class LabelBounds:
    """Keeps the number of values of each label bounded; what comes beyond becomes `(other)` and is counted.

    First come, first kept: once admitted, a value keeps its series. `maxima` gives the bound for each label name.
    """

    __slots__ = ("_admitted", "_maxima", "overflow")

    def __init__(self, maxima: Mapping[str, int]) -> None:
        self._maxima = dict(maxima)
        self._admitted: dict[str, dict[str, str]] = {label: {} for label in maxima}
        self.overflow: dict[Labels, float] = {}

    def admit(self, label: str, value: str, amount: float = 1.0) -> str:
        """The value to use for `label`. `amount` is what the overflow is counted by."""
        admitted = self._admitted[label]
        known = admitted.get(value)
        if known is not None:
            return known
        if value == OTHER:
            return OTHER
        if len(admitted) < self._maxima[label]:
            kept = value[:LABEL_CHARS_MAX]
            admitted[value] = kept
            return kept
        self.overflow[(label,)] = self.overflow.get((label,), 0.0) + amount
        return OTHER


class Family(Collector):
    """What the three kinds share: a name, bounded labels, and the lock."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds: LabelBounds, lock: Lock
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self._bounds = bounds
        self._lock = lock

    @property
    def sample_names(self) -> tuple[str, ...]:
        """What its samples are called."""
        return (self.name,)

    def _bounded(self, values: Labels, amount: float) -> Labels:
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, and was given the values {values}")
        return tuple(
            self._bounds.admit(label, value, amount) for label, value in zip(self.labels, values, strict=True)
        )


class CounterFamily(Family):
    """A count that only grows. Its name ends in `_total`."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: LabelBounds,
        lock: Lock,
        values: dict[Labels, float] | None = None,
    ) -> None:
        super().__init__(name, documentation, labels, bounds, lock)
        # Without labels there is one series, and it is there from the start: an alert can tell 0 from absent.
        self._values: dict[Labels, float] = values if values is not None else ({} if labels else {(): 0.0})

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        self.add_many({labels: amount})

    def add_many(self, amounts: Mapping[L, float]) -> None:
        """Add a batch's counts. Raises ValueError for a negative or non-finite amount, and then adds nothing."""
        for amount in amounts.values():
            if not 0 <= amount < math.inf:
                raise ValueError(f"{self.name} counts upwards, and was given {amount}")
        with self._lock:
            for labels, amount in amounts.items():
                key = self._bounded(labels, amount)
                self._values[key] = self._values.get(key, 0.0) + amount

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self.name, self.documentation, labels=self.labels)
        with self._lock:
            for labels, value in self._values.items():
                family.add_metric(labels, value)
        yield family


class GaugeFamily(Family):
    """A value that goes up and down."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds: LabelBounds, lock: Lock
    ) -> None:
        super().__init__(name, documentation, labels, bounds, lock)
        self._values: dict[Labels, float] = {}

    def set(self, labels: Labels, value: float) -> None:
        with self._lock:
            self._values[self._bounded(labels, 1.0)] = float(value)

    def replace(self, values: Mapping[Labels, float]) -> None:
        """Set all series at once; those not named are gone (a partition or topic this worker no longer has)."""
        with self._lock:
            fresh: dict[Labels, float] = {}
            for labels, value in values.items():
                key = self._bounded(labels, 1.0)
                # Several values folded into "(other)": the greatest is the one an alert must see.
                fresh[key] = max(float(value), fresh.get(key, -math.inf))
            self._values = fresh

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        with self._lock:
            for labels, value in self._values.items():
                family.add_metric(labels, value)
        yield family


class HistogramFamily(Family):
    """A distribution of durations in seconds over fixed buckets."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: LabelBounds,
        lock: Lock,
        *,
        buckets_s: Sequence[float],
    ) -> None:
        super().__init__(name, documentation, labels, bounds, lock)
        if list(buckets_s) != sorted(set(buckets_s)) or not buckets_s or not math.isfinite(buckets_s[-1]):
            raise ValueError(f"{name}: the buckets must be finite, different and ascending")
        self._limits = tuple(float(limit) for limit in buckets_s)
        self._names = [str(go_float(limit)) for limit in (*self._limits, math.inf)]  # type: ignore[no-untyped-call]
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    @property
    def sample_names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))

    def observe_many(self, labels: Labels, values_s: Iterable[float]) -> None:
        """Add a batch's observations: one sort and one search a bucket, whatever the number of values.

        A negative duration (two clocks that disagree) counts as 0; one that is not finite is left out.
        """
        ordered = sorted(values_s)
        if not math.isfinite(sum(ordered)):  # one of them is not, or all together are too much
            ordered = sorted(value for value in ordered if math.isfinite(value))
        if not ordered:
            return
        cumulative = [bisect_right(ordered, limit) for limit in self._limits]
        cumulative.append(len(ordered))
        total = sum(ordered[bisect_right(ordered, 0.0) :])
        with self._lock:
            key = self._bounded(labels, len(ordered))
            known = self._counts.get(key)
            self._counts[key] = (
                cumulative if known is None else [a + b for a, b in zip(known, cumulative, strict=True)]
            )
            self._sums[key] = self._sums.get(key, 0.0) + total

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labels)
        with self._lock:
            for labels, counts in self._counts.items():
                buckets = [(name, float(count)) for name, count in zip(self._names, counts, strict=True)]
                family.add_metric(labels, buckets, self._sums[labels])
        yield family
