"""What is published of a journal entry: topics, metrics. A pure function of the entry, so repeating it is harmless."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from verifier.core.events import Rejection, Seen
from verifier.core.journal import Entry
from verifier.core.outcome import Conflict, Outcome, Resolved, Verdict
from verifier.stream.codec import Record
from verifier.stream.metrics_port import MetricsPort
from verifier.stream.ports import Message

_encode = msgspec.json.Encoder(decimal_format="number").encode
CONFLICT_IDS_MAX = 65_536
ORIGINAL_BYTES_MAX = 20 * 1024 * 1024


class OutputTopics(Struct, frozen=True, kw_only=True):
    """Names of the topics: the five sources by source number, and those written."""

    sources: tuple[str, ...]
    divergences: str
    conflicts: str
    rejected: str


class Outputs:
    """Turns entries into messages and metric updates; `on_entry` is told of every entry once it is published."""

    def __init__(
        self, topics: OutputTopics, metrics: MetricsPort, *, on_entry: Callable[[Entry], None] | None = None
    ) -> None:
        self._topics = topics
        self._metrics = metrics
        self._on_entry = on_entry
        self._rejected: list[Message] = []
        self._conflict_ids: OrderedDict[str, tuple[str, str]] = OrderedDict()

    # -- records that could not be used ----------------------------------------------------------------------

    def reject(self, partition: int, record: Record, rejection: Rejection) -> None:
        """Note a record that could not be read, to be published with its original bytes."""
        topic = self._topics.sources[rejection.source]
        self._rejected.append(self._dead_letter(topic, partition, record, rejection.reason, rejection.detail))

    def late(self, partition: int, record: Record, seen: Seen) -> None:
        """Note a record that came after its request's verdict, to be kept."""
        detail = (
            "came after its request's verdict; the verdict is revised where the evidence can still be had"
        )
        self._rejected.append(
            self._dead_letter(self._topics.sources[seen.source], partition, record, "late", detail)
        )

    def take_rejected(self) -> list[Message]:
        """Hand over the records to be published as rejected."""
        rejected, self._rejected = self._rejected, []
        return rejected

    def _dead_letter(self, topic: str, partition: int, record: Record, reason: str, detail: str) -> Message:
        original = record.value
        letter: dict[str, Any] = {
            "v": 1,
            "topic": topic,
            "partition": partition,
            "offset": record.offset,
            "reason": reason,
            "detail": detail,
            "ts": record.timestamp / 1000,
            "key": None if record.key is None else record.key[:1024].decode("utf-8", "replace"),
            "value": None if original is None else base64.b64encode(original[:ORIGINAL_BYTES_MAX]).decode(),
        }
        if original is not None and len(original) > ORIGINAL_BYTES_MAX:
            letter["value_cut"] = {"bytes": len(original), "sha256": hashlib.sha256(original).hexdigest()}
        place = f"{topic}/{partition}/{record.offset}".encode()
        return Message(topic=self._topics.rejected, key=place, value=_encode(letter))

    # -- entries ---------------------------------------------------------------------------------------------

    def messages(self, entry: Entry) -> list[Message]:
        """The divergences, conflicts and tombstones that an entry brings about."""
        conflicts = self.conflict_messages({conflict.id: conflict for conflict in entry.conflicts})
        return [
            *self.divergence_messages(entry),
            *conflicts,
            *self.conflict_messages(dict.fromkeys(entry.retracted)),
        ]

    def divergence_messages(self, entry: Entry) -> list[Message]:
        """The divergent requests of an entry, and those that are so no more."""
        made = (self._divergence(entry.partition, resolved) for resolved in entry.resolved)
        return [message for message in made if message is not None]

    def conflict_messages(self, found: Mapping[str, Conflict | None]) -> list[Message]:
        """The newest word on conflicts by id; None takes one back."""
        return [
            Message(
                topic=self._topics.conflicts,
                key=conflict_id.encode(),
                value=None if conflict is None else _encode(conflict),
            )
            for conflict_id, conflict in found.items()
        ]

    def _divergence(self, partition: int, resolved: Resolved) -> Message | None:
        outcome = resolved.outcome
        value = None
        if outcome.verdict == Verdict.DIVERGENCE:
            value = _encode({"v": 1, "rev": resolved.rev, **divergence_item(outcome)})
        elif resolved.was is None or resolved.was.verdict != Verdict.DIVERGENCE:
            return None
        return Message(
            topic=self._topics.divergences, key=outcome.request_id.encode(), value=value, partition=partition
        )

    def refold(self, entry: Entry) -> None:
        """Tell `on_entry` of an entry that another life of this partition has published."""
        if self._on_entry is not None:
            self._on_entry(entry)

    def observe(self, entry: Entry, now: float) -> None:
        """Count an entry in the metrics, in a few calls for the whole batch."""
        metrics, topics = self._metrics, self._topics.sources
        metrics.add_journal_entries(1)
        metrics.observe_batch(max(0.0, now - entry.at))
        for count in entry.counts:
            topic = topics[count.source]
            metrics.add_records(topic, count.records)
            for reason, n in count.rejected.items():
                metrics.add_rejected(topic, reason, n)
                if reason == "wrong_partition":
                    metrics.add_misplaced_keys(topic, n)
            if count.duplicate:
                metrics.add_duplicates(count.duplicate)
            if count.late:
                metrics.add_late(count.late)
        if entry.resolved:
            self._observe_resolved(entry.resolved, now)
        if entry.conflicts:
            metrics.add_conflicts(self._new_conflicts(entry))
        if entry.retracted:
            metrics.add_retracted_conflicts(self._gone_conflicts(entry))
        if self._on_entry is not None:
            self._on_entry(entry)

    def _new_conflicts(self, entry: Entry) -> Counter[tuple[str, str]]:
        """Count the conflicts of this entry, each once while its id is remembered."""
        new: Counter[tuple[str, str]] = Counter()
        for conflict in entry.conflicts:
            if conflict.id in self._conflict_ids:
                self._conflict_ids.move_to_end(conflict.id)
                continue
            self._conflict_ids[conflict.id] = conflict.scope, conflict.kind
            if len(self._conflict_ids) > CONFLICT_IDS_MAX:
                self._conflict_ids.popitem(last=False)
            new[conflict.scope, conflict.kind] += 1
        return new

    def _gone_conflicts(self, entry: Entry) -> Counter[tuple[str, str]]:
        """Count the conflicts that this entry takes back, of those that are remembered."""
        known = (self._conflict_ids.pop(conflict_id, None) for conflict_id in entry.retracted)
        return Counter(counted for counted in known if counted is not None)

    def claims_dropped(self, claimants: int) -> None:
        """Count claimants that the bound on a conflict key has removed."""
        self._metrics.add_dropped_claims(claimants)

    def bound_met(self, bound: str, count: int = 1) -> None:
        """Count what has met a bound."""
        self._metrics.add_bound_met(bound, count)

    def _observe_resolved(self, resolved: Sequence[Resolved], now: float) -> None:
        requests: Counter[tuple[str, str]] = Counter()
        differences: Counter[tuple[str, str]] = Counter()
        ignored: Counter[tuple[str, str]] = Counter()
        answers: dict[tuple[str, str, int | None], list[float | None]] = {}
        joins: list[float] = []
        unsettled: Counter[tuple[str, str]] = Counter()
        revised: Counter[tuple[str, str]] = Counter()
        for item in resolved:
            outcome, was = item.outcome, item.was
            if was is not None:
                if was.verdict == outcome.verdict:
                    continue
                revised[was.verdict, outcome.verdict] += 1
            else:
                joins.append(now - outcome.ts)
            route = outcome.route
            requests[route, outcome.verdict] += 1
            for difference in outcome.differences:
                differences[route, difference.kind] += 1
            for difference in outcome.ignored:
                ignored[route, difference.kind] += 1
            if outcome.reasons or outcome.missing:
                unsettled.update(_unsettled(outcome))
            for facts in outcome.sides:
                if was is not None and facts in was.sides:
                    continue
                answer = (facts.side, route, facts.status)
                latencies = answers.get(answer)
                if latencies is None:
                    latencies = answers[answer] = []
                latencies.append(facts.latency_s)
        self._metrics.add_requests(requests)
        self._metrics.add_revisions(revised)
        self._observe_unsettled(unsettled)
        self._metrics.add_differences(differences)
        self._metrics.add_ignored_differences(ignored)
        self._metrics.observe_joins(joins)
        self._observe_answers(answers)

    def _observe_answers(self, answers: Mapping[tuple[str, str, int | None], Sequence[float | None]]) -> None:
        """Count what the backends answered: latencies, None where no record tells, by (side, route, status)."""
        responses: dict[tuple[str, str, int], int] = {}
        latencies: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for (side, route, status), found in answers.items():
            if status is not None:
                responses[side, route, status] = len(found)
            latencies[side, route] += [latency_s for latency_s in found if latency_s is not None]
        self._metrics.add_responses(responses)
        for (side, route), values in latencies.items():
            if values:
                self._metrics.observe_latency(side, route, values)

    def _observe_unsettled(self, counts: Mapping[tuple[str, str], int]) -> None:
        metrics = self._metrics
        by_what: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (what, value), count in counts.items():
            by_what[what][value] = count
        for side, count in by_what["gap"].items():
            metrics.add_capture_gaps(side, count)
        metrics.add_shed(by_what["shed"])
        metrics.add_incomparable(by_what[Verdict.INCOMPARABLE])
        metrics.add_incomplete(by_what[Verdict.INCOMPLETE])


