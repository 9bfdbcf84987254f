"""Users do not feel the mirror: each answer is, byte for byte, what it is without it, however the shadow behaves."""

from __future__ import annotations

import gzip
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edge_driver import (
    Answer,
    Backend,
    Edge,
    Script,
    all_lines,
    all_responses,
    ask,
    chunked,
    edges_over,
    lines,
    lines_of,
    pair,
    running_backends,
    scripted,
)
from http2_client import Http2Client
from verifier.demo.stack.nginx import Nginx
from verifier.demo.stack.ports import free_port
from verifier.demo.stack.process import wait_until

JSON = "Content-Type: application/json"
EVENTS = tuple(f"id: {n}\ndata: {n}\n\n".encode() for n in range(3))
LARGE = random.Random(5).randbytes(3_000_000)

# What main answers, and how it is asked: to each path one kind of answer.
ANSWERS = {
    "/json": scripted(JSON, b'{"n": 1.0}'),
    "/gzip": scripted(
        f"{JSON}\nContent-Encoding: gzip\nVary: Accept-Encoding", gzip.compress(b"[1]", mtime=0)
    ),
    "/chunked": chunked("Content-Type: text/plain", b"a" * 5000, b"b" * 5000),
    "/events": chunked("Content-Type: text/event-stream\nCache-Control: no-cache", *EVENTS, pause_s=0.02),
    "/binary": scripted("Content-Type: image/png", bytes(range(256))),
    "/large": scripted("Content-Type: application/octet-stream", LARGE),
    "/nothing": scripted("X-A: 1", status="204 No Content", length=False),
    "/unchanged": scripted('ETag: "1"', status="304 Not Modified", length=False),
    "/moved": scripted("Location: http://else.example/a%2Fb", b"", status="302 Found"),
    "/failed": scripted(JSON, b'{"error": "x"}', status="500 Internal Server Error"),
    "/cookies": scripted("Set-Cookie: a=1\nSet-Cookie: b=2\nX-Latin: caf\xe9", b"ok"),
    "/broken": Script((b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nnot all of it",), then="close"),
    "/until-closed": scripted("Content-Type: text/plain", b"the end", length=False, then="close"),
    "*": scripted(JSON, b'{"path": "any"}'),
}
TARGETS = [*ANSWERS][:-1] + ["/a%2Fb//c/../d?x=%26&y", "/caf\xc3\xa9?q=\xe2\x98\x83", "/a?b?c"]

SHADOWS: dict[str, tuple[Script, float]] = {
    "healthy": (scripted(JSON, b'{"n": 1}'), 0.0),
    "5 s slow": (scripted(JSON, b'{"n": 1}'), 5.0),
    "hung": (Script((), then="hang"), 0.0),
    "hung in mid-reply": (Script((ANSWERS["/json"].pieces[0][:-3],), then="hang"), 0.0),
    "crashing": (Script((), then="reset"), 0.0),
    "crashing in mid-reply": (Script((ANSWERS["/json"].pieces[0][:-3],), then="reset"), 0.0),
    "3 MB": (scripted("Content-Type: text/plain", LARGE), 0.0),
    "no HTTP": (Script((b"\0\xff" * 3000,), then="close"), 0.0),
}


@pytest.fixture
def backends() -> Iterator[dict[str, Backend]]:
    with running_backends() as three:
        yield three


@pytest.fixture
def edge(backends: dict[str, Backend], tmp_path: Path) -> Iterator[Edge]:
    with edges_over(backends, tmp_path) as start:
        yield start


def both(edge: Edge, **params: object) -> tuple[Nginx, Nginx]:
    """The edge as it is without the mirror, and with all of it."""
    return edge(sample_percent=0, capture=False), edge(shadow_rate_per_s=1000, **params)


def request(
    target: str, request_id: str, *, method: str = "GET", close: bool = True, more: str = ""
) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: api.example\r\nX-Request-ID: {request_id}\r\n{more}"
    return (head + ("Connection: close\r\n" if close else "") + "\r\n").encode("latin-1")


def exchange(nginx: Nginx, sent: bytes, *, after_100: bytes = b"") -> bytes:
    """All that comes back until the connection is closed; `after_100` goes once it is wanted.

    Without the date, and without the sizes of chunks, which go by how the pieces happened to arrive (RFC 9112 7.1.1).
    """
    with socket.create_connection(_address(nginx), timeout=10) as client:
        client.sendall(sent)
        received = b""
        while more := client.recv(65_536):
            received += more
            if after_100 and received.endswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
                client.sendall(after_100)
    return b"".join(_without_chance(received))


def _without_chance(received: bytes) -> Iterator[bytes]:
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        yield re.sub(rb"\r\nDate: [^\r]*", b"", head) + b"\r\n\r\n"
        length = re.search(rb"\r\nContent-Length: ([0-9]+)", head)
        if b"\r\nTransfer-Encoding: chunked" in head:
            while received:
                size, _, received = received.partition(b"\r\n")
                yield received[: int(size, 16)]
                received = received[int(size, 16) + 2 :]
                if size == b"0":
                    yield b"<the last chunk>"
                    break
        elif not head.startswith((b"HTTP/1.1 1", b"HTTP/1.1 204", b"HTTP/1.1 304")):
            body = received[: int(length[1])] if length else received
            yield body
            received = received[len(body) :]


def _address(nginx: Nginx) -> tuple[str, int]:
    host, port = nginx.params.listen.split(":")
    return host, int(port)


def everything(nginx: Nginx, name: str) -> dict[str, bytes]:
    """One of each: what is answered, how it is asked, and the connection used again."""
    found = {target: exchange(nginx, request(target, f"{name}-{n}")) for n, target in enumerate(TARGETS)}
    found["HEAD"] = exchange(nginx, request("/json", f"{name}-head", method="HEAD"))
    body = b"p" * 5000
    posted = request(
        "/", f"{name}-post", method="POST", more="Content-Length: 5000\r\nExpect: 100-continue\r\n"
    )
    found["POST"] = exchange(nginx, posted, after_100=body)
    in_chunks = request("/", f"{name}-chunks", method="PUT", more="Transfer-Encoding: chunked\r\n")
    found["PUT"] = exchange(nginx, in_chunks + b"5\r\nhello\r\n0\r\n\r\n")
    found["old"] = exchange(nginx, f"GET /json HTTP/1.0\r\nX-Request-ID: {name}-old\r\n\r\n".encode())
    several = [request(target, f"{name}-kept-{target[1:]}", close=False) for target in ("/json", "/chunked")]
    found["kept"] = exchange(nginx, b"".join(several) + request("/large", f"{name}-kept-last"))
    return found


@pytest.mark.parametrize("shadow", [*SHADOWS, "refusing"])
def test_each_answer_is_byte_for_byte_that_without_the_mirror(
    edge: Edge, backends: dict[str, Backend], shadow: str
) -> None:
    params: dict[str, object] = {"shadow_timeout_s": 6.0 if "slow" in shadow else 0.5}
    if shadow == "refusing":
        params["shadow"] = f"127.0.0.1:{free_port()}"
    else:
        backends["shadow"].scripts["*"], backends["shadow"].delay_s = SHADOWS[shadow]
    backends["main"].scripts.update(ANSWERS)
    plain, mirrored = both(edge, **params)
    expected = everything(plain, "r")
    assert expected["/large"].endswith(LARGE) and b"not all of it" in expected["/broken"]
    assert b"X-Request-ID: r-post" in expected["POST"] and expected["POST"].count(b"HTTP/1.1 ") == 2
    began = time.monotonic()
    found = everything(mirrored, "r")
    assert time.monotonic() - began < 4.0
    assert found == expected
    count = len(lines(plain))
    wait_until(lambda: len(lines(mirrored)) >= 2 * count, 12.0, "a line about each side of each request")
    assert Counter(line["side"] for line in lines(mirrored)) == {"main": count, "shadow": count}


def test_a_user_who_reads_slowly_gets_every_byte_and_the_record_its_share(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    body = random.Random(6).randbytes(
        12_000_000
    )  # more than sockets and NGINX's buffers hold: some goes to a file
    backends["main"].scripts["*"] = scripted("Content-Type: application/octet-stream", body)
    nginx = edge()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect(_address(nginx))
        client.sendall(request("/", "slow"))
        received = bytearray(client.recv(1000))
        wait_until(lambda: backends["main"].finished, 5.0, "main to have sent it all")
        while more := client.recv(65_536):
            received += more
    assert received.partition(b"\r\n\r\n")[2] == body
    main, _ = pair(nginx, "slow")
    assert (main["body_truncated"], main["body_bytes"]) == (True, len(body))


def test_each_piece_of_a_stream_arrives_when_it_is_sent_and_the_user_may_leave(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    events = chunked("Content-Type: text/event-stream", *[b"data: x\n\n"] * 200, pause_s=0.05)
    backends["main"].scripts["*"] = backends["shadow"].scripts["*"] = events
    nginx = edge(shadow_answer_s_max=0.5)
    with socket.create_connection(_address(nginx), timeout=5) as client:
        client.sendall(request("/", "stream"))
        began, received = time.monotonic(), b""
        while received.count(b"data: x") < 10:
            received += client.recv(65_536)
        took_s = time.monotonic() - began
        assert received.count(b"data: x") < 20 and took_s < 2.0, f"ten events took {took_s:.1f} s"
    main, shadow = pair(nginx, "stream")
    assert (main["capture_gap"], shadow["capture_gap"]) == ("answer_cut", "answer_too_long")
    assert backends["main"].finished == backends["shadow"].finished == 0, "both were let go"


def test_any_target_reaches_both_byte_for_byte(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge()
    for n, target in enumerate(
        ("/a%2Fb//c/../d;p?x=%26&y", "/caf\xc3\xa9?q=\xe2\x98\x83", "/\xff\xfe?%", "/%25", "/?")
    ):
        exchange(nginx, request(target, f"t-{n}"))
        records = pair(nginx, f"t-{n}")
        shown = target.encode("latin-1")
        assert {record["path"] for record in records} == {
            shown.decode() if b"\xff" not in shown else "/[not UTF-8]"
        }
        assert {backends[side].seen[-1].target for side in ("main", "shadow")} == {target}


# --- HTTP/2 -------------------------------------------------------------------------------------------------


def test_http2_answers_are_those_without_the_mirror_and_do_not_wait_for_a_hung_shadow(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    backends["main"].scripts.update(ANSWERS)
    backends["shadow"].scripts["*"] = Script((), then="hang")
    plain = edge(sample_percent=0, capture=False, http2=True)
    mirrored = edge(shadow_timeout_s=1.0, http2=True)
    targets = [target for target in TARGETS if target.isascii() and target != "/broken"]

    def answers(nginx: Nginx) -> list[tuple[int | None, bytes]]:
        with Http2Client(nginx.params.listen) as client:
            asked = [client.ask(target, x_request_id=f"two-{n}") for n, target in enumerate(targets)]
            asked.append(client.ask("/", method="POST", body=b"p" * 9000, x_request_id="two-post"))
            found = [client.answer(stream) for stream in asked]
            again = client.answer(client.ask("/json", x_request_id="two-again"))
            return [(stream.status, bytes(stream.body)) for stream in (*found, again)]

    expected = answers(plain)
    began = time.monotonic()
    found = answers(mirrored)
    assert time.monotonic() - began < 1.0
    assert found == expected
    assert (200, LARGE) in found
    for name in ("two-0", "two-post", "two-again"):
        both_lines = lines_of(mirrored, name, 2)
        assert (both_lines["main"]["status"], both_lines["shadow"]["status"]) == (200, 504)


def test_a_reset_http2_stream_takes_neither_lines_nor_records_along(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge(http2=True)
    for backend in backends.values():
        backend.scripts["*"] = scripted(JSON, b'{"n": 1}')
        backend.delay_s = 0.3
    with Http2Client(nginx.params.listen) as client:
        for n in range(5):
            stream = client.ask(f"/{n}", method="POST", body=b"gone", x_request_id=f"reset-{n}")
            wait_until(lambda n=n: len(backends["main"].seen) > n, 5.0, "main to be asked")  # type: ignore[misc]
            client.leave(stream)
        assert client.answer(client.ask("/stays", x_request_id="stays")).status == 200
    for n in range(5):
        both_lines = lines_of(nginx, f"reset-{n}", 2)
        assert (both_lines["main"]["status"], both_lines["shadow"]["status"]) == (200, 200)
    assert {side for _, side in all_responses(nginx, 12)} == {"main", "shadow"}
    assert {seen.body for seen in backends["shadow"].seen} == {b"gone", b""}


# --- the way back ---------------------------------------------------------------------------------------------


def under_load(nginx: Nginx, change: Callable[[], None]) -> tuple[list[Answer], list[Answer]]:
    """Answers to requests on connections of their own while `change` happens, and to some after it."""
    with ThreadPoolExecutor(4) as pool:
        load = [pool.submit(ask, nginx, f"/{n}", method="POST", body=b"x") for n in range(400)]
        wait_until(load[50].done, 10.0, "the load to be under way")
        change()
        answers = [future.result() for future in load]
    return answers, [ask(nginx) for _ in range(20)]


def test_one_value_takes_the_canary_out_and_drops_no_request(edge: Edge) -> None:
    rates = {"canary_rate_per_s": 10_000, "canary_burst": 1000, "shadow_rate_per_s": 10_000}
    nginx = edge(canary_weight_percent=100, canary_opt_in=True, **rates)
    slow = socket.create_connection(_address(nginx), timeout=10)
    half = b"POST /slow HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Request-ID: slow\r\nContent-Length: 4\r\n\r\nab"
    slow.sendall(half)
    during, after = under_load(nginx, lambda: nginx.reload(replace(nginx.params, canary_serves=False)))
    assert {answer.status for answer in during} == {200}
    assert {answer.body for answer in during} >= {b"canary"}
    assert {answer.body for answer in after} == {b"main"}
    assert ask(nginx, headers={"X-Canary": "always"}).body == b"main"
    assert {answer.headers["Set-Cookie"] for answer in after} == {None}
    with slow:  # accepted before the reload, its body sent after: the old worker serves it
        slow.sendall(b"cd")
        assert slow.recv(65_536).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: len({line["request_id"] for line in lines(nginx)}) == 422, 5.0, "every line")
    served = [line["request_id"] for line in lines(nginx) if line["side"] != "shadow"]
    assert len(served) == len(set(served)) == 422


def test_one_value_ends_the_mirror_and_drops_no_request(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge(shadow_rate_per_s=10_000, shadow_burst=1000)
    during, after = under_load(nginx, lambda: nginx.reload(replace(nginx.params, sample_percent=0)))
    assert {answer.status for answer in (*during, *after)} == {200}
    served = b'"side":"main"'
    wait_until(lambda: nginx.log_path.read_bytes().count(served) == 420, 5.0, "main's lines")
    mirrored = nginx.log_path.read_bytes().count(b'"sampled":true')
    found = all_lines(nginx, 420 + mirrored)
    assert Counter(line["side"] for line in found) == {"main": 420, "shadow": mirrored}
    unmirrored = {line["request_id"] for line in found if line.get("sampled") is False}
    assert {answer.request_id for answer in after} <= unmirrored
    assert len(backends["shadow"].seen) == mirrored
