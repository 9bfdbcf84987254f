"""Migrations against a real server: repeatable, safe from several at once, and loud when a file was changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace

from verifier.adapters.migrations import (
    MigrationError,
    migrate,
    migrations_in,
    pending_migrations,
    shipped_migrations,
)
from verifier.core.errors import DependencyDown

pytestmark = pytest.mark.asyncio


async def test_migrating_twice_does_it_once(database: str) -> None:
    versions = [migration.version for migration in shipped_migrations()]
    assert await pending_migrations(database) == versions
    assert await migrate(database) == versions
    assert await migrate(database) == []
    assert await pending_migrations(database) == []


async def test_pods_that_start_at_once_migrate_once(database: str) -> None:
    done = await asyncio.gather(*(migrate(database) for _ in range(4)))
    assert sorted(version for each in done for version in each) == [m.version for m in shipped_migrations()]


async def test_a_changed_migration_is_an_error_that_names_it(database: str) -> None:
    await migrate(database)
    first, *rest = shipped_migrations()
    with pytest.raises(MigrationError, match=first.file + " was changed"):
        await migrate(database, [replace(first, checksum="0" * 64), *rest])


async def test_a_failing_migration_leaves_nothing_behind(database: str, tmp_path: Path) -> None:
    (tmp_path / "0001_good.sql").write_text("CREATE TABLE good (a int);")
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE half (a int); CREATE TABLE broken (a nonsense);")
    with pytest.raises(MigrationError, match="0002_bad.sql cannot be applied"):
        await migrate(database, migrations_in(tmp_path))
    connection = await asyncpg.connect(database)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    assert {row["tablename"] for row in tables} == {"schema_migrations", "good"}


async def test_an_older_program_leaves_a_newer_database_alone(database: str) -> None:
    await migrate(database)
    assert await migrate(database, shipped_migrations()[:1]) == []


async def test_gaps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="without a gap"):
        migrations_in(tmp_path)
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    (tmp_path / "0003_b.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match="without a gap"):
        migrations_in(tmp_path)


async def test_checksums_do_not_depend_on_line_ends(tmp_path: Path) -> None:
    for name, text in (("unix", b"SELECT\n1"), ("dos", b"SELECT\r\n1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0001_a.sql").write_bytes(text)
    assert migrations_in(tmp_path / "unix") == migrations_in(tmp_path / "dos")


async def test_an_absent_server_is_named() -> None:
    with pytest.raises(DependencyDown, match="postgres"):
        await migrate("postgresql://u:p@127.0.0.1:1/none")
