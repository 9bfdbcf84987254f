"""Latency as one user sees it, at a pace.

Each scenario is asked in turn, on a connection of its own, so that all of them meet the same machine at the same time.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

from bench.edge.scene import Contestant

WARM_UP = 200


class User:
    """A kept connection, and the seconds of each answer."""

    def __init__(self, contestant: Contestant) -> None:
        self._address = contestant.address.split(":")
        self._connect()
        self._request = b"GET /api/v1/items?page=1 HTTP/1.1\r\nHost: api\r\nX-User-ID: u-1\r\n\r\n"
        self.seconds: list[float] = []
        self.asked = 0

    def _connect(self) -> None:
        host, port = self._address
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> None:
        """One request, timed from its first byte to the last of its answer."""
        began = time.perf_counter()
        self._socket.sendall(self._request)
        received = self._socket.recv(65_536)
        head = received.index(b"\r\n\r\n") + 4
        at = received.index(b"Content-Length: ") + 16
        whole = head + int(received[at : received.index(b"\r", at)])
        while len(received) < whole:
            received += self._socket.recv(65_536)
        self.asked += 1
        if self.asked > WARM_UP:
            self.seconds.append(time.perf_counter() - began)
        if not received.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a user got {received[:40]!r}")
        if b"\r\nConnection: close" in received[:head]:  # after 1000 requests
            self._socket.close()
            self._connect()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def latencies(contestants: Mapping[str, Contestant], rounds: int, rounds_per_s: float) -> dict[str, User]:
    """Ask each contestant `rounds` times, one after another, `rounds_per_s` times a second."""
    users = {name: User(contestant) for name, contestant in contestants.items()}
    order = list(users)
    due = time.perf_counter()
    for number in range(rounds + WARM_UP):
        first = number % len(order)
        for name in order[first:] + order[:first]:
            users[name].ask()
        due += 1 / rounds_per_s
        time.sleep(max(0.0, due - time.perf_counter()))
    for user in users.values():
        user.close()
    return users


def quantile_ms(seconds: list[float], share: float) -> float:
    """A quantile of the seconds, in milliseconds."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000
