"""Drives a real NGINX: backends that remember what they were asked, a raw client, and the log's lines."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft202012Validator

from verifier.demo.stack.nginx import EdgeParams, Nginx
from verifier.demo.stack.ports import free_port
from verifier.demo.stack.process import wait_until

Line = dict[str, Any]
SHIPPED_LINE_BYTES_MAX = 256 * 1024  # rsyslog's maxMessageSize

_SCHEMAS = Path(__file__).parents[2] / "schemas"
_SCHEMA = Draft202012Validator(json.loads((_SCHEMAS / "edge.schema.json").read_text()))
_RESPONSE = Draft202012Validator(json.loads((_SCHEMAS / "response.schema.json").read_text()))


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Script:
    """An answer to the byte: its pieces, each `pause_s` after the one before, and what becomes of the connection."""

    pieces: tuple[bytes, ...]
    then: Literal["keep", "close", "reset", "hang"] = "keep"
    pause_s: float = 0.0


def scripted(head: str, *pieces: bytes, status: str = "200 OK", length: bool = True, **more: Any) -> Script:
    """A script from header lines (without the last line end) and a body, with its Content-Length if wanted."""
    lines = f"HTTP/1.1 {status}\n{head}\n" if head else f"HTTP/1.1 {status}\n"
    lines += f"Content-Length: {sum(map(len, pieces))}\n" if length else ""
    start = lines.replace("\n", "\r\n").encode("latin-1") + b"\r\n"
    return Script((start + b"".join(pieces[:1]), *pieces[1:]), **more)


def chunked(head: str, *pieces: bytes, end: bytes = b"0\r\n\r\n", **more: Any) -> Script:
    """A script in chunks, one a piece; `end` empty breaks it off."""
    framed = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    framed[-1] += end
    return scripted(f"{head}\nTransfer-Encoding: chunked", *framed, length=False, **more)


@dataclass
class Backend:
    """A small HTTP/1.1 server on a thread of its own; what it does can be set while it runs.

    `scripts` gives answers by path (and "*" for any other); else it answers with its name.
    """

    name: str
    delay_s: float = 0.0
    scripts: dict[str, Script] = field(default_factory=dict)
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
        script = self.scripts.get(target.partition("?")[0], self.scripts.get("*"))
        if script is not None:
            await self._play(script, method, writer)
            return
        chunks = self.chunks or (self.name.encode(),)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Request-ID: the-backends-own\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % sum(map(len, chunks)))
        for chunk in chunks if method != "HEAD" else ():
            if self.chunks:
                await asyncio.sleep(0.05)
            writer.write(chunk)
            await writer.drain()
        self.finished += 1

    async def _play(self, script: Script, method: str, writer: asyncio.StreamWriter) -> None:
        for number, piece in enumerate(script.pieces):
            if number:
                await asyncio.sleep(script.pause_s)
            writer.write(piece if method != "HEAD" else piece.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            await writer.drain()
            if method == "HEAD":
                break
        if script.then == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if script.then == "hang":
            await asyncio.Event().wait()
        self.finished += 1
        if script.then != "keep":
            raise ConnectionAbortedError


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
    wait_until(lambda: nginx.log_path.read_bytes().count(b"\n") >= count, timeout_s, f"{count} lines")
    found = lines(nginx)
    assert len(found) == count
    return found


def responses(nginx: Nginx) -> dict[tuple[str, str], Line]:
    """All response records so far by (request id, side): each a line as the contract has it, and none twice."""
    found: dict[tuple[str, str], Line] = {}
    for path, sides in (
        (nginx.main_responses_path, {"main"}),
        (nginx.shadow_responses_path, {"shadow", "canary"}),
    ):
        raw = path.read_bytes() if path.exists() else b""
        for line in raw.splitlines(keepends=True):
            assert line.endswith(b"\n") and len(line) <= SHIPPED_LINE_BYTES_MAX
            record = json.loads(line.decode())
            _RESPONSE.validate(record)
            key = record["request_id"], record["side"]
            assert line.startswith(f'{{"v":1,"request_id":"{key[0]}",'.encode()), "the shipper's key"
            assert record["side"] in sides and key not in found
            found[key] = record
    return found


def all_responses(nginx: Nginx, count: int, *, timeout_s: float = 5.0) -> dict[tuple[str, str], Line]:
    """All response records once there are `count`."""

    def lines_written() -> int:
        paths = nginx.main_responses_path, nginx.shadow_responses_path
        return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())

    wait_until(lambda: lines_written() >= count, timeout_s, f"{count} response records")
    found = responses(nginx)
    assert len(found) == count
    return found


def pair(nginx: Nginx, request_id: str, *, timeout_s: float = 5.0) -> tuple[Line, Line]:
    """Main's and the shadow's response to a request, once both are there."""

    def both() -> tuple[Line, ...]:
        found = responses(nginx)
        keys = (request_id, "main"), (request_id, "shadow")
        return tuple(found[key] for key in keys if key in found)

    wait_until(lambda: len(both()) == 2, timeout_s, f"both responses to {request_id}")
    main, shadow = both()
    return main, shadow


def body_of(record: Line) -> bytes:
    """The bytes that a record says the body had; of embedded JSON a rendering."""
    encoding, body = record["body_encoding"], record["body"]
    if encoding == "base64":
        return base64.b64decode(body, validate=True)
    return (body if encoding == "text" else json.dumps(body)).encode()
