"""What an offline run keeps while it works, in one temporary SQLite file, so that memory does not grow with the input.

The spool holds the records and hands them on in the order of event time (ties: source, content), whatever order the
files had them in; so the same records always lead to the same run. It also stands in for the source topics, the
journal and the claims of a live system, behind the same ports.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from xxhash import xxh3_64_intdigest

from verifier.adapters.archive_lines import Placed
from verifier.adapters.claims import ClaimResult, ClaimSet
from verifier.core.conflict import CLAIMS_PER_KEY_MAX, Held, Identity, bounded_claimant, claim_text, merge
from verifier.core.events import Source
from verifier.core.journal import Entry, decode_entry, encode_entry
from verifier.core.outcome import Claim, Claimant
from verifier.core.partitioner import murmur2_partition
from verifier.stream.codec import Record

INSERT_ROWS = 2_000
INSERT_BYTES = 8 << 20
STEP_RECORDS = 2_000
STEP_BYTES = 16 << 20
READ_RECORDS_MAX = 500
_CACHE_KIB = 32_768
_SIGN = 1 << 63
_SCHEMA = """
CREATE TABLE lines (
    id INTEGER PRIMARY KEY, partition INTEGER NOT NULL, source INTEGER NOT NULL, ts REAL NOT NULL,
    digest INTEGER NOT NULL, file INTEGER NOT NULL, line INTEGER NOT NULL, timestamp INTEGER NOT NULL, headers BLOB,
    value BLOB
);
CREATE TABLE places (
    partition INTEGER, source INTEGER, record_offset INTEGER, id INTEGER NOT NULL,
    PRIMARY KEY (partition, source, record_offset)
) WITHOUT ROWID;
CREATE TABLE journal (
    partition INTEGER, journal_offset INTEGER, entry BLOB NOT NULL, PRIMARY KEY (partition, journal_offset)
) WITHOUT ROWID;
CREATE TABLE claims (
    scope TEXT, key TEXT, version INTEGER NOT NULL, held BLOB NOT NULL, PRIMARY KEY (scope, key)
) WITHOUT ROWID;
"""
_pack = msgspec.msgpack.encode
_unpack_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode
_unpack_held = msgspec.msgpack.Decoder(list[tuple[str, int, tuple[float, int, str, int]]]).decode
_decode_claimant = msgspec.json.Decoder(Claimant).decode


class SpooledRecord(Struct, kw_only=True):
    """A record as a consumer would hand it over."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


class Step(Struct, frozen=True):
    """Records that follow one another in event time, by source; `ends` are the next offsets of every source.

    `until` is the event time of the last record, as far as that can be told before it is read.
    """

    batches: tuple[tuple[Source, list[SpooledRecord]], ...]
    ends: tuple[int, ...]
    until: float


