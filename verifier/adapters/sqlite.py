"""The tables in one SQLite file: what an offline run leaves behind, and what its report is read from.

Behaves as `adapters.postgres.PostgresStore` for one process, with the same fold and the same views, on tables of the
same names and columns (`sqlite.sql`). A batch of entries is one transaction here, too.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import msgspec

from verifier.adapters.postgres import Position, StoredAt
from verifier.adapters.sqlite_reads import SqliteReads
from verifier.adapters.sqlite_rows import (
    finding_row,
    listed,
    moment,
    optional,
    request_row,
    user_of,
    writes_row,
)
from verifier.core.counts import Counted, Counts
from verifier.core.errors import StaleApply, VerifierError
from verifier.core.events import SIDE_RANK
from verifier.core.journal import Entry
from verifier.core.outcome import Verdict
from verifier.core.rollup import UNVERSIONED, Delta, Finding, KeyClaim, Row, Stored, fold, settle
from verifier.core.storable import bounded_text, json_text
from verifier.core.views import difference_view, key_result_view
from verifier.stream.ports import Status

APPLICATION_ID = 0x53565246
"""Marks a file as ours in its header, so that no other file is ever overwritten."""

_IDS_PER_QUERY = 500
_SCHEMA = resources.files("verifier.adapters") / "sqlite.sql"
_HEADER = b"SQLite format 3\0"
_decode_counted = msgspec.json.Decoder(Counted).decode


class NotOurs(VerifierError):
    """The file that was named for the tables is there already, and something else."""


def make_file(path: Path) -> None:
    """Make way for the tables at `path`: an older file of this kind is removed. Raises NotOurs for any other."""
    if not path.exists() and not path.is_symlink():
        return
    header = b""
    if path.is_file():
        with path.open("rb") as file:
            header = file.read(100)
    if not header.startswith(_HEADER) or int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise NotOurs(
            f"{path} is there already and was not written by this program: name another file, or remove it"
        )
    path.unlink()


class SqliteStore(SqliteReads):
    """The tables, for writing and reading. `idempotency_ttl_s` sets when a key's row expires."""

    def __init__(self, path: str | os.PathLike[str], *, idempotency_ttl_s: float = 3600.0) -> None:
        """Open `path` and make the tables there; it must not be there yet. `:memory:` keeps them in memory."""
        db = sqlite3.connect(path, isolation_level=None)
        for pragma in (f"application_id={APPLICATION_ID}", "journal_mode=MEMORY", "synchronous=OFF"):
            db.execute("PRAGMA " + pragma)
        db.executescript(_SCHEMA.read_text(encoding="utf-8"))
        super().__init__(db)
        self._idempotency_ttl_s = idempotency_ttl_s

    async def close(self) -> None:
        """Close the file."""
        self._db.close()

    async def ping(self) -> None:
        """Ask for a sign of life."""
        self._db.execute("SELECT 1")

    # -- the port ----------------------------------------------------------------------------------------------

    async def apply(
        self, partition: int, entries: Sequence[tuple[int, Entry]], *, lag: int | None = None
    ) -> tuple[str, ...]:
        """As `PostgresStore.apply`. Raises StaleApply and ValueError."""
        delta = fold(entries)
        if delta.partition != partition:
            raise ValueError(f"entries of partition {delta.partition} cannot be applied to {partition}")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            resurfaced = self._apply(delta, lag)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return resurfaced

    def _apply(self, delta: Delta, lag: int | None) -> tuple[str, ...]:
        self._advance(delta, lag)
        stored, offsets = self._stored_rows(delta.rows)
        resurfaced = settle(delta, stored)
        for table in ("divergences", "divergence_fields", "shadow_writes"):
            self._db.executemany(f"DELETE FROM {table} WHERE request_id = ?", [(i,) for i in stored])
        self._db.executemany(
            "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [request_row(delta.partition, row, offsets.get(i, ())) for i, row in delta.rows.items()],
        )
        diverged = [row for row in delta.rows.values() if row.outcome.verdict == Verdict.DIVERGENCE]
        self._write_divergences(diverged)
        writing = [(row, row.outcome.writes) for row in delta.rows.values() if row.outcome.writes is not None]
        self._db.executemany(
            "INSERT OR REPLACE INTO shadow_writes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [writes_row(row, writes) for row, writes in writing],
        )
        self._add_counts(delta.partition, delta.counts)
        self._write_findings(delta.findings)
        for key, found in delta.key_claims.items():
            self._write_key(key, found)
        return resurfaced

    async def position(self, partition: int) -> Position | None:
        """As `PostgresStore.position`."""
        row = self._db.execute(
            "SELECT n, journal_offset, keep_n, keep_offset FROM journal_positions WHERE partition = ? AND n >= 0",
            (partition,),
        ).fetchone()
        return None if row is None else Position(*row)

    async def status(self, partition: int, standing: Status) -> None:
        """As `PostgresStore.status`."""
        self._db.execute(
            """
            INSERT INTO journal_positions AS p (partition, pending, lag, watermark, verified_through, updated_at)
            VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (partition) DO UPDATE SET
                pending = excluded.pending, lag = excluded.lag, updated_at = excluded.updated_at,
                watermark = max(p.watermark, excluded.watermark),
                verified_through = max(p.verified_through, excluded.verified_through)
            WHERE p.n <= COALESCE(?, p.n)
            """,
            (
                partition,
                standing.pending,
                standing.lag,
                standing.watermark,
                standing.verified_through,
                moment(standing.verified_through),
                standing.n,
            ),
        )

    async def lookups(self, request_ids: Iterable[str]) -> Mapping[str, StoredAt]:
        """As `PostgresStore.lookups`."""
        found: dict[str, StoredAt] = {}
        for request_id in request_ids:
            row = self._db.execute(
                "SELECT partition, journal_offsets FROM requests WHERE request_id = ?",
                (bounded_text(request_id),),
            ).fetchone()
            if row is not None:
                found[request_id] = StoredAt(row[0], tuple(json.loads(row[1])))
        return found

    # -- an offline run's own ------------------------------------------------------------------------------------

    def reject_lines(self, rows: Iterable[tuple[str, int, str | None, str, str, bytes | None]]) -> None:
        """Keep lines that were rejected: (file, line, topic, reason, detail, original bytes)."""
        self._db.executemany("INSERT OR REPLACE INTO rejected_lines VALUES (?, ?, ?, ?, ?, ?)", rows)

    # -- writing -------------------------------------------------------------------------------------------------

    def _advance(self, delta: Delta, lag: int | None) -> None:
        row = self._db.execute(
            "SELECT n, keep_n, lag, watermark, verified_through FROM journal_positions WHERE partition = ?",
            (delta.partition,),
        ).fetchone()
        n, keep_n, old_lag, watermark, through = row or (-1, 0, 0, 0.0, 0.0)
        if n != delta.expected_n:
            raise StaleApply(delta.partition, delta.expected_n, n)
        keep_n = max(keep_n, delta.keep_n)
        self._db.executemany(
            "INSERT INTO journal_entries VALUES (?, ?, ?)",
            [(delta.partition, n, offset) for n, offset in delta.entries if n >= keep_n],
        )
        self._db.execute(
            "DELETE FROM journal_entries WHERE partition = ? AND n < ?", (delta.partition, keep_n)
        )
        kept = self._db.execute(
            "SELECT journal_offset FROM journal_entries WHERE partition = ? ORDER BY n LIMIT 1",
            (delta.partition,),
        ).fetchone()
        journal_offset = delta.entries[-1][1]
        self._db.execute(
            "INSERT OR REPLACE INTO journal_positions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                delta.partition,
                delta.last_n,
                journal_offset,
                keep_n,
                kept[0] if kept else journal_offset,
                delta.pending,
                old_lag if lag is None else lag,
                max(watermark, delta.watermark),
                max(through, delta.verified_through),
                delta.worker,
                moment(max(through, delta.verified_through)),
            ),
        )

    def _stored_rows(self, wanted: Iterable[str]) -> tuple[dict[str, Stored], dict[str, tuple[int, ...]]]:
        ids = list(wanted)
        stored: dict[str, Stored] = {}
        offsets: dict[str, tuple[int, ...]] = {}
        for first in range(0, len(ids), _IDS_PER_QUERY):
            some = ids[first : first + _IDS_PER_QUERY]
            marks = ",".join("?" * len(some))
            rows = self._db.execute(
                "SELECT request_id, route, verdict, counted, journal_offsets FROM requests"
                f" WHERE request_id IN ({marks})",
                some,
            )
            for request_id, route, verdict, counted, journal_offsets in rows:
                stored[request_id] = Stored(route, verdict, _decode_counted(counted))
                offsets[request_id] = tuple(json.loads(journal_offsets))
        return stored, offsets

    def _write_divergences(self, diverged: Sequence[Row]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO divergences VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    row.outcome.request_id,
                    row.outcome.ts,
                    row.route,
                    row.outcome.verdict,
                    listed(row.outcome.reasons),
                    json_text([difference_view(d) for d in row.outcome.differences]),
                    len(row.outcome.ignored),
                    row.outcome.dropped,
                    user_of(row.outcome),
                )
                for row in diverged
            ],
        )
        self._db.executemany(
            "INSERT OR IGNORE INTO divergence_fields VALUES (?, ?, ?, ?, ?, ?)",
            [
                (row.outcome.request_id, row.outcome.ts, row.route, *seen[:3])
                for row in diverged
                for seen in row.counted.fields
                if not seen[3]
            ],
        )

    def _add_counts(self, partition: int, counts: Counts) -> None:
        self._db.executemany(
            """
            INSERT INTO record_counts AS c VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET records = c.records + excluded.records, late = c.late + excluded.late,
                rejected = c.rejected + excluded.rejected, duplicate = c.duplicate + excluded.duplicate
            """,
            [
                (partition, source, count.records, count.rejected, count.duplicate, count.late)
                for source, count in counts.records.items()
            ],
        )
        add = "ON CONFLICT DO UPDATE SET n = c.n + excluded.n"
        self._db.executemany(
            f"INSERT INTO reject_counts AS c VALUES (?, ?, ?, ?) {add}",
            [(partition, *key, n) for key, n in counts.rejected.items()],
        )
        self._db.executemany(
            f"INSERT INTO verdict_counts AS c VALUES (?, ?, ?, ?) {add}",
            [(partition, *key, n) for key, n in counts.verdicts.items()],
        )
        self._db.executemany(
            """
            INSERT INTO field_counts AS c VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET n = c.n + excluded.n, ignored = c.ignored + excluded.ignored,
                first_ts = min(c.first_ts, excluded.first_ts), last_ts = max(c.last_ts, excluded.last_ts)
            """,
            [
                (
                    partition,
                    *key,
                    stat.n,
                    stat.ignored,
                    stat.first_ts,
                    stat.last_ts,
                )
                for key, stat in counts.fields.items()
            ],
        )
        for key, stat in counts.sides.items():
            self._add_side(partition, key, stat.n, stat.latency_sum_us, stat.buckets)

    def _add_side(
        self, partition: int, key: tuple[str, str, str], n: int, sum_us: int, buckets: list[int]
    ) -> None:
        row = self._db.execute(
            "SELECT n, latency_sum_us, latency_buckets FROM route_stats"
            " WHERE partition = ? AND route = ? AND side = ? AND status_class = ?",
            (partition, *key),
        ).fetchone()
        if row is not None:
            n, sum_us = n + row[0], sum_us + row[1]
            buckets = [a + b for a, b in zip(buckets, json.loads(row[2]), strict=True)]
        self._db.execute(
            "INSERT OR REPLACE INTO route_stats VALUES (?, ?, ?, ?, ?, ?, ?)",
            (partition, *key, n, sum_us, json.dumps(buckets)),
        )

    def _write_findings(self, findings: Mapping[str, Finding]) -> None:
        for conflict_id, finding in findings.items():
            if finding.version == UNVERSIONED:
                self._db.execute("UPDATE conflicts SET retracted = 1 WHERE id = ?", (conflict_id,))
                continue
            known = self._db.execute("SELECT version FROM conflicts WHERE id = ?", (conflict_id,)).fetchone()
            if known is None or finding.version >= known[0]:
                self._db.execute(
                    "INSERT OR REPLACE INTO conflicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    finding_row(conflict_id, finding),
                )

    def _write_key(self, key: str, found: KeyClaim) -> None:
        claimant, rev = found.claim.claimant, found.claim.rev
        row = self._db.execute(
            "SELECT request_id, result FROM idempotency_keys WHERE key = ?", (key,)
        ).fetchone()
        if row is not None:
            held = json.loads(row[1])
            if (row[0], held["side"]) == (claimant.request_id, claimant.side):
                takes = rev >= held["rev"]
            else:
                order = (claimant.ts, SIDE_RANK[claimant.side], claimant.request_id, claimant.seq)
                takes = order < (held["ts"], SIDE_RANK[held["side"]], row[0], held["seq"])
            if not takes:
                return
        self._db.execute(
            "INSERT OR REPLACE INTO idempotency_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                optional(claimant.operation),
                optional(found.user_id),
                claimant.request_id,
                moment(claimant.ts),
                moment(claimant.ts + self._idempotency_ttl_s),
                moment(found.at),
                json_text(key_result_view(claimant, rev)),
                optional(found.error),
            ),
        )
