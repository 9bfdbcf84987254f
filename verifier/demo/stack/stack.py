"""Kafka, Redis and PostgreSQL together: started at once, stopped together, their data removed at the end."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.redis import Redis
from verifier.demo.stack.server import LocalServer


class LocalStack:
    """A context manager around the three servers.

    Without `data_dir` the data lies in a temporary folder that is removed at the end unless `keep`; a folder
    that the caller names is never removed. `on_progress` gets one line a step, from any thread, one by one.
    Entering raises StackError, with every server's own reason, and leaves nothing running.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        kafka: bool = True,
        redis: bool = True,
        postgres: bool = True,
        keep: bool = False,
        heap_mb: tuple[int, int] = (256, 512),
        kafka_settings: Mapping[str, str] | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self._given_dir = data_dir
        self._keep = keep
        self._wanted = {"Kafka": kafka, "Redis": redis, "PostgreSQL": postgres}
        self._heap_mb = heap_mb
        self._kafka_settings = kafka_settings
        self._on_progress = on_progress
        self._progress_lock = threading.Lock()
        self._servers: dict[str, LocalServer] = {}
        self._data_dir: Path | None = None
        self.start_s: dict[str, float] = {}

    @property
    def data_dir(self) -> Path:
        """Where the data lies. Raises StackError outside the context."""
        if self._data_dir is None:
            raise StackError("the local stack is not started: use it as a context manager")
        return self._data_dir

    @property
    def kafka(self) -> Kafka:
        """Kafka. Raises StackError when it was not asked for or the stack is not started."""
        server = self._server("Kafka")
        assert isinstance(server, Kafka)
        return server

    @property
    def redis(self) -> Redis:
        """Redis. Raises StackError as `kafka` does."""
        server = self._server("Redis")
        assert isinstance(server, Redis)
        return server

    @property
    def postgres(self) -> Postgres:
        """PostgreSQL. Raises StackError as `kafka` does."""
        server = self._server("PostgreSQL")
        assert isinstance(server, Postgres)
        return server

    def _server(self, name: str) -> LocalServer:
        if name not in self._servers:
            raise StackError(f"the local stack has no {name}: it is not started, or was not asked for")
        return self._servers[name]

    def __enter__(self) -> Self:
        self._data_dir = self._given_dir or Path(tempfile.mkdtemp(prefix="shadow-verifier-"))
        if self._given_dir is None:
            self._data_dir.chmod(0o711)  # PostgreSQL's account has to pass through
        made = {
            "Kafka": Kafka(self._data_dir / "kafka", heap_mb=self._heap_mb, settings=self._kafka_settings),
            "Redis": Redis(self._data_dir / "redis"),
            "PostgreSQL": Postgres(self._data_dir / "postgres"),
        }
        self._servers = {name: server for name, server in made.items() if self._wanted[name]}
        try:
            self._start_all()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _start_all(self) -> None:
        self._say(f"starting {', '.join(self._servers)}")
        with ThreadPoolExecutor(len(self._servers) or 1, thread_name_prefix="stack") as threads:
            starts = {name: threads.submit(self._start, name) for name in self._servers}
            errors = {name: start.exception() for name, start in starts.items()}
        reasons = [f"{name}: {error}" for name, error in errors.items() if error is not None]
        if reasons:
            raise StackError("the local stack does not start.\n" + "\n".join(reasons))

    def _start(self, name: str) -> None:
        began = time.monotonic()
        self._servers[name].start()
        self.start_s[name] = time.monotonic() - began
        self._say(f"{name} is ready after {self.start_s[name]:.1f} s")

    def _say(self, line: str) -> None:
        if self._on_progress is not None:
            with self._progress_lock:
                self._on_progress(line)

    def _close(self) -> None:
        servers, self._servers = self._servers, {}
        with ThreadPoolExecutor(len(servers) or 1, thread_name_prefix="stack") as threads:
            stops = [threads.submit(server.close) for server in servers.values()]
        if self._given_dir is None and not self._keep and self._data_dir is not None:
            shutil.rmtree(self._data_dir, ignore_errors=True)
        if not self._keep:
            self._data_dir = None
        for stop in stops:
            stop.result()  # raises what a stop raised, once all were tried