class Spool:
    """Records first go in by `add`, all of them, then `seal`, then come out by `steps`; a `Records` port besides."""

    def __init__(self, file: Path, *, partitions: int = 1) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "locking_mode=EXCLUSIVE",
            f"cache_size=-{_CACHE_KIB}",
        ):
            self._db.execute("PRAGMA " + pragma)
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")
        self.partitions = partitions
        self._partition_of = murmur2_partition(partitions)
        self._rows: list[tuple[object, ...]] = []
        self._rows_bytes = 0
        self._fed: defaultdict[int, list[int]] = defaultdict(lambda: [0 for _ in Source])

    def close(self) -> None:
        """Close; the file is the caller's to remove."""
        self._db.close()

    # -- in --------------------------------------------------------------------------------------------------

    def add(self, placed: Placed, file: int, line: int) -> None:
        """Take a record that stands in a line of a file (by number)."""
        request_id, value = placed.request_id, placed.value
        partition = 0 if request_id is None else self._partition_of(request_id)
        digest = xxh3_64_intdigest(value or b"") - _SIGN
        headers = _pack(placed.headers) if placed.headers else None
        self._rows.append(
            (partition, int(placed.source), placed.ts, digest, file, line, placed.timestamp, headers, value)
        )
        self._rows_bytes += len(value or b"")
        if len(self._rows) >= INSERT_ROWS or self._rows_bytes >= INSERT_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._db.executemany(
            "INSERT INTO lines (partition, source, ts, digest, file, line, timestamp, headers, value)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._rows,
        )
        self._rows.clear()
        self._rows_bytes = 0

    def seal(self) -> None:
        """Note that all records are in."""
        self._flush()
        self._db.execute("CREATE INDEX in_time ON lines (partition, ts, source, digest)")

    # -- out -------------------------------------------------------------------------------------------------

    def steps(self, partition: int) -> Iterator[Step]:
        """A partition's records in the order of event time, about 2000 at once; copies of a record stay together.

        Copies do not count, so the steps are the same however often a record is there (up to the bound on bytes).
        """
        rows = self._db.execute(
            "SELECT id, source, digest, ts, timestamp, headers, value FROM lines WHERE partition = ?"
            " ORDER BY ts, source, digest, id",
            (partition,),
        )
        fed = self._fed[partition]
        batches: dict[Source, list[SpooledRecord]] = {}
        places: list[tuple[int, int, int, int]] = []
        size, distinct, last, until = 0, 0, None, 0.0
        for row_id, source, digest, ts, timestamp, headers, value in rows:
            content = (ts, source, digest)
            if content != last:
                if distinct >= STEP_RECORDS or size >= STEP_BYTES:
                    yield self._step(batches, places, fed, until)
                    batches, places, size, distinct = {}, [], 0, 0
                distinct, last = distinct + 1, content
            elif size >= 4 * STEP_BYTES:
                yield self._step(batches, places, fed, until)
                batches, places, size, distinct = {}, [], 0, 0
            until = ts
            places.append((partition, source, fed[source], row_id))
            record = _record(fed[source], timestamp, headers, value)
            batches.setdefault(Source(source), []).append(record)
            fed[source] += 1
            size += len(value or b"")
        if batches:
            yield self._step(batches, places, fed, until)

    def _step(
        self,
        batches: dict[Source, list[SpooledRecord]],
        places: list[tuple[int, int, int, int]],
        fed: Sequence[int],
        until: float,
    ) -> Step:
        self._db.executemany("INSERT INTO places VALUES (?, ?, ?, ?)", places)
        return Step(tuple(sorted(batches.items())), tuple(fed), until)

    def line_of(self, source: Source, partition: int, offset: int) -> tuple[int, int] | None:
        """The file's number and the line of a record that has been handed out."""
        found: tuple[int, int] | None = self._db.execute(
            "SELECT l.file, l.line FROM places p JOIN lines l USING (id)"
            " WHERE p.partition = ? AND p.source = ? AND p.record_offset = ?",
            (partition, int(source), offset),
        ).fetchone()
        return found

    # -- the port of the source topics -------------------------------------------------------------------------

    async def ends(self, partitions: Sequence[int]) -> dict[int, list[int]]:
        return {partition: list(self._fed[partition]) for partition in partitions}

    async def beginnings(self, partition: int) -> list[int]:  # noqa: ARG002 - the port's
        return [0 for _ in Source]

    async def read(
        self, source: Source, partition: int, start: int, end: int
    ) -> AsyncGenerator[list[Record], None]:
        for first in range(start, end, READ_RECORDS_MAX):
            refs = [(source, offset) for offset in range(first, min(end, first + READ_RECORDS_MAX))]
            records: list[Record] = [each for each in self._fetch(partition, refs) if each is not None]
            if records:
                yield records

    async def fetch(self, partition: int, refs: Sequence[tuple[Source, int]]) -> list[Record | None]:
        return list(self._fetch(partition, refs))

    def _fetch(self, partition: int, refs: Iterable[tuple[Source, int]]) -> Iterator[SpooledRecord | None]:
        for source, offset in refs:
            row = self._db.execute(
                "SELECT l.timestamp, l.headers, l.value FROM places p JOIN lines l USING (id)"
                " WHERE p.partition = ? AND p.source = ? AND p.record_offset = ?",
                (partition, int(source), offset),
            ).fetchone()
            yield None if row is None else _record(offset, *row)

    # -- the other ports ---------------------------------------------------------------------------------------

    def journal(self) -> SpoolJournal:
        """A journal in the same file."""
        return SpoolJournal(self._db)

    def claims(self, *, claims_per_key_max: int = CLAIMS_PER_KEY_MAX) -> SpoolClaims:
        """The claims in the same file."""
        return SpoolClaims(self._db, claims_per_key_max=claims_per_key_max)


