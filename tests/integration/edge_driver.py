"""Drives a real NGINX: backends that remember what they were asked, a raw client, and the log's lines."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from verifier.demo.stack.nginx import EdgeParams, Nginx
from verifier.demo.stack.ports import free_port
from verifier.demo.stack.process import wait_until

Line = dict[str, Any]

_SCHEMA = Draft202012Validator(
    json.loads((Path(__file__).parents[2] / "schemas" / "edge.schema.json").read_text())
)


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Backend:
    """A small HTTP/1.1 server on a thread of its own; what it does can be set while it runs."""

    name: str
    delay_s: float = 0.0
    chunks: tuple[bytes, ...] = ()  # sent, 50 ms apart, in place of the backend's name
    port: int = field(default_factory=free_port)
    seen: list[Seen] = field(default_factory=list)
    finished: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        started = threading.Event()

        async def serve() -> None:
            self._done = asyncio.Event()
            server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
            started.set()
            await self._done.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),))
        self._thread.start()
        assert started.wait(5)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(5)
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.seen.append(Seen(method, target, headers, body))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        chunks = self.chunks or (self.name.encode(),)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Request-ID: the-backends-own\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % sum(map(len, chunks)))
        for chunk in chunks if method != "HEAD" else ():
            if self.chunks:
                await asyncio.sleep(0.05)
            writer.write(chunk)
            await writer.drain()
        self.finished += 1


@contextmanager
def running_backends() -> Iterator[dict[str, Backend]]:
    """Main, shadow and canary, each answering with its name."""
    three = {name: Backend(name) for name in ("main", "shadow", "canary")}
    for backend in three.values():
        backend.start()
    yield three
    for backend in three.values():
        backend.stop()


Edge = Callable[..., Nginx]


@contextmanager
def edges_over(backends: dict[str, Backend], tmp_path: Path) -> Iterator[Edge]:
    """Starts edges over the backends, with what parameters a test wants, and ends them all."""
    started: list[Nginx] = []

    def start(**params: Any) -> Nginx:
        addresses = {name: backend.address for name, backend in backends.items()}
        started.append(Nginx(tmp_path / f"edge{len(started)}", EdgeParams(**(addresses | params))))
        return started[-1].start()

    yield start
    for nginx in started:
        nginx.stop(grace_s=1.0)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def request_id(self) -> str:
        return self.headers["X-Request-ID"]


def ask(
    where: Nginx | http.client.HTTPConnection,
    target: str = "/",
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: dict[str, str | bytes] | None = None,
) -> Answer:
    own = isinstance(where, Nginx)
    connection = (
        http.client.HTTPConnection(where.params.listen, timeout=10) if isinstance(where, Nginx) else where
    )
    began = time.monotonic()
    connection.putrequest(method, target, skip_accept_encoding=True)
    if body:
        connection.putheader("Content-Length", str(len(body)))
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    connection.endheaders(body or None)
    answer = connection.getresponse()
    read = answer.read()
    seconds = time.monotonic() - began
    if own:
        connection.close()
    return Answer(answer.status, answer.headers, read, seconds)


def lines(nginx: Nginx) -> list[Line]:
    """All lines so far, each of which is an edge record as the contract has it."""
    text = nginx.log_path.read_bytes().decode() if nginx.log_path.exists() else ""
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        _SCHEMA.validate(line)
    return found


def lines_of(nginx: Nginx, request_id: str, count: int, *, timeout_s: float = 5.0) -> dict[str, Line]:
    """The lines about a request, by side, once there are `count`; and no side has two."""

    def found() -> list[Line]:
        about = [line for line in lines(nginx) if line["request_id"] == request_id]
        return about if len(about) >= count else []

    about = wait_until(found, timeout_s, f"{count} lines about {request_id} in {lines(nginx)}")
    by_side = {line["side"]: line for line in about}
    assert len(by_side) == len(about) == count
    return by_side


def all_lines(nginx: Nginx, count: int, *, timeout_s: float = 5.0) -> list[Line]:
    wait_until(lambda: len(lines(nginx)) >= count, timeout_s, f"{count} lines")
    assert len(lines(nginx)) == count
    return lines(nginx)
