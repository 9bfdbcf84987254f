"""The metrics of one worker: CONTRACT §9's names, fed in batches, with bounded labels.

A request id, raw path or user id is never a label. Every label has a bound; values beyond it are counted under
`(other)` and in `verifier_label_overflow_total{label}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from verifier.adapters.metric_families import CounterFamily, Family, GaugeFamily, HistogramFamily, LabelBounds

PHASES = ("shadow", "canary", "ramp", "full")
DECISIONS = ("promote", "hold", "rollback")

_LABELS_MAX = {
    "topic": 64,
    "reason": 64,
    "verdict": 16,
    "was": 16,
    "kind": 32,
    "scope": 16,
    "side": 8,
    "status_class": 8,
    "dependency": 32,
    "phase": 8,
    "decision": 8,
    "label": 16,
    "missing": 16,
    "bound": 10,
    "state": 8,
}
VERDICTS = ("match", "divergence", "incomplete", "incomparable")
BOUNDS = ("inbox", "findings", "resurfaced", "entry_size")
"""Records dropped from an inbox; findings; requests not judged again; entries the journal did not take whole."""
CONFLICTS = (
    ("idempotency", "duplicate"),
    ("idempotency", "conflict"),
    ("main_canary", "conflict"),
    ("main_shadow", "order"),
)
PARTITION_STATES = ("working", "recovering", "waiting", "blocked")
_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_JOIN_BUCKETS_S = (
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    30.0,
    45.0,
    60.0,
    120.0,
    300.0,
    900.0,
)
_BATCH_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def status_class(status: int) -> str:
    """`2xx` for 204; `other` for what is no HTTP status."""
    return f"{status // 100}xx" if 100 <= status <= 599 else "other"


class Metrics:
    """One worker's metrics in a registry of their own.

    `routes_max` bounds the `route` label; `routes` are admitted before all others, so that the configured ones never
    end up in `(other)`. Counts are added once a batch. All methods may be called from any thread.
    """

    def __init__(self, *, routes_max: int = 500, routes: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._lock = Lock()
        self._families: list[Family] = []
        self._bounds = LabelBounds({**_LABELS_MAX, "route": routes_max})
        for route in routes:
            self._bounds.admit("route", route)
        self._told_apart: set[tuple[str, ...]] = set()
        self._add_stream_families()
        self._add_verdict_families()
        self._add_backend_families()
        self._add_state_families()
        self._bounds.overflow["route",] = 0.0
        overflow = CounterFamily(
            "verifier_label_overflow_total",
            "Samples counted under (other) because their label had too many values.",
            ("label",),
            self._bounds,
            self._lock,
            self._bounds.overflow,
        )
        self._register(overflow)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _add_stream_families(self) -> None:
        self._records = self._counter("verifier_records_total", "Records read.", "topic")
        self._rejected = self._counter(
            "verifier_rejected_total", "Records that could not be read.", "topic", "reason"
        )
        self._duplicates = self._counter(
            "verifier_duplicates_total", "Records read again with the same content."
        )
        self._late = self._counter("verifier_late_total", "Records that came after their request's verdict.")
        self._misplaced = self._counter(
            "verifier_misplaced_keys_total", "Records whose key belongs on another partition.", "topic"
        )
        self._gaps = self._counter(
            "verifier_capture_gaps_total", "Requests with a gap in their capture.", "side"
        )
        self._journal = self._counter(
            "verifier_journal_entries_total", "Journal records written and confirmed."
        )
        self._batch_s = self._histogram(
            "verifier_batch_seconds",
            "From making a batch's journal entry to its effects being confirmed.",
            _BATCH_BUCKETS_S,
        )

    def _add_verdict_families(self) -> None:
        self._requests = self._counter("verifier_requests_total", "Requests by verdict.", "route", "verdict")
        self._differences = self._counter("verifier_differences_total", "Differences found.", "route", "kind")
        self._ignored = self._counter(
            "verifier_ignored_differences_total",
            "Differences that a rule or noise explains.",
            "route",
            "kind",
        )
        self._conflicts = self._counter("verifier_conflicts_total", "Conflicting writes.", "scope", "kind")
        self._incomparable = self._counter(
            "verifier_incomparable_total", "Requests that could not be compared fairly, by why.", "reason"
        )
        self._incomplete = self._counter(
            "verifier_incomplete_total", "Requests that are incomplete, by what is missing.", "missing"
        )
        self._shed = self._counter(
            "verifier_shed_total", "Requests whose mirror copy the edge shed, by why.", "reason"
        )
        self._conflicts.add_many(dict.fromkeys(CONFLICTS, 0))
        self._retracted = self._counter(
            "verifier_conflicts_retracted_total",
            "Conflicts counted before that hold no more.",
            "scope",
            "kind",
        )
        self._retracted.add_many(dict.fromkeys(CONFLICTS, 0))
        self._dropped_claims = self._counter(
            "verifier_claims_dropped_total", "Claimants beyond the bound on a conflict key."
        )
        self._bounds_met = self._counter(
            "verifier_bounds_met_total", "What met a bound that is met in trouble alone.", "bound"
        )
        self._bounds_met.add_many({(bound,): 0 for bound in BOUNDS})
        self._revisions = self._counter(
            "verifier_revisions_total",
            "Verdicts that replaced another: each is counted in verifier_requests_total under both.",
            "was",
            "verdict",
        )
        self._join_s = self._histogram(
            "verifier_join_seconds", "From a request's first event to its verdict.", _JOIN_BUCKETS_S
        )
        self._gate = self._gauge(
            "verifier_gate_decision",
            "1 for the gate's present phase and decision, else 0.",
            "phase",
            "decision",
        )

    def _add_backend_families(self) -> None:
        self._latency_s = self._histogram(
            "verifier_backend_latency_seconds",
            "A backend's own response time.",
            _LATENCY_BUCKETS_S,
            "side",
            "route",
        )
        self._responses = self._counter(
            "verifier_backend_responses_total", "Responses of a backend.", "side", "route", "status_class"
        )

    def _add_state_families(self) -> None:
        self._stuck_s = self._gauge(
            "verifier_partition_stuck_seconds",
            "For how long the partition that stands still the longest has done so, though records wait.",
        )
        self._pending = self._gauge("verifier_pending_requests", "Requests without a verdict yet.")
        self._verified_through = self._gauge(
            "verifier_verified_through_timestamp_seconds",
            "Every request before this Unix time has its verdict.",
        )
        self._lag = self._gauge("verifier_consumer_lag", "Records in the topic not yet read.", "topic")
        self._partitions = self._gauge(
            "verifier_partitions", "Partitions this worker holds, by what they do.", "state"
        )
        self._topic_partitions = self._gauge(
            "verifier_topic_partitions", "Partitions of each topic, to be shared by all workers."
        )
        self._tables_queue = self._gauge(
            "verifier_tables_queue_entries", "Journal entries that wait to be written to the tables."
        )
        self._ready = self._gauge("verifier_ready", "1 if /readyz says yes, else 0.")
        self._dependency = self._gauge(
            "verifier_dependency_up", "1 if the dependency answers, else 0.", "dependency"
        )

    def _register(self, family: Family) -> None:
        self.registry.register(family)
        self._families.append(family)

    def _counter(self, name: str, documentation: str, *labels: str) -> CounterFamily:
        family = CounterFamily(name, documentation, labels, self._bounds, self._lock)
        self._register(family)
        return family

    def _gauge(self, name: str, documentation: str, *labels: str) -> GaugeFamily:
        family = GaugeFamily(name, documentation, labels, self._bounds, self._lock)
        self._register(family)
        return family

    def _histogram(
        self, name: str, documentation: str, buckets_s: tuple[float, ...], *labels: str
    ) -> HistogramFamily:
        family = HistogramFamily(name, documentation, labels, self._bounds, self._lock, buckets_s=buckets_s)
        self._register(family)
        return family

    def add_records(self, topic: str, count: int) -> None:
        """Records read of `topic`, the rejected among them."""
        self._records.add((topic,), count)

    def add_rejected(self, topic: str, reason: str, count: int = 1) -> None:
        self._rejected.add((topic, reason), count)

    def add_duplicates(self, count: int) -> None:
        self._duplicates.add((), count)

    def add_late(self, count: int) -> None:
        self._late.add((), count)

    def add_misplaced_keys(self, topic: str, count: int) -> None:
        self._misplaced.add((topic,), count)

    def add_capture_gaps(self, side: str, count: int) -> None:
        self._gaps.add((side,), count)

    def add_journal_entries(self, count: int) -> None:
        self._journal.add((), count)

    def add_requests(self, counts: Mapping[tuple[str, str], int]) -> None:
        """A batch's counts by (route, verdict)."""
        fresh = {route for route, _ in counts if self._is_new("requests", route)}
        zeros = {(route, verdict): 0 for route in fresh for verdict in VERDICTS}
        self._requests.add_many({**zeros, **counts})

    def add_incomparable(self, counts: Mapping[str, int]) -> None:
        """A batch's counts by reason, without what a reason is about: `capture_gap`, `judge_failed`."""
        self._incomparable.add_many({(reason,): count for reason, count in counts.items()})

    def add_incomplete(self, counts: Mapping[str, int]) -> None:
        """A batch's counts by what is missing: `shadow.responses`."""
        self._incomplete.add_many({(missing,): count for missing, count in counts.items()})

    def add_shed(self, counts: Mapping[str, int]) -> None:
        """A batch's counts by the edge's reason."""
        self._shed.add_many({(reason,): count for reason, count in counts.items()})

    def add_differences(self, counts: Mapping[tuple[str, str], int]) -> None:
        """A batch's counts by (route, kind)."""
        self._differences.add_many(counts)

    def add_ignored_differences(self, counts: Mapping[tuple[str, str], int]) -> None:
        """A batch's counts by (route, kind)."""
        self._ignored.add_many(counts)

    def add_revisions(self, counts: Mapping[tuple[str, str], int]) -> None:
        """A batch's revised verdicts by (verdict before, verdict now)."""
        self._revisions.add_many(counts)

    def add_retracted_conflicts(self, counts: Mapping[tuple[str, str], int]) -> None:
        """A batch's counts by (scope, kind)."""
        self._retracted.add_many(counts)

    def add_dropped_claims(self, count: int) -> None:
        self._dropped_claims.add((), count)

    def add_bound_met(self, bound: str, count: int = 1) -> None:
        """How often, or how much, met one of the `BOUNDS`."""
        self._bounds_met.add((bound,), count)

    def set_stuck(self, seconds: float) -> None:
        """For how long the partition that stands still the longest has done so though records wait; 0 for none."""
        self._stuck_s.set((), seconds)

    def add_conflicts(self, counts: Mapping[tuple[str, str], int]) -> None:
        """A batch's counts by (scope, kind)."""
        self._conflicts.add_many(counts)

    def add_responses(self, counts: Mapping[tuple[str, str, int], int]) -> None:
        """A batch's counts by (side, route, HTTP status)."""
        classes: dict[tuple[str, str, str], int] = {}
        for (side, route, status), count in counts.items():
            key = (side, route, status_class(status))
            classes[key] = classes.get(key, 0) + count
        fresh = {(side, route) for side, route, _ in classes if self._is_new("responses", side, route)}
        zeros = {(side, route, "5xx"): 0 for side, route in fresh}
        self._responses.add_many({**zeros, **classes})

    def _is_new(self, *what: str) -> bool:
        """Whether it is met for the first time: its series begin at 0, so that the first increase can be seen."""
        with self._lock:
            bounded = (*what[:-1], self._bounds.admit("route", what[-1], 0.0))
            known = bounded in self._told_apart
            self._told_apart.add(bounded)
        return not known

    def observe_latency(self, side: str, route: str, latencies_s: Iterable[float]) -> None:
        """A batch's response times of one side and route, in seconds."""
        self._latency_s.observe_many((side, route), latencies_s)

    def observe_joins(self, durations_s: Iterable[float]) -> None:
        """A batch's times from first event to verdict, in seconds."""
        self._join_s.observe_many((), durations_s)

    def observe_batch(self, duration_s: float) -> None:
        self._batch_s.observe_many((), (duration_s,))

    def set_pending(self, count: int) -> None:
        self._pending.set((), count)

    def set_tables_queue(self, entries: int) -> None:
        """Over all partitions; each has a bound, and waits at it."""
        self._tables_queue.set((), entries)

    def set_verified_through(self, unix_s: float | None) -> None:
        """The least of this worker's partitions, or None while it has none: then there is no series."""
        self._verified_through.replace({} if unix_s is None else {(): unix_s})

    def set_partitions(self, by_state: Mapping[str, int], *, of_topic: int) -> None:
        """How many partitions this worker holds in each of `PARTITION_STATES`; each topic has `of_topic`."""
        self._partitions.replace({(state,): by_state.get(state, 0) for state in PARTITION_STATES})
        self._topic_partitions.set((), of_topic)

    def set_ready(self, *, ready: bool) -> None:
        self._ready.set((), 1.0 if ready else 0.0)

    def start(self, topics: Iterable[str], sides: Iterable[str] = ("main", "shadow", "canary")) -> None:
        """Begin the counts of these topics and sides at 0: an alert can tell 0 from absent."""
        for topic in topics:
            self._records.add((topic,), 0)
            self._misplaced.add((topic,), 0)
            for reason in ("internal_error", "reader_failed"):
                self._rejected.add((topic, reason), 0)
        for side in sides:
            self._gaps.add((side,), 0)
        for reason in ("shed", "not_sampled", "capture_gap", "pending_bound", "judge_failed"):
            self._incomparable.add((reason,), 0)
        for part in ("shadow.responses", "shadow.edge", "main.responses", "main.edge"):
            self._incomplete.add((part,), 0)

    def set_lag(self, records_by_topic: Mapping[str, int]) -> None:
        """The lag of each topic this worker reads, summed over its partitions; topics not named are forgotten."""
        self._lag.replace({(topic,): float(count) for topic, count in records_by_topic.items()})

    def set_dependency_up(self, dependency: str, *, up: bool) -> None:
        self._dependency.set((dependency,), 1.0 if up else 0.0)

    def set_gate(self, phase: str, decision: str) -> None:
        """Raises ValueError for a phase or decision that is none."""
        if phase not in PHASES or decision not in DECISIONS:
            raise ValueError(
                f"gate: phase {phase!r} is not of {PHASES}, or decision {decision!r} not of {DECISIONS}"
            )
        self._gate.replace({(p, d): float((p, d) == (phase, decision)) for p in PHASES for d in DECISIONS})

    def families(self) -> list[Family]:
        """Every family there is, whether or not it has a series yet."""
        return list(self._families)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: Prometheus text, or OpenMetrics if the Accept header asks for it."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
