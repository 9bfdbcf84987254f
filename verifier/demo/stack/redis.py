"""A real Redis on a loopback port."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from redis import Redis as Client
from redis.exceptions import RedisError

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.ports import LOOPBACK, free_port
from verifier.demo.stack.process import ManagedProcess
from verifier.demo.stack.server import ContainerServer, ExternalServer, LocalServer, Server, docker_answers

CONTAINER_IMAGE = "redis:8"
ANSWER_TIMEOUT_S = 1.0


class Redis(LocalServer):
    """Redis as `VERIFIER_REDIS` gives it, or in a container, or `redis-server` of this machine.

    `appendonly` keeps its data over a restart or a crash (each write is on disk within a second); without it
    a restart begins empty. `start` raises StackError when none can be had.
    """

    def __init__(self, data_dir: Path, *, appendonly: bool = True) -> None:
        super().__init__()
        self.data_dir = data_dir
        self._appendonly = "yes" if appendonly else "no"
        self._url = os.environ.get("VERIFIER_REDIS", "")

    def url(self, db: int = 0) -> str:
        """The URL of database `db` (0 to 15). Raises StackError before the first start."""
        if not self._url:
            raise StackError("Redis has no address yet: call start() first")
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{db}"))

    def _choose(self) -> Server:
        if self._url:
            return ExternalServer("Redis", "VERIFIER_REDIS", self._answers)
        port = free_port()
        server = self._container(port) if docker_answers() else self._process(port)
        self._url = f"redis://{LOOPBACK}:{port}/0"
        return server

    def _container(self, port: int) -> Server:
        return ContainerServer(
            "Redis",
            CONTAINER_IMAGE,
            port=port,
            port_inside=6379,
            env={},
            ready=self._answers,
            command=f"redis-server --save '' --appendonly {self._appendonly}",
        )

    def _process(self, port: int) -> Server:
        program = shutil.which("redis-server")
        if program is None:
            raise StackError(
                "there is no `redis-server`: install redis-server, or set VERIFIER_REDIS to a URL"
            )
        self.data_dir.mkdir(parents=True, exist_ok=True)
        return ManagedProcess(
            "Redis",
            [program, "--port", str(port), "--bind", LOOPBACK, "--daemonize", "no", "--save", ""]
            + ["--appendonly", self._appendonly, "--dir", str(self.data_dir)],
            cwd=self.data_dir,
            log_path=self.data_dir / "redis.log",
            ready=self._answers,
            death_signal=signal.SIGKILL,
        )

    def _answers(self) -> bool:
        with Client.from_url(
            self.url(), socket_timeout=ANSWER_TIMEOUT_S, socket_connect_timeout=ANSWER_TIMEOUT_S, retry=None
        ) as client:
            try:
                return bool(client.ping())
            except RedisError:  # refused, or still loading its data
                return False
