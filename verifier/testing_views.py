"""The rows of the tables in memory, in the shapes that the real tables give."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from verifier.core.outcome import WriteSet
from verifier.core.rollup import Row
from verifier.core.storable import json_text
from verifier.core.views import View, difference_view


class StoredRequest(Struct):
    """A row of `requests` with what hangs on it."""

    row: Row
    partition: int
    journal_offsets: tuple[int, ...]
    diverged: bool

    @property
    def ts(self) -> float:
        return self.row.outcome.ts


def as_stored(view: View) -> View:
    """What a stored row gives back: plain JSON."""
    stored: View = msgspec.json.decode(json_text(view))
    return stored


def request_view(request: StoredRequest) -> View:
    """A row of `requests`."""
    outcome = request.row.outcome
    return as_stored(
        {
            "request_id": outcome.request_id,
            "route": request.row.route,
            "ts": outcome.ts,
            "verdict": outcome.verdict,
            "rev": request.row.rev,
            "reasons": list(outcome.reasons),
            "missing": list(outcome.missing),
            "user_id": outcome.user_id,
        }
    )


def divergence_view(request: StoredRequest) -> View:
    """A row of `divergences`."""
    outcome = request.row.outcome
    return as_stored(
        {
            "request_id": outcome.request_id,
            "route": request.row.route,
            "ts": outcome.ts,
            "verdict": outcome.verdict,
            "reasons": outcome.reasons,
            "differences": [difference_view(difference) for difference in outcome.differences],
            "ignored": len(outcome.ignored),
            "dropped": outcome.dropped,
        }
    )


def writes_view(request_id: str, writes: WriteSet) -> View:
    """A row of `shadow_writes`."""
    main = writes.main is not None or writes.main_status is not None
    shadow = writes.shadow is not None or writes.shadow_status is not None
    return as_stored(
        {
            "operation_type": writes.operation,
            "user_id": writes.user_id,
            "shadow_request_id": request_id if shadow else None,
            "main_request_id": request_id if main else None,
            "shadow_data": writes.shadow,
            "main_data": writes.main,
            "shadow_status": writes.shadow_status,
            "main_status": writes.main_status,
            "error": writes.error,
        }
    )
