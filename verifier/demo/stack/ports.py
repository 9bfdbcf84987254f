"""Loopback ports: which are free, and who listens."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from verifier.demo.stack.errors import StackError

LOOPBACK = "127.0.0.1"
_PORT_LOWEST = 15_000


def port_open(port: int, host: str = LOOPBACK, *, timeout_s: float = 0.5) -> bool:
    """Whether something accepts TCP connections at `host:port`."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


class _Ports:
    """Hands out loopback ports, none of them twice.

    They lie below the kernel's ephemeral range. A port inside that range can be taken by any outgoing
    connection while its server restarts, and a client that keeps trying a dead loopback port of that range
    may even connect to itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: set[int] = set()
        self._pid = 0
        self._next = 0

    @staticmethod
    def _ephemeral_start() -> int:
        try:
            return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return 32_768

    def take(self) -> int:
        with self._lock:
            span = self._ephemeral_start() - _PORT_LOWEST
            if span < 1_000:  # someone widened the ephemeral range: let the kernel choose
                return self._take_ephemeral()
            if self._pid != os.getpid():  # processes start apart from each other, so that they rarely race
                self._pid = os.getpid()
                self._next = self._pid * 97 % span
            for _ in range(span):
                port = _PORT_LOWEST + self._next
                self._next = (self._next + 1) % span
                if port not in self._given and self._free(port):
                    self._given.add(port)
                    return port
        raise StackError(f"no free port from {_PORT_LOWEST} to {_PORT_LOWEST + span}: end what occupies them")

    def _take_ephemeral(self) -> int:
        for _ in range(1_000):
            with socket.socket() as probe:
                probe.bind((LOOPBACK, 0))
                port = int(probe.getsockname()[1])
            if port not in self._given:
                self._given.add(port)
                return port
        raise StackError("the kernel offers no port that was not used before: raise ip_local_port_range")

    @staticmethod
    def _free(port: int) -> bool:
        with socket.socket() as probe:
            try:
                probe.bind(("", port))  # every address: a server on 0.0.0.0 would collide as well
            except OSError:
                return False
        return True


_ports = _Ports()


def free_port() -> int:
    """A loopback TCP port on which nothing listens, never the same twice in one process.

    Raises StackError when none is left.
    """
    return _ports.take()
