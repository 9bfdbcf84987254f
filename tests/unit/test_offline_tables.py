"""What an offline run keeps its tables and its work in: the same as the live tables, the same as the live claims."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from verifier.adapters.archive_lines import Placed
from verifier.adapters.spool import Spool, SpooledRecord
from verifier.adapters.sqlite import APPLICATION_ID, NotOurs, SqliteStore, make_file
from verifier.core.difference import Difference
from verifier.core.errors import StaleApply
from verifier.core.events import Source
from verifier.core.journal import Entry, SourceCount
from verifier.core.outcome import Claim, Claimant, Conflict, Outcome, Resolved, SideFacts, WriteSet
from verifier.testing import TS, MemoryClaims, MemoryStore

ROOT = Path(__file__).resolve().parents[2]
_TABLE = re.compile(r"CREATE TABLE (\w+) \((.*?)\n\)", re.DOTALL)
_NOT_A_COLUMN = ("PRIMARY", "UNIQUE", "CHECK", "CONSTRAINT", "FOREIGN", "--")


def columns_of_migrations() -> dict[str, list[str]]:
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "sql").glob("*.sql")))
    tables = {
        name: [
            line.split()[0]
            for line in body.splitlines()
            if line.strip() and not line.strip().startswith(_NOT_A_COLUMN)
        ]
        for name, body in _TABLE.findall(text)
    }
    for table, column in re.findall(r"ALTER TABLE (\w+)\s+ADD COLUMN (?:IF NOT EXISTS )?(\w+)", text):
        tables[table].append(column)
    return tables


def test_the_tables_have_the_names_and_columns_of_the_migrations(tmp_path: Path) -> None:
    file = tmp_path / "tables.sqlite"
    SqliteStore(file)
    db = sqlite3.connect(file)
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    tables = {name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")] for name in names}
    db.close()
    assert tables.pop("rejected_lines"), "an offline run's own"
    assert tables == columns_of_migrations()


def test_only_a_file_of_this_kind_is_ever_replaced(tmp_path: Path) -> None:
    file = tmp_path / "tables.sqlite"
    make_file(file)
    SqliteStore(file)
    assert int.from_bytes(file.read_bytes()[68:72], "big") == APPLICATION_ID
    make_file(file)
    assert not file.exists()
    sqlite3.connect(file).execute("CREATE TABLE mine (a)").connection.close()
    text = tmp_path / "text"
    text.write_text("precious")
    for other in (file, text, tmp_path):
        with pytest.raises(NotOurs, match="was not written by this program"):
            make_file(other)
        assert other.exists()


# -- the same as the live tables -----------------------------------------------------------------------------------


class _Journal:
    """Random entries of two partitions: new verdicts, revisions, requests that come back, conflicts, retractions."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._current: dict[str, Resolved] = {}

    def entry(self, partition: int, n: int) -> Entry:
        pick = self._random
        resolved: dict[str, Resolved] = {}
        for _ in range(pick.randint(0, 6)):
            request_id = f"r{pick.randint(0, 25)}"
            outcome = self._outcome(request_id)
            known = self._current.get(request_id)
            forgotten = pick.random() < 0.2
            old = None if known is None or forgotten else known
            made = Resolved(
                outcome=outcome,
                events=(),
                rev=0 if old is None else old.rev + 1,
                was=None if old is None else old.outcome,
            )
            if request_id not in resolved:
                resolved[request_id] = self._current[request_id] = made
        count = SourceCount(
            pick.randint(0, 4), 0, 5, 5, {"missing_field": pick.randint(0, 2)}, pick.randint(0, 2), 1
        )
        conflicts = tuple(self._conflict(n) for _ in range(pick.randint(0, 2)))
        claims = tuple(
            Claim(
                scope="idempotency",
                key=f"main:k{pick.randint(0, 3)}",
                claimant=self._claimant(),
                rev=pick.randint(0, 1),
            )
            for _ in range(2)
        )
        retracted = (f"c{pick.randint(0, 5)}",) if pick.random() < 0.3 else ()
        return Entry(
            partition=partition, n=n, worker="w", at=TS + n, counts=(count,), resolved=tuple(resolved.values()),
            conflicts=conflicts, claims=claims, retracted=retracted, keep_n=max(0, n - 3), pending=pick.randint(0, 3),
            watermark=TS + n, verified_through=TS + n,
        )  # fmt: skip

    def _outcome(self, request_id: str) -> Outcome:
        pick = self._random
        verdict = pick.choice(["match", "divergence", "incomplete", "incomparable"])
        differences = tuple(
            Difference(
                kind="body", path=f"/{name}/0", field=f"/{name}/*", change="value", main=[name], shadow=None
            )
            for name in pick.sample("abc", pick.randint(1, 2))
        )
        ignored = (Difference(kind="header", path="date", field="date", change="value", rule="date"),)
        writes = WriteSet(
            operation="POST /x", main=[{"entity": "t", "status": "failed"}], shadow=[], main_status=200
        )
        return Outcome(
            request_id=request_id, ts=TS + pick.randint(0, 50), route=pick.choice(["GET /a", "POST /é"]),
            verdict=verdict, reasons=("shed",) if verdict == "incomparable" else (),
            missing=("shadow.responses",) if verdict == "incomplete" else (),
            differences=differences if verdict == "divergence" else (), ignored=ignored if pick.random() < 0.5 else (),
            sides=(SideFacts("main", 200, 0.01), SideFacts("shadow", pick.choice([200, 500, None]), None)),
            user_id=pick.choice([None, "u1"]), writes=writes if pick.random() < 0.5 else None,
        )  # fmt: skip

    def _claimant(self) -> Claimant:
        pick = self._random
        return Claimant(
            side="main", request_id=f"r{pick.randint(0, 9)}", ts=TS + pick.randint(0, 9), data={"a": [1]}
        )

    def _conflict(self, version: int) -> Conflict:
        pick = self._random
        return Conflict(
            id=f"c{pick.randint(0, 5)}", scope="idempotency", key="main:k", entity="t", kind="conflict",
            winner=self._claimant(), loser=self._claimant(), strategy="first_write", ts=TS + pick.randint(0, 9),
            version=version - pick.randint(0, 2),
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
async def test_the_tables_in_a_file_and_in_memory_say_the_same(seed: int, tmp_path: Path) -> None:
    file, memory, journal = SqliteStore(tmp_path / "t.sqlite"), MemoryStore(), _Journal(seed)
    applied = [0, 0]
    for _ in range(12):
        for partition in (0, 1):
            entries = [
                (10 * n, journal.entry(partition, n))
                for n in range(applied[partition], applied[partition] + 2)
            ]
            resurfaced = [await store.apply(partition, entries, lag=1) for store in (file, memory)]
            assert sorted(resurfaced[0]) == sorted(resurfaced[1])
            applied[partition] += 2
            with pytest.raises(StaleApply):
                await file.apply(partition, entries)
            assert await file.position(partition) == await memory.position(partition)
    assert await file.summary() == await memory.summary()
    assert await file.routes() == await memory.routes()
    assert await file.fields() == await memory.fields()
    assert await file.fields("GET /a") == await memory.fields("GET /a")
    assert await file.divergences(limit=3) == await memory.divergences(limit=3)
    cursor = (await file.divergences(limit=3))["next_cursor"]
    for filters in (
        {},
        {"field": "/a/*"},
        {"kind": "body"},
        {"route": "POST /é"},
        {"since": TS + 9.0, "until": TS + 30},
    ):
        assert await file.divergences(**filters, cursor=cursor) == await memory.divergences(
            **filters, cursor=cursor
        )
    for kind in (None, "conflict", "order"):
        assert await file.conflicts(kind=kind) == await memory.conflicts(kind=kind)
    ids = [f"r{n}" for n in range(27)]
    assert await file.lookups(ids) == await memory.lookups(ids)
    for request_id in ids:
        assert await file.request(request_id) == await memory.request(request_id)
    await file.close()


async def test_a_batch_that_fails_changes_nothing(tmp_path: Path) -> None:
    store, journal = SqliteStore(tmp_path / "t.sqlite"), _Journal(1)
    await store.apply(0, [(0, journal.entry(0, 0))])
    before = await store.summary()
    broken = msgspec.structs.replace(journal.entry(0, 1), worker="\ud800")
    with pytest.raises(UnicodeEncodeError):
        await store.apply(0, [(1, broken)])
    assert await store.summary() == before
    await store.apply(0, [(1, journal.entry(0, 1))])


async def test_numbers_no_double_can_hold_are_shown_as_they_were(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "t.sqlite")
    values = [
        msgspec.Raw(text)
        for text in (b"0.10000000000000001", b"123456789012345678901234567890", b"1e999", b"1.50")
    ]
    difference = Difference(kind="body", path="", field="", change="value", main=values, shadow=1)
    outcome = Outcome(request_id="r", ts=TS, route="GET /", verdict="divergence", differences=(difference,))
    await store.apply(
        0,
        [(0, Entry(partition=0, n=0, worker="w", at=1.0, resolved=(Resolved(outcome=outcome, events=()),)))],
    )
    (item,) = (await store.divergences())["items"]
    shown = item["differences"][0]["main"]
    assert (
        msgspec.json.Encoder(decimal_format="number").encode(shown[:2])
        == b"[0.10000000000000001,123456789012345678901234567890]"
    )
    assert shown[3] == 1.5
    assert isinstance(shown[3], float)


# -- the spool -----------------------------------------------------------------------------------------------------


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool.sqlite", partitions=2)
    yield made
    made.close()


def placed(n: int, source: Source = Source.EDGE, ts: float | None = None) -> Placed:
    return Placed(
        source=source, value=b"value-%d" % n, request_id=f"r{n % 7}", ts=TS + n if ts is None else ts
    )


def handed_out(spool: Spool) -> list[tuple[int, Source, SpooledRecord]]:
    return [
        (partition, source, record)
        for partition in range(spool.partitions)
        for step in spool.steps(partition)
        for source, records in step.batches
        for record in records
    ]


@pytest.mark.parametrize("seed", range(4))
def test_records_come_out_by_time_with_dense_offsets_whatever_their_order(tmp_path: Path, seed: int) -> None:
    given = [placed(n, Source(n % 5), ts=TS + n // 3) for n in range(3000)]
    random.Random(seed).shuffle(given)
    outs = []
    for name, order in (("a", given), ("b", sorted(given, key=lambda each: each.ts))):
        spool = Spool(tmp_path / name, partitions=2)
        for line, each in enumerate(order):
            spool.add(each, 0, line + 1)
        spool.seal()
        outs.append(handed_out(spool))
        offsets: dict[tuple[int, Source], list[int]] = {}
        for partition, source, record in outs[-1]:
            offsets.setdefault((partition, source), []).append(record.offset)
            place = spool.line_of(source, partition, record.offset)
            assert place is not None
            assert order[place[1] - 1].value == record.value
        assert all(found == list(range(len(found))) for found in offsets.values())
        spool.close()
    assert outs[0] == outs[1]


def test_copies_of_a_record_do_not_move_the_steps(tmp_path: Path) -> None:
    cuts = []
    for copies in (1, 3):
        spool = Spool(tmp_path / str(copies))
        for n in range(5000):
            for _ in range(copies if n % 2 else 1):
                spool.add(placed(n), 0, 1)
        spool.seal()
        cuts.append([step.batches[0][1][-1].value for step in spool.steps(0)])
        spool.close()
    assert cuts[0] == cuts[1]
    assert len(cuts[0]) == 3


async def test_the_spool_reads_and_fetches_what_it_handed_out(spool: Spool) -> None:
    for n in range(20):
        spool.add(placed(n), 0, n)
    spool.seal()
    out = handed_out(spool)
    ends = await spool.ends([0, 1])
    assert sum(ends[p][Source.EDGE] for p in (0, 1)) == 20
    assert await spool.beginnings(0) == [0, 0, 0, 0, 0]
    for partition, source, record in out:
        assert await spool.fetch(partition, [(source, record.offset), (source, 999)]) == [record, None]
    read = [record async for records in spool.read(Source.EDGE, 1, 0, ends[1][0]) for record in records]
    assert read == [record for partition, _, record in out if partition == 1]


async def test_the_journal_of_the_spool_is_a_log(spool: Spool) -> None:
    journal = spool.journal()
    entries = [Entry(partition=1, n=n, worker="w", at=1.0) for n in range(3)]
    assert [await journal.append(entry) for entry in entries] == [0, 1, 2]
    assert await journal.tail(1) == (0, 3)
    assert await journal.tail(0) == (0, 0)
    assert await journal.read(1, 1) == [(1, entries[1]), (2, entries[2])]
    assert await journal.read(1, 0, 1) == [(0, entries[0])]


@pytest.mark.parametrize("seed", range(8))
async def test_the_claims_of_the_spool_and_those_in_memory_agree(seed: int, spool: Spool) -> None:
    pick = random.Random(seed)
    file, memory = (
        spool.claims(claims_per_key_max=4),
        MemoryClaims(claims_per_key_max=4, monotonic=lambda: 0.0),
    )
    keys = [("idempotency", "main:k"), ("entity", "t/1"), ("entity", "t/\udc80")]
    for _ in range(30):
        batch = [
            Claim(
                scope=scope, key=key, rev=pick.randint(0, 2),
                claimant=Claimant(
                    side=pick.choice(["main", "shadow", "canary"]), request_id=f"r{pick.randint(0, 6)}",
                    ts=TS + pick.randint(0, 9), data={"n": pick.randint(0, 3)}, digest=pick.randint(0, 3),
                ),
            )
            for scope, key in pick.choices(keys, k=3)
        ]  # fmt: skip
        mine, theirs = await file.apply(batch), await memory.apply(batch)
        assert mine.dropped == theirs.dropped
        assert {(s.scope, s.key): sorted(map(repr, s.claimants)) for s in mine.contested} == {
            (s.scope, s.key): sorted(map(repr, s.claimants)) for s in theirs.contested
        }
    versions = await file.versions([*keys, ("entity", "none")])
    assert versions[-1] == 0
    assert {(s.scope, s.key): s.version for s in mine.contested}.items() <= dict(
        zip(keys, versions, strict=False)
    ).items()