def _record(offset: int, timestamp: int, headers: bytes | None, value: bytes | None) -> SpooledRecord:
    read = () if headers is None else _unpack_headers(headers)
    return SpooledRecord(offset=offset, key=None, value=value, timestamp=timestamp, headers=read)


class SpoolJournal:
    """The `Journal` port over the spool."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._ends: defaultdict[int, int] = defaultdict(int)

    async def append(self, entry: Entry) -> int:
        offset = self._ends[entry.partition]
        self._db.execute(
            "INSERT INTO journal VALUES (?, ?, ?)", (entry.partition, offset, encode_entry(entry))
        )
        self._ends[entry.partition] = offset + 1
        return offset

    async def read(self, partition: int, start: int, end: int | None = None) -> list[tuple[int, Entry]]:
        rows = self._db.execute(
            "SELECT journal_offset, entry FROM journal WHERE partition = ? AND journal_offset >= ?"
            " AND journal_offset < ? ORDER BY journal_offset",
            (partition, start, self._ends[partition] if end is None else end),
        )
        return [(offset, decode_entry(entry)) for offset, entry in rows]

    async def tail(self, partition: int) -> tuple[int, int]:
        return 0, self._ends[partition]


class SpoolClaims:
    """The `ClaimsStore` port over the spool: `RedisClaims` that never forgets, with the same merge and bound."""

    EPOCH = "offline"

    def __init__(self, db: sqlite3.Connection, *, claims_per_key_max: int) -> None:
        self._db = db
        self._claims_per_key_max = claims_per_key_max
        self._version = 0

    async def apply(self, claims: Sequence[Claim]) -> ClaimResult:
        by_key: dict[tuple[str, str], list[Claim]] = {}
        for claim in claims:
            claimant = _decode_claimant(claim_text(bounded_claimant(claim.claimant)))
            bounded = msgspec.structs.replace(claim, claimant=claimant)
            by_key.setdefault((claim.scope, claim.key), []).append(bounded)
        contested: list[ClaimSet] = []
        dropped_total = 0
        for (scope, key), mine in by_key.items():
            version, known = self._held(scope, key)
            held, changed, dropped = merge(scope, known, mine, claims_per_key_max=self._claims_per_key_max)
            dropped_total += dropped
            if changed:
                self._version += 1
                version = self._version
            if changed or held != known:  # what the bound goes by may move on its own
                self._keep(scope, key, version, held)
            if len({request_id for _, request_id in held}) > 1:
                contested.append(ClaimSet(scope, key, version, [h.claimant for h in held.values()]))
        return ClaimResult(contested, self.EPOCH, dropped_total)

    async def versions(self, keys: Sequence[tuple[str, str]]) -> list[int]:
        return [self._held(scope, key)[0] for scope, key in keys]

    def _held(self, scope: str, key: str) -> tuple[int, dict[Identity, Held]]:
        row = self._db.execute(
            "SELECT version, held FROM claims WHERE scope = ? AND key = ?", (scope, _storable(key))
        ).fetchone()
        if row is None:
            return 0, {}
        held: dict[Identity, Held] = {}
        for text, rev, kept_by in _unpack_held(row[1]):
            claimant = _decode_claimant(text)
            held[claimant.side, claimant.request_id] = Held(claimant, rev, kept_by)
        return row[0], held

    def _keep(self, scope: str, key: str, version: int, held: dict[Identity, Held]) -> None:
        rows = [(claim_text(each.claimant).decode(), each.rev, each.kept_by) for each in held.values()]
        self._db.execute(
            "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", (scope, _storable(key), version, _pack(rows))
        )


def _storable(key: str) -> bytes | str:
    """A key that is no valid UTF-8 is kept as bytes."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return key.encode(errors="surrogatepass")
    return key
