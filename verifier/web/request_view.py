"""Everything about one request, from its row, the journal's entries and the original records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from verifier.core.events import Source
from verifier.core.journal import Revisions
from verifier.core.outcome import EventRef, Outcome, Resolved
from verifier.web.ports import RecordRef, Redact, Row, WebDeps
from verifier.web.records import read_record

EVENTS_MAX = 500
HISTORY_MAX = 200

_KIND_OF_SOURCE = {
    Source.EDGE: "edge",
    Source.MAIN_RESPONSES: "response",
    Source.SHADOW_RESPONSES: "response",
    Source.MAIN_WRITES: "write",
    Source.SHADOW_WRITES: "write",
}


async def request_view(row: Row, deps: WebDeps) -> Row:
    """Return the whole of a request's evidence; `row` is what the tables know of it.

    What retention took is null and said so (`record_note`, `history_gone`). May raise `DependencyDown`.
    """
    request_id, partition = row["request_id"], row["partition"]
    # One entry may hold two revisions of a request; its offset is then stored twice.
    offsets = list(dict.fromkeys(row["journal_offsets"]))[-HISTORY_MAX:]
    entries = await deps.journal.revisions(request_id, partition, offsets)
    found = [
        (offset, entry, resolved)
        for offset, entry in zip(offsets, entries, strict=True)
        if entry is not None
        for resolved in entry.resolved
    ]
    latest = found[-1][2] if found and entries[-1] is not None else None
    refs = _event_refs([resolved for _, _, resolved in found])
    events = await _events(refs[:EVENTS_MAX], partition, deps)
    view = _verdict_of(row, latest.outcome if latest else None, deps.redact)
    return {
        **view,
        "partition": partition,
        "events": events,
        "events_omitted": max(0, len(refs) - EVENTS_MAX),
        "conflicts": [redact_conflict(conflict, deps.redact) for conflict in row.get("conflicts", ())],
        "history": [_revision(offset, entry, resolved) for offset, entry, resolved in found],
        "history_gone": sum(entry is None for entry in entries),
    }


def _verdict_of(row: Row, outcome: Outcome | None, redact: Redact) -> Row:
    """The current verdict: the row's word, with the witness of the journal's newest outcome, if kept."""
    whole = msgspec.to_builtins(outcome) if outcome is not None else {}
    differences = whole.get("differences", ()) if outcome is not None else row.get("differences") or ()
    return {
        "request_id": row["request_id"],
        "ts": row["ts"],
        "route": row["route"],
        "verdict": row["verdict"],
        "rev": row["rev"],
        "user_id": row.get("user_id"),
        "reasons": list(row.get("reasons") or ()),
        "missing": list(row.get("missing") or ()),
        "differences": [redact_difference(difference, redact) for difference in differences],
        "ignored": [redact_difference(difference, redact) for difference in whole.get("ignored", ())],
        "dropped": whole.get("dropped", 0),
        "sides": [
            {"side": facts.side, "status": facts.status, "latency_s": facts.latency_s}
            for facts in (outcome.sides if outcome is not None else ())
        ],
        "writes": redact(whole.get("writes") if outcome is not None else _stored_writes(row)),
    }


def _stored_writes(row: Row) -> Row | None:
    """The writes as the tables keep them, for when the journal's entry is gone."""
    stored = row.get("writes")
    if stored is None:
        return None
    return {
        "operation": stored["operation_type"],
        "user_id": stored["user_id"],
        "main": stored["main_data"],
        "shadow": stored["shadow_data"],
        "main_status": stored["main_status"],
        "shadow_status": stored["shadow_status"],
        "error": stored["error"],
    }


def _event_refs(resolved: Sequence[Resolved]) -> list[EventRef]:
    """Every event any revision saw, once, in the order of topic and offset."""
    refs = {(ref.source, ref.offset): ref for one in resolved for ref in one.events}
    return [refs[place] for place in sorted(refs)]


async def _events(refs: Sequence[EventRef], partition: int, deps: WebDeps) -> list[Row]:
    places: list[RecordRef] = [(deps.topics[ref.source], partition, ref.offset) for ref in refs]
    values = await deps.records.fetch(places) if places else []
    # Parsing megabytes of records here would stop the worker's loop, so another thread does it.
    return await asyncio.to_thread(_shown_events, refs, places, values, deps)


def _shown_events(
    refs: Sequence[EventRef], places: Sequence[RecordRef], values: Sequence[bytes | None], deps: WebDeps
) -> list[Row]:
    left_bytes = deps.records_bytes_max
    events = []
    for ref, place, raw in zip(refs, places, values, strict=True):
        record, note = _record(raw, left_bytes)
        left_bytes -= len(raw) if raw is not None and note != "too_large" else 0
        events.append(_event(ref, place, record, note, deps.redact))
    # Stable: records of one time, and those without any, stay in the order of topic and offset.
    return sorted(events, key=lambda event: (event["ts"] is None, event["ts"] or 0))


def _record(raw: bytes | None, left_bytes: int) -> tuple[Any, str | None]:
    if raw is None:
        return None, "gone"
    return (None, "too_large") if len(raw) > left_bytes else read_record(raw)


def _event(ref: EventRef, place: RecordRef, record: Any, note: str | None, redact: Redact) -> Row:
    topic, partition, offset = place
    members = record if isinstance(record, dict) else {}
    ts, side = members.get("ts"), members.get("side")
    return {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "kind": _KIND_OF_SOURCE[Source(ref.source)],
        "side": side if isinstance(side, str) else None,
        "ts": float(ts) if ts is not None and not isinstance(ts, (str, list, dict)) else None,
        "record": redact(record),
        "record_note": note,
    }


def _revision(offset: int, entry: Revisions, resolved: Resolved) -> Row:
    outcome = resolved.outcome
    return {
        "rev": resolved.rev,
        "at": entry.at,
        "verdict": outcome.verdict,
        "reasons": list(outcome.reasons),
        "missing": list(outcome.missing),
        "differences": len(outcome.differences) + outcome.dropped,
        "events": len(resolved.events),
        "worker": entry.worker,
        "journal_offset": offset,
    }


def redact_difference(difference: Row, redact: Redact) -> Row:
    """Hide a difference's values when any part of its path, or anything inside them, is secret by name."""
    shown = dict(difference)
    for side in ("main", "shadow"):
        value = shown.get(side)
        for segment in reversed(str(shown.get("path", "")).split("/")):
            value = {segment.replace("~1", "/").replace("~0", "~"): value} if segment else value
        value = redact(value)
        for segment in str(shown.get("path", "")).split("/"):
            if segment and isinstance(value, dict):
                value = next(iter(value.values()))
        shown[side] = value
    return shown


def redact_conflict(conflict: Row, redact: Redact) -> Row:
    """Hide secrets in what both claimants wrote."""
    return {**conflict, "winner": redact(conflict["winner"]), "loser": redact(conflict["loser"])}
