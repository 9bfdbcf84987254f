"""Serves an ASGI application inside a running event loop, beside everything else the worker does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from verifier.core.errors import VerifierError

CONNECTIONS_MAX = 256
KEEP_ALIVE_S = 75
STOP_GRACE_S = 5
_BACKLOG = 128


class CannotListen(VerifierError):
    """The address cannot be listened on: another process has the port, or the host is not this machine's."""


class _Embedded(uvicorn.Server):
    """A server that leaves signals to the process it lives in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class WebServer:
    """A running server. `port` is the real one, also when 0 was asked for."""

    def __init__(
        self, server: uvicorn.Server, listener: socket.socket, task: asyncio.Task[None], stop_grace_s: float
    ) -> None:
        self._server = server
        self._listener = listener
        self._task = task
        self._stop_grace_s = stop_grace_s
        self.port: int = listener.getsockname()[1]

    @property
    def running(self) -> bool:
        return not self._task.done()

    async def wait(self) -> None:
        """Return when the server has ended; raises what ended it."""
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Take no more connections; give running requests `stop_grace_s`, then cut them. Repeatable."""
        self._server.should_exit = True
        try:
            await asyncio.wait({self._task}, timeout=self._stop_grace_s + 1)
            if not self._task.done():
                self._server.force_exit = True
                self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        finally:
            self._listener.close()


async def serve(app: ASGIApp, host: str, port: int, *, stop_grace_s: float = STOP_GRACE_S) -> WebServer:
    """Start serving `app` as a task of the running loop and return once it listens.

    Installs no signal handlers and changes no logging. `port` 0 takes a free one; `stop_grace_s` is what
    `stop` leaves running requests. Raises `CannotListen`.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        # uvicorn says int, and hands it to asyncio.wait_for as it is.
        timeout_graceful_shutdown=stop_grace_s,  # type: ignore[arg-type]
        backlog=_BACKLOG,
    )
    server = _Embedded(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"web on {host}:{port}")
    while not server.started:
        if task.done():
            listener.close()
            await task
            raise CannotListen(f"the web server on {host}:{port} ended while starting; the log says why")
        await asyncio.sleep(0.001)
    return WebServer(server, listener, task, stop_grace_s)


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, kind, proto, _, address), *_] = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise CannotListen(
            f"{host!r} is no address to listen on ({error.strerror}): set VERIFIER_HTTP_HOST"
        ) from error
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listening here, not later, is what makes a taken port an error now.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(_why_not(error, host, port)) from error
    listener.setblocking(False)
    return listener


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another process: set VERIFIER_HTTP_PORT to a free one"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} needs privileges: set VERIFIER_HTTP_PORT to one above 1023"
    return f"cannot listen on {host}:{port} ({error.strerror}): set VERIFIER_HTTP_HOST and VERIFIER_HTTP_PORT"
