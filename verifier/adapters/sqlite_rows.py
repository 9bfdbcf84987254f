"""Values as rows of the tables in SQLite (`sqlite.sql`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from verifier.core.outcome import Outcome, WriteSet
from verifier.core.rollup import Finding, Row
from verifier.core.storable import bounded_text, json_text
from verifier.core.views import claimant_view


def request_row(partition: int, row: Row, offsets: tuple[int, ...]) -> tuple[object, ...]:
    """A row of `requests`; `offsets` are those of its entries before this batch."""
    outcome = row.outcome
    return (
        outcome.request_id,
        outcome.ts,
        row.route,
        outcome.verdict,
        row.rev,
        listed(outcome.reasons),
        listed(outcome.missing),
        partition,
        json.dumps(offsets + row.journal_offsets),
        user_of(outcome),
        msgspec.json.encode(row.counted).decode(),
    )


def writes_row(row: Row, writes: WriteSet) -> tuple[object, ...]:
    """A row of `shadow_writes`."""
    request_id = row.outcome.request_id
    main = writes.main is not None or writes.main_status is not None
    shadow = writes.shadow is not None or writes.shadow_status is not None
    return (
        bounded_text(writes.operation),
        optional(writes.user_id),
        request_id,
        request_id if shadow else None,
        request_id if main else None,
        None if writes.shadow is None else json_text(writes.shadow),
        None if writes.main is None else json_text(writes.main),
        writes.shadow_status,
        writes.main_status,
        moment(row.outcome.ts),
        moment(row.at),
        optional(writes.error),
    )


def finding_row(conflict_id: str, finding: Finding) -> tuple[object, ...]:
    """A row of `conflicts`."""
    conflict = finding.conflict
    if conflict is None:
        return (conflict_id, "", "", None, "", "{}", "{}", "", "", "", finding.at, finding.version, 1)
    return (
        conflict_id,
        conflict.scope,
        bounded_text(conflict.key),
        optional(conflict.entity),
        conflict.kind,
        json_text(claimant_view(conflict.winner)),
        json_text(claimant_view(conflict.loser)),
        conflict.winner.request_id,
        conflict.loser.request_id,
        conflict.strategy,
        conflict.ts,
        finding.version,
        0,
    )


def listed(texts: Sequence[str]) -> str:
    """A list of texts as JSON."""
    return json.dumps([bounded_text(text) for text in texts], ensure_ascii=False) if texts else "[]"


def optional(text: str | None) -> str | None:
    """`bounded_text`, or None."""
    return None if text is None else bounded_text(text)


def user_of(outcome: Outcome) -> str | None:
    """The user of an outcome, fit for a column."""
    return optional(outcome.user_id)


def moment(ts: float) -> str:
    """Unix seconds as an ISO 8601 text in UTC."""
    try:
        return datetime.fromtimestamp(ts, UTC).isoformat(sep=" ", timespec="milliseconds")
    except (OverflowError, OSError, ValueError):
        return str(ts)