def _unsettled(outcome: Outcome) -> set[tuple[str, str]]:
    """What kept a request from being compared in full: each kind of reason once, as (what, label of the metric)."""
    found: set[tuple[str, str]] = set()
    for reason in outcome.reasons:
        name, _, about = reason.partition(":")
        if name == "capture_gap":
            found.add(("gap", about.split(".", 1)[0]))
        elif name == "shed" and (about or len(outcome.reasons) == 1):
            found.add(("shed", about or "unspecified"))
        if outcome.verdict == Verdict.INCOMPARABLE:
            found.add((outcome.verdict, name))
    if outcome.verdict == Verdict.INCOMPLETE:
        found.update((outcome.verdict, part) for part in outcome.missing)
    return found


def divergence_item(outcome: Outcome) -> dict[str, Any]:
    """An outcome in the form of the public contract's divergence item."""
    return {
        "request_id": outcome.request_id,
        "route": outcome.route,
        "ts": outcome.ts,
        "verdict": outcome.verdict,
        "reasons": list(outcome.reasons),
        "missing": list(outcome.missing),
        "user_id": outcome.user_id,
        "differences": [
            {
                "kind": d.kind,
                "path": d.path,
                "field": d.field,
                "change": d.change,
                "main": d.main,
                "shadow": d.shadow,
            }
            for d in outcome.differences
        ],
        "differences_dropped": outcome.dropped,
    }
