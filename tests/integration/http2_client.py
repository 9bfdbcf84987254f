"""As much HTTP/2 (RFC 9113, without TLS) as is needed to ask NGINX a few things at once."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
_WINDOW = 2**30
_FIRST_OCTET = {0x88: 200, 0x89: 204, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}  # RFC 7541 appendix A


@dataclass
class Stream:
    """An answer as far as it has come; `status` None for one that HPACK's static table does not have."""

    status: int | None = None
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False


class Http2Client:
    """One connection. `ask` sends and returns the stream's number, `answer` reads on until that stream has ended."""

    def __init__(self, address: str, *, timeout_s: float = 10.0) -> None:
        host, port = address.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._received = bytearray()
        self._next = 1
        self.streams: dict[int, Stream] = {}
        settings = struct.pack(">HI", 4, _WINDOW)  # SETTINGS_INITIAL_WINDOW_SIZE
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(SETTINGS, 0, 0, settings)
        self._send(WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, path: str, *, method: str = "GET", body: bytes = b"", **headers: str) -> int:
        stream, self._next = self._next, self._next + 2
        self.streams[stream] = Stream()
        fields = {":method": method, ":scheme": "http", ":authority": "h", ":path": path}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        self._send(HEADERS, END_HEADERS | (0 if body else END_STREAM), stream, block)
        if body:
            self._send(DATA, END_STREAM, stream, body)
        return stream

    def leave(self, stream: int) -> None:
        """Reset a stream: the client does not want its answer any more."""
        self._send(RESET, 0, stream, struct.pack(">I", 8))  # CANCEL

    def answer(self, stream: int) -> Stream:
        while not self.streams[stream].ended:
            self._read_frame()
        return self.streams[stream]

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
        self._socket.sendall(head + payload)

    def _read_frame(self) -> None:
        head = self._read(9)
        payload = self._read(int.from_bytes(head[:3]))
        kind, flags, number = head[3], head[4], int.from_bytes(head[5:])
        if kind == SETTINGS and not flags & ACK:
            self._send(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._send(PING, ACK, 0, payload)
        elif kind in (RESET, GOAWAY):
            raise ConnectionError(f"frame {kind} for stream {number}: {payload!r}")
        elif kind in (DATA, HEADERS):
            stream = self.streams[number]
            if kind == DATA:
                stream.body += payload
            else:  # the table's size may be changed first (001xxxxx)
                first = next(octet for octet in payload if octet >> 5 != 1)
                stream.status = _FIRST_OCTET.get(first)
            stream.ended = bool(flags & END_STREAM)

    def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            more = self._socket.recv(65_536)
            if not more:
                raise ConnectionError("the server has closed the connection")
            self._received += more
        found = bytes(self._received[:size])
        del self._received[:size]
        return found


def _text(value: str) -> bytes:
    raw = value.encode()
    assert len(raw) < 127, "longer ones need more than an octet for their length"
    return bytes([len(raw)]) + raw
