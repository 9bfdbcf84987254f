"""A real PostgreSQL on a loopback port."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.ports import LOOPBACK, free_port
from verifier.demo.stack.process import ManagedProcess, run_to_end
from verifier.demo.stack.server import ContainerServer, ExternalServer, LocalServer, Server, docker_answers

T = TypeVar("T")

CONTAINER_IMAGE = "postgres:17"
OLDEST_MAJOR = 15
INITDB_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 2.0
CONNECTIONS_MAX = 200
_ROLE = "verifier"
_FIRST_DATABASE = "postgres"
_ACCOUNTS = ("postgres", "nobody")


class Postgres(LocalServer):
    """PostgreSQL as `VERIFIER_POSTGRES` gives it, or in a container, or this machine's own programs.

    `durable` False leaves out what protects against a crash of the *machine* (fsync, full page writes); a
    killed server still recovers. Started by root, the server runs as `postgres` or `nobody`, since it refuses
    root; its cluster then lies in a folder of its own when that account cannot reach `data_dir`. `start`
    raises StackError when none can be had.
    """

    def __init__(self, data_dir: Path, *, durable: bool = False) -> None:
        super().__init__()
        self.data_dir = data_dir
        self._durable = durable
        self._own_dir: Path | None = None
        self._dsn = os.environ.get("VERIFIER_POSTGRES", "")

    def dsn(self, database: str = _FIRST_DATABASE) -> str:
        """The URL of `database`, its password in it: not for logs. Raises StackError before the start."""
        if not self._dsn:
            raise StackError("PostgreSQL has no address yet: call start() first")
        return urlunsplit(urlsplit(self._dsn)._replace(path=f"/{database}"))

    def create_database(self, name: str) -> str:
        """Create the database unless it is there; returns its DSN. Raises StackError."""
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
            raise StackError(f"{name!r} is no plain database name: use a-z, 0-9 and _, at most 63")
        try:
            _run(self._create_database(name))
        except (OSError, asyncpg.PostgresError) as error:
            raise StackError(f"PostgreSQL did not create the database {name}: {error}") from error
        return self.dsn(name)

    async def _create_database(self, name: str) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=ANSWER_TIMEOUT_S)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        except asyncpg.DuplicateDatabaseError:
            pass
        finally:
            await connection.close()

    def close(self) -> None:
        """Stop it for good, with the cluster's folder where that lies outside `data_dir`."""
        super().close()
        if self._own_dir is not None:
            shutil.rmtree(self._own_dir, ignore_errors=True)
            self._own_dir = None

    def _choose(self) -> Server:
        if self._dsn:
            return ExternalServer("PostgreSQL", "VERIFIER_POSTGRES", self._answers)
        port = free_port()
        if docker_answers():
            password = secrets.token_urlsafe(18)
            server = self._container(port, password)
        else:
            account = _account_for_server()
            home = self._home(account)
            password = _password(home / "password", account)
            server = self._process(port, home, account)
        self._dsn = f"postgresql://{_ROLE}:{password}@{LOOPBACK}:{port}/{_FIRST_DATABASE}"
        return server

    def _settings(self) -> list[str]:
        settings = {"max_connections": str(CONNECTIONS_MAX), "wal_level": "logical"}
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _container(self, port: int, password: str) -> Server:
        return ContainerServer(
            "PostgreSQL",
            CONTAINER_IMAGE,
            port=port,
            port_inside=5432,
            env={"POSTGRES_USER": _ROLE, "POSTGRES_PASSWORD": password, "POSTGRES_DB": _FIRST_DATABASE},
            ready=self._answers,
            command=" ".join(["postgres", *self._settings()]),
        )

    def _process(self, port: int, home: Path, account: str | None) -> Server:
        programs = find_programs()
        cluster = home / "cluster"
        if not (cluster / "PG_VERSION").exists():
            self._initdb(programs, home, account)
        return ManagedProcess(
            "PostgreSQL",
            [f"{programs}/postgres", "-D", str(cluster), "-p", str(port), "-h", LOOPBACK]
            + ["-c", "unix_socket_directories=", *self._settings()],
            cwd=home,
            log_path=self.data_dir / "postgres.log",
            ready=self._answers,
            user=account,
            stop_signal=signal.SIGINT,  # "fast": does not wait for clients to leave
            death_signal=signal.SIGQUIT,  # "immediate": takes its children along
        )

    def _home(self, account: str | None) -> Path:
        """The folder of the cluster: `data_dir`, or a new one where the server's account cannot get there."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if account is None:
            return self.data_dir
        if all(folder.stat().st_mode & 0o001 for folder in self.data_dir.resolve().parents):
            home = self.data_dir
        else:
            home = self._own_dir = Path(tempfile.mkdtemp(prefix="shadow-verifier-postgres-"))
        shutil.chown(home, account)
        return home

    def _initdb(self, programs: Path, home: Path, account: str | None) -> None:
        run_to_end(
            ManagedProcess(
                "initdb",
                [f"{programs}/initdb", "-D", str(home / "cluster"), "-U", _ROLE, "--auth=scram-sha-256"]
                + [f"--pwfile={home}/password", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
                cwd=home,
                log_path=self.data_dir / "initdb.log",
                user=account,
            ),
            INITDB_TIMEOUT_S,
        )

    def _answers(self) -> bool:
        return _run(self._select_one())

    async def _select_one(self) -> bool:
        try:
            connection = await asyncpg.connect(self._dsn, timeout=ANSWER_TIMEOUT_S)
        except (OSError, asyncpg.PostgresError):  # refused, or still starting; a timeout is an OSError
            return False
        try:
            return bool(await connection.fetchval("SELECT 1") == 1)
        finally:
            await connection.close()


def find_programs() -> Path:
    """The folder of `postgres` and `initdb`, the newest of Debian's or the one on PATH. Raises StackError."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    majors = {int(path.parts[-3]): path.parent for path in debian if path.parts[-3].isdecimal()}
    if majors and max(majors) >= OLDEST_MAJOR:
        return majors[max(majors)]
    on_path = shutil.which("postgres")
    if on_path is not None and (folder := Path(on_path).resolve().parent / "initdb").exists():
        return folder.parent
    raise StackError(
        f"there is no PostgreSQL {OLDEST_MAJOR} or newer: install postgresql, or set VERIFIER_POSTGRES"
    )


def _password(path: Path, account: str | None) -> str:
    """The password kept beside the cluster, for its owner's eyes only; made at the first use."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(18))
    if account is not None:
        shutil.chown(path, account)
    return path.read_text()


def _account_for_server() -> str | None:
    """Whom the server runs as when we are root; None when we are not."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in _ACCOUNTS:
        if name in known:
            return name
    raise StackError("PostgreSQL refuses to run as root and there is no account `postgres` or `nobody`")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop of its own, in a thread of its own: the caller may be inside a running loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
