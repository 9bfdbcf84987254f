"""Making an entry smaller when the journal does not take it whole."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from verifier.core.journal import Entry

DIFFERENCES_KEPT = 20
_log = structlog.get_logger(__name__)


def made_smaller(entry: Entry, why: str, *, safe: Sequence[int]) -> list[Entry]:
    """What to journal instead of an entry that is too large: its halves, the first one last, or less of one request."""
    _log.warning("entry_too_large", partition=entry.partition, requests=len(entry.resolved), why=why)
    return halved(entry, safe=safe)[::-1] if len(entry.resolved) > 1 else [laid_bare(entry)]


def halved(entry: Entry, *, safe: Sequence[int]) -> list[Entry]:
    """Divide an entry's requests over two; counts and conflicts go with the first, progress with the second."""
    middle = len(entry.resolved) // 2
    first = entry.resolved[:middle]
    early = {resolved.outcome.request_id for resolved in first}
    return [
        replace(
            entry,
            resolved=first,
            claims=tuple(claim for claim in entry.claims if claim.claimant.request_id in early),
            safe=tuple(safe),
        ),
        replace(
            entry,
            resolved=entry.resolved[middle:],
            claims=tuple(claim for claim in entry.claims if claim.claimant.request_id not in early),
            counts=(),
            conflicts=(),
            retracted=(),
            retracted_versions=(),
            contested=(),
        ),
    ]


def laid_bare(entry: Entry) -> Entry:
    """Leave an entry's verdicts and counts, and drop the values that are its size."""
    bare = tuple(
        replace(
            resolved,
            outcome=replace(
                resolved.outcome,
                writes=None,
                ignored=(),
                differences=tuple(
                    replace(difference, main=None, shadow=None)
                    for difference in resolved.outcome.differences[:DIFFERENCES_KEPT]
                ),
                dropped=resolved.outcome.dropped
                + max(0, len(resolved.outcome.differences) - DIFFERENCES_KEPT),
            ),
        )
        for resolved in entry.resolved
    )
    if bare == entry.resolved:
        raise ValueError(f"entry {entry.n} of partition {entry.partition} cannot be made any smaller")
    return replace(entry, resolved=bare)
