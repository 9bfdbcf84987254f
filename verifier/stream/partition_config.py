"""What a partition worker is made of: its ports, pace and bounds."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from verifier.core.events import Source
from verifier.stream.alignment import AlignmentConfig
from verifier.stream.codec import Record
from verifier.stream.ports import ClaimsStore, Clock, Journal, Publisher, Records, Tables


class Ports(Struct, frozen=True, kw_only=True):
    """All that a partition worker reaches the outside through."""

    journal: Journal
    records: Records
    publisher: Publisher
    claims: ClaimsStore
    tables: Tables
    clock: Clock


class PartitionConfig(Struct, frozen=True, kw_only=True):
    """Pace and bounds of a partition worker.

    More of a source is fetched while less than `inbox_records_max` and `inbox_bytes_max` of it wait; `retry_s` is the
    pause between tries. A record's event time is believed up to `clock_skew_max_s` beyond our clock. What the consumer
    has not handed over for `stall_s`, though it is there, is read apart from it.

    An entry that would tell of nothing but how many records were read is put off until `counts_every_s` after the last.

    A step takes at most `step_records_max` records, and about `step_bytes_max` bytes; it decodes `slice_records_max` of
    them at a time and gives way to others in between. A partition that gets no further for `stuck_s`, though records
    wait, is said to be stuck.
    """

    worker: str
    tick_s: float = 0.1
    counts_every_s: float = 0.25
    inbox_records_max: int = 2_000
    inbox_bytes_max: int = 4 * 1024 * 1024
    retry_s: float = 0.5
    idempotency_ttl_s: float = 3600.0
    conflict_timeout_s: float = 30.0
    clock_skew_max_s: float = 60.0
    log_conflicts: bool = False
    claim_idempotency_keys: bool = True
    stall_s: float = 5.0
    step_records_max: int = 4_000
    step_bytes_max: int = 16 * 1024 * 1024
    slice_records_max: int = 500
    stuck_s: float = 10.0
    alignment: AlignmentConfig = AlignmentConfig()


class Incoming(Struct, frozen=True):
    """A fetch batch of one source."""

    source: Source
    records: Sequence[Record]
