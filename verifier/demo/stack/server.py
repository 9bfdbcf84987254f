"""Where a server comes from: given from outside, a container, or a process of ours.

In this order: an address in the environment (then nothing is started), testcontainers where a Docker engine
answers on this machine, and the machine's own programs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Protocol, Self

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.ports import LOOPBACK
from verifier.demo.stack.process import wait_until

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

DOCKER_PING_TIMEOUT_S = 1.0
EXTERNAL_READY_TIMEOUT_S = 15.0
CONTAINER_READY_TIMEOUT_S = 120.0


class Server(Protocol):
    """What can be done to a server; `ManagedProcess` is one."""

    name: str

    @property
    def running(self) -> bool: ...
    def start(self) -> object: ...
    def wait_ready(self) -> object: ...
    def stop(self, grace_s: float = ...) -> object: ...
    def kill(self) -> object: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def log_tail(self, lines: int = ...) -> str: ...


class ExternalServer:
    """A server somebody else runs, named by an environment variable: it is used and otherwise left alone."""

    def __init__(self, name: str, variable: str, ready: Callable[[], bool]) -> None:
        self.name = name
        self._variable = variable
        self._ready = ready

    @property
    def running(self) -> bool:
        """Whether it answers now."""
        return self._ready()

    def start(self) -> None:
        """Nothing: it is not ours."""

    def wait_ready(self) -> None:
        """Wait until it answers. Raises StackError when it does not."""
        wait_until(
            self._ready, EXTERNAL_READY_TIMEOUT_S, f"{self.name}, as given by {self._variable}, to answer"
        )

    def stop(self, grace_s: float = 0.0) -> None:
        """Nothing: it is not ours."""

    def kill(self) -> None:
        """Raises StackError, as `pause` and `resume` do."""
        raise self._not_ours("kill")

    def pause(self) -> None:
        """Raises StackError."""
        raise self._not_ours("pause")

    def resume(self) -> None:
        """Raises StackError."""
        raise self._not_ours("resume")

    def log_tail(self, lines: int = 20) -> str:  # noqa: ARG002 - as every server's
        """Always '': its log is elsewhere."""
        return ""

    def _not_ours(self, verb: str) -> StackError:
        return StackError(
            f"{self.name} is given by {self._variable} and is not ours to {verb}: unset the variable to use"
            " one that is started here"
        )


class ContainerServer:
    """A server in a container, on a loopback port that is the same inside and outside."""

    def __init__(
        self,
        name: str,
        image: str,
        *,
        port: int,
        port_inside: int,
        env: Mapping[str, str],
        ready: Callable[[], bool],
        command: str | None = None,
    ) -> None:
        self.name = name
        self._image = image
        self._port = port
        self._port_inside = port_inside
        self._env = dict(env)
        self._command = command
        self._ready = ready
        self._container: DockerContainer | None = None

    @property
    def running(self) -> bool:
        """Whether the engine says the container runs (a paused one does)."""
        if self._container is None:
            return False
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        return wrapped.status in {"running", "paused"}

    def start(self) -> None:
        """Create and start the container, or start it again with its data. Raises StackError."""
        from docker.errors import DockerException  # type: ignore[import-untyped]

        try:
            if self._container is None:
                self._container = self._create()
                self._container.start()
            else:
                self._container.get_wrapped_container().start()
        except DockerException as error:
            raise StackError(
                f"{self.name} cannot be started as a container of {self._image}: {error}. Check that the"
                " image can be pulled."
            ) from error

    def _create(self) -> DockerContainer:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(self._image, env=self._env, command=self._command)
        # an address with the port is the Docker client's own form; testcontainers annotates a bare port only
        container.ports[f"{self._port_inside}/tcp"] = (LOOPBACK, self._port)  # type: ignore[assignment]
        return container

    def wait_ready(self) -> None:
        """Wait until it answers. Raises StackError with its log's end when it does not."""
        try:
            wait_until(self._ready, CONTAINER_READY_TIMEOUT_S, f"{self.name} to answer", interval_s=0.2)
        except StackError as error:
            raise StackError(f"{error}. The end of its log:\n{self.log_tail()}") from error

    def stop(self, grace_s: float = 10.0) -> None:
        """Stop the container and keep it, with its data."""
        if self._container is not None:
            if self._container.get_wrapped_container().status == "paused":
                self.resume()
            self._container.get_wrapped_container().stop(timeout=max(1, round(grace_s)))

    def kill(self) -> None:
        """End it at once; its data stays."""
        if self._container is not None:
            self._container.get_wrapped_container().kill()

    def pause(self) -> None:
        """Freeze it."""
        self._started().get_wrapped_container().pause()

    def resume(self) -> None:
        """Let it go on."""
        self._started().get_wrapped_container().unpause()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its output."""
        if self._container is None:
            return ""
        return str(self._container.get_wrapped_container().logs(tail=lines), errors="replace")

    def remove(self) -> None:
        """Delete the container and its data."""
        if self._container is not None:
            self._container.stop()
            self._container = None

    def _started(self) -> DockerContainer:
        if self._container is None:
            raise StackError(f"{self.name} is not started")
        return self._container


class LocalServer(ABC):
    """What Kafka, Redis and PostgreSQL have in common: one `Server`, chosen at the first start."""

    def __init__(self) -> None:
        self._server: Server | None = None

    @abstractmethod
    def _choose(self) -> Server:
        """Return the server to start."""

    @property
    def server(self) -> Server:
        """The server itself. Raises StackError when it was never started."""
        if self._server is None:
            raise StackError(f"{type(self).__name__} is not started: call start() first")
        return self._server

    @property
    def external(self) -> bool:
        """Whether somebody else runs it, so that it can be neither killed nor paused here."""
        return isinstance(self._server, ExternalServer)

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._server is not None and self._server.running

    def start(self) -> Self:
        """Start it and wait until it answers. Raises StackError."""
        if self._server is None:
            self._server = self._choose()
        self._server.start()
        self._server.wait_ready()
        return self

    def stop(self, grace_s: float = 15.0) -> None:
        """Stop it in good order and keep its data and port for another `start`."""
        if self._server is not None:
            self._server.stop(grace_s)

    def kill(self) -> None:
        """End it at once, as a crash would; `start` brings it back with its data. Raises StackError."""
        self.server.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers. Raises StackError."""
        self.server.pause()

    def resume(self) -> None:
        """Let it go on. Raises StackError."""
        self.server.resume()

    def restart(self, grace_s: float = 15.0) -> None:
        """Stop and start it; port and data stay. Raises StackError."""
        if isinstance(self.server, ExternalServer):
            raise StackError(f"{self.server.name} is not ours to restart")
        self.stop(grace_s)
        self.start()

    def close(self) -> None:
        """Stop it for good, with whatever it holds outside its data folder."""
        self.stop()
        if isinstance(self._server, ContainerServer):
            self._server.remove()
        self._server = None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        return self._server.log_tail(lines) if self._server is not None else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def docker_answers() -> bool:
    """Whether containers can be had: testcontainers is installed and an engine answers on a local socket.

    An engine on another machine does not count: what it publishes is not on our loopback.
    """
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not address.startswith("unix://") or importlib.util.find_spec("testcontainers") is None:
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(DOCKER_PING_TIMEOUT_S)
        engine.connect(address.removeprefix("unix://"))
        engine.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 " in engine.recv(64)
    return False
