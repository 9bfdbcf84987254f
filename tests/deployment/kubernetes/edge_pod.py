"""The edge as its pod runs it, on this machine: run-edge.sh, NGINX, small backends, and a user's connection."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from tests.deployment.kubernetes.rendered import K8S, parameters
from verifier.demo.stack.ports import LOOPBACK, free_port

SCRIPTS = K8S / "base" / "edge"
PATH = f"{os.environ['PATH']}:/usr/sbin"
WITHIN_S = 30.0


async def until(condition: Callable[[], bool], what: str, said: Path | None = None) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        late = time.monotonic() > deadline
        assert not late, f"waited {WITHIN_S:.0f} s for {what}\n{said.read_text() if said else ''}"  # noqa: ASYNC240
        await asyncio.sleep(0.05)


class Backend:
    """Answers every request with its name, after `delay_s`, and counts them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self.delay_s = 0.0
        self.port = free_port()
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                await asyncio.sleep(self.delay_s)
                body = self.name.encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # NGINX has closed an idle connection
        finally:
            writer.close()
            self._open.discard(writer)

    async def end(self) -> None:
        for writer in self._open:
            writer.close()
        while self._open:
            await asyncio.sleep(0)


@asynccontextmanager
async def backends() -> AsyncIterator[dict[str, Backend]]:
    made = {name: Backend(name) for name in ("main", "shadow", "canary")}
    servers = [await asyncio.start_server(b.serve, LOOPBACK, b.port) for b in made.values()]
    yield made
    for server in servers:
        server.close()
    for backend in made.values():
        await backend.end()


class Client:
    """One user's connection, made anew when the edge has closed it, as browsers do for a GET."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._drop()

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and body. Raises ConnectionError when a new connection is refused or breaks."""
        lines = [f"GET {path} HTTP/1.1", "Host: edge"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        request = "\r\n".join([*lines, "", ""]).encode()
        if self._streams is not None:
            try:
                return await self._exchange(*self._streams, request)
            except (asyncio.IncompleteReadError, ConnectionError):
                self._drop()
        self._streams = await asyncio.open_connection(LOOPBACK, self._port)
        return await self._exchange(*self._streams, request)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[int, str]:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"^content-length: (\d+)", head, re.IGNORECASE | re.MULTILINE)
        assert length is not None, head
        body = (await reader.readexactly(int(length[1]))).decode()
        if re.search(r"^connection: close", head, re.IGNORECASE | re.MULTILINE):
            self._drop()
        return int(head.split(" ", 2)[1]), body

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Edge:
    """run-edge.sh as the container runs it, with its folders elsewhere."""

    def __init__(self, folder: Path, servers: Mapping[str, Backend], **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.said = folder / "said"
        self.values: dict[str, str] = {}
        self._version = 0
        self._given = folder / "parameters"
        for name in ("parameters", "run", "log", "ship"):
            (folder / name).mkdir()
        self._here = {
            "EDGE_LISTEN": f"{LOOPBACK}:{self.port}",
            "EDGE_MAIN_ADDR": f"{LOOPBACK}:{servers['main'].port}",
            "EDGE_SHADOW_ADDR": f"{LOOPBACK}:{servers['shadow'].port}",
            "EDGE_CANARY_ADDR": f"{LOOPBACK}:{servers['canary'].port}",
            "EDGE_RUN_DIR": str(folder / "run"),
            "EDGE_ACCESS_LOG": str(folder / "log" / "edge.json"),
            "EDGE_MAIN_RESPONSES_LOG": str(folder / "log" / "main.json"),
            "EDGE_SHADOW_RESPONSES_LOG": str(folder / "log" / "shadow.json"),
            "EDGE_JS_DIR": str(K8S / "shadow-proxy"),
            "EDGE_USER": "root",
            "EDGE_WORKERS": "1",
            "EDGE_FILES_MAX": "1024",
            "EDGE_WORKER_CONNECTIONS": "1024",
            # Not what is tested here: a test is done in the second for which 50 are allowed.
            "EDGE_SHADOW_RATE": "5000",
            "EDGE_SHADOW_BURST": "5000",
        }
        self.set(parameters("shadow") | self._here)
        env = {
            "PATH": PATH,
            "EDGE_PARAMETERS_DIR": str(self._given),
            "EDGE_FILES_DIR": str(K8S / "shadow-proxy"),
            "EDGE_SHIP_DIR": str(folder / "ship"),
            "EDGE_POLL_S": "0.2",
            "EDGE_DRAIN_S": "20",
            **environment,
        }
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                ["/bin/sh", str(SCRIPTS / "run-edge.sh")], env=env, stdout=subprocess.DEVNULL, stderr=said
            )

    def set(self, values: Mapping[str, str]) -> None:
        """Change parameters as the kubelet does it: a folder anew, and one link that leads to it."""
        self.values |= values
        self._version += 1
        folder = self._given / f"..{self._version}"
        folder.mkdir()
        for name, value in self.values.items():
            (folder / name).write_text(value, encoding="utf-8")
            if not (self._given / name).is_symlink():
                (self._given / name).symlink_to(Path("..data") / name)
        (self._given / "..data_tmp").symlink_to(folder.name)
        (self._given / "..data_tmp").replace(self._given / "..data")

    async def takes_up(self, values: Mapping[str, str]) -> None:
        """Change parameters, and wait until nobody works by those before."""
        workers = set(self._workers())
        before = self.count("reloaded")
        self.set(values)
        await until(lambda: self.count("reloaded") > before, "a reload", self.said)
        await until(lambda: not workers & set(self._workers()), "the old workers to end", self.said)

    async def becomes(self, phase: str) -> None:
        await self.takes_up(parameters(phase) | self._here)

    def count(self, text: str) -> int:
        return self.said.read_text(encoding="utf-8").count(text)

    def _workers(self) -> list[int]:
        [master] = self._children(self.process.pid, "nginx: master")
        return self._children(master, "nginx: worker")

    @staticmethod
    def _children(pid: int, title: str) -> list[int]:
        found = []
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            try:
                if title in Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "):
                    found.append(int(child))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found


@asynccontextmanager
async def edge_over(servers: Mapping[str, Backend], **environment: str) -> AsyncIterator[Edge]:
    folder = Path(tempfile.mkdtemp(prefix="edge-"))  # pytest's own folders are too long for a socket's path
    edge = Edge(folder, servers, **environment)
    try:
        deadline = time.monotonic() + WITHIN_S
        while not await _healthy(edge):
            assert edge.process.poll() is None, edge.said.read_text()
            assert time.monotonic() < deadline, edge.said.read_text()
            await asyncio.sleep(0.05)
        yield edge
    finally:
        edge.process.terminate()
        edge.process.wait(timeout=30)
        shutil.rmtree(folder)


async def _healthy(edge: Edge) -> bool:
    try:
        async with Client(edge.port) as client:
            return (await client.get("/healthz"))[0] == 200
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
