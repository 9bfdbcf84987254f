"""Versioned SQL migrations: `sql/NNNN_name.sql`, each applied once, in order, in a transaction of its own."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import asyncpg
from msgspec import Struct

from verifier.adapters.postgres_errors import postgres_errors
from verifier.core.errors import VerifierError

_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LOCK_KEY = 7_315_946_021_774_310_112  # any number, as long as every version of this program uses the same
_CONNECT_TIMEOUT_S = 10.0
_LOCK_WAIT_S = 120


class MigrationError(VerifierError):
    """The migrations on disk and those in the database do not belong together, or one cannot be applied."""


class Migration(Struct, frozen=True):
    """One migration file; `checksum` is the SHA-256 of its text."""

    version: int
    name: str
    sql: str
    checksum: str

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.version:04d}_{self.name}.sql"


def shipped_migrations() -> list[Migration]:
    """The migrations that came with this program, in order: from the wheel, or from a source tree's `sql/`.

    Raises MigrationError when there are none, or their numbers have gaps.
    """
    packaged = resources.files("verifier") / "sql"
    folder: Traversable = packaged if packaged.is_dir() else Path(__file__).parents[2] / "sql"
    return migrations_in(folder)


def migrations_in(folder: Traversable) -> list[Migration]:
    """The migrations of a folder, in order. Raises MigrationError as `shipped_migrations` does."""
    found: list[Migration] = []
    for file in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(file.name)
        if match is None:
            continue
        sql = file.read_text(encoding="utf-8")  # normalises newlines: a checkout must not change checksums
        checksum = hashlib.sha256(sql.encode("utf-8")).hexdigest()
        found.append(Migration(int(match[1]), match[2], sql, checksum))
    found.sort(key=lambda migration: migration.version)
    versions = [migration.version for migration in found]
    if not versions or versions != list(range(1, len(versions) + 1)):
        raise MigrationError(
            f"{folder} has migrations {versions}: they must be 0001, 0002, ... without a gap"
        )
    return found


async def migrate(dsn: str, migrations: list[Migration] | None = None) -> list[int]:
    """Bring the database up to date and return the versions applied now (none when it was).

    Safe to repeat and from several processes at once: an advisory lock lets one work while the others wait.
    Raises MigrationError when an applied migration has changed, or one fails (it leaves nothing behind), and
    DependencyDown when the server does not answer.
    """
    wanted = shipped_migrations() if migrations is None else migrations
    with postgres_errors():
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_TIMEOUT_S)
        try:
            await connection.execute(f"SET lock_timeout = '{_LOCK_WAIT_S}s'")
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
            return await _apply_missing(connection, wanted)
        except asyncpg.LockNotAvailableError as error:
            raise MigrationError(
                f"another migration has held its lock for {_LOCK_WAIT_S} s: end it, or wait and try again"
            ) from error
        finally:
            await connection.close()  # gives the lock back


async def _apply_missing(
    connection: asyncpg.Connection[asyncpg.Record], wanted: list[Migration]
) -> list[int]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, name text NOT NULL,"
        " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await connection.fetch("SELECT version, name, checksum FROM schema_migrations")
    applied = {row["version"]: row for row in rows}
    done: list[int] = []
    for migration in wanted:
        known = applied.get(migration.version)
        if known is None:
            await _apply(connection, migration)
            done.append(migration.version)
        elif known["checksum"] != migration.checksum:
            raise MigrationError(
                f"{migration.file} was changed after it had been applied (as {known['name']}): put the old"
                " text back and write a new migration"
            )
    return done


async def _apply(connection: asyncpg.Connection[asyncpg.Record], migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.checksum,
            )
    except (
        asyncpg.SyntaxOrAccessError,
        asyncpg.DataError,
        asyncpg.IntegrityConstraintViolationError,
    ) as error:
        raise MigrationError(f"{migration.file} cannot be applied: {error}") from error


async def pending_migrations(dsn: str) -> list[int]:
    """The shipped versions the database lacks, changing nothing. Raises DependencyDown."""
    wanted = shipped_migrations()
    with postgres_errors():
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_TIMEOUT_S)
        try:
            rows = await connection.fetch("SELECT version FROM schema_migrations")
        except asyncpg.UndefinedTableError:
            rows = []
        finally:
            await connection.close()
    applied = {row["version"] for row in rows}
    return [migration.version for migration in wanted if migration.version not in applied]
