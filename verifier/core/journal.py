"""The journal: one entry for each batch of a partition, from which every count and table can be folded.

An entry is valid when its number `n` follows that of the last valid entry of its partition; any other is a repeat or
comes from a worker that has lost the partition, and is passed over by every reader alike. The first entry
with a number wins, so the journal needs no transactions to be exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from verifier.core.outcome import Claim, Conflict, Resolved


class SourceCount(Struct, frozen=True, array_like=True, gc=False):
    """What a batch took from one source: next offset before and after, and the records between, by their fate."""

    source: int
    start: int
    end: int
    records: int
    rejected: dict[str, int] = {}
    duplicate: int = 0
    late: int = 0


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one batch resolved.

    `positions` are the next offsets to read of every source after this entry and `safe` the oldest offsets still
    needed by an open request, both indexed by source number. `keep_n` is the number of the oldest entry whose
    requests may still be revised. `pending` counts open requests, `verified_through` is the event time up to which
    every request has its verdict, `watermark` the partition's. `at` is the wall clock, for people only.
    `published_n` is the newest entry whose findings had reached all output topics. `retracted` are ids of conflicts
    that no longer hold, and `retracted_versions`, in step with it, the key's version that says so: partitions share
    keys, so a finding of an older version may be stored after its retraction. `contested` holds one claim of each key
    that `conflicts` and `retracted` are about.
    """

    partition: int
    n: int
    worker: str
    at: float
    counts: tuple[SourceCount, ...] = ()
    positions: tuple[int, ...] = ()
    safe: tuple[int, ...] = ()
    keep_n: int = 0
    published_n: int = -1
    pending: int = 0
    watermark: float = 0.0
    verified_through: float = 0.0
    max_ts: tuple[float, ...] = ()
    resolved: tuple[Resolved, ...] = ()
    claims: tuple[Claim, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    retracted: tuple[str, ...] = ()
    epoch: str = ""
    contested: tuple[Claim, ...] = ()
    retracted_versions: tuple[int, ...] = ()
    v: int = 1


encode_entry = msgspec.json.Encoder(decimal_format="number").encode
decode_entry = msgspec.json.Decoder(Entry).decode


class Revisions(Struct, frozen=True, kw_only=True):
    """What an entry says of one request: `resolved` has more than one when it was judged again in the same batch."""

    at: float
    worker: str
    resolved: tuple[Resolved, ...]


class _Outline(Struct, frozen=True):
    """An entry whose requests are left unread."""

    at: float
    worker: str
    resolved: tuple[msgspec.Raw, ...] = ()


_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_resolved = msgspec.json.Decoder(Resolved).decode


def revisions_of(value: bytes, request_id: str) -> Revisions:
    """What an encoded entry says of a request. An entry may tell of thousands: the others are passed over unread."""
    outline = _decode_outline(value)
    named = msgspec.json.encode(request_id)
    maybe = (_decode_resolved(raw) for raw in outline.resolved if named in bytes(raw))
    resolved = tuple(each for each in maybe if each.outcome.request_id == request_id)
    return Revisions(at=outline.at, worker=outline.worker, resolved=resolved)


def valid_entries(entries: Iterable[tuple[int, Entry]], *, after_n: int = -1) -> Iterator[tuple[int, Entry]]:
    """Yield the (offset, entry) pairs of one partition that are valid, in order, after entry number `after_n`.

    `entries` must be in offset order and belong to one partition.
    """
    expected = after_n + 1
    for offset, entry in entries:
        if entry.n == expected:
            yield offset, entry
            expected += 1
