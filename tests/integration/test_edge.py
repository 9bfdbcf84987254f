"""The shipped NGINX files on a real NGINX: what users and backends get, what is mirrored and logged."""

from __future__ import annotations

import http.client
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_driver import Backend, Edge, all_lines, ask, edges_over, lines, lines_of, running_backends
from verifier.demo.stack.ports import free_port
from verifier.demo.stack.process import wait_until


@pytest.fixture
def backends() -> Iterator[dict[str, Backend]]:
    with running_backends() as three:
        yield three


@pytest.fixture
def edge(backends: dict[str, Backend], tmp_path: Path) -> Iterator[Edge]:
    with edges_over(backends, tmp_path) as start:
        yield start


# --- lines --------------------------------------------------------------------------------------------------


def test_a_request_gives_one_line_about_main_and_one_about_the_shadow(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge()
    backends["shadow"].delay_s = 0.2
    before = time.time()
    answer = ask(nginx, "/api/v1/news?q=a", headers={"X-User-ID": "u-7", "Idempotency-Key": "k-1"})
    assert (answer.status, answer.body) == (200, b"main")
    both = lines_of(nginx, answer.request_id, 2)
    for side, line in both.items():
        assert line["v"] == 1 and line["side"] == side
        assert (line["method"], line["uri"], line["status"]) == ("GET", "/api/v1/news?q=a", 200)
        assert (line["upstream_status"], line["upstream_addr"]) == ("200", backends[side].address)
        assert (line["user_id"], line["idempotency_key"], line["host"]) == ("u-7", "k-1", "127.0.0.1")
        assert before - 0.01 <= line["ts"] <= time.time() + 0.01
        assert int(line["bytes_sent"]) > 50
    assert float(both["shadow"]["upstream_time_s"]) >= 0.19 > float(both["main"]["upstream_time_s"])
    assert both["main"]["request_time_s"] < 0.19
    assert both["main"]["sampled"] is True


def test_text_that_is_not_utf8_or_looks_like_json_spoils_no_line(edge: Edge) -> None:
    nginx = edge()
    hostile = ask(
        nginx, '/a?q={"x":1}\\', headers={"X-User-ID": 'o"\tne\\', "Idempotency-Key": "ключ".encode()}
    )
    broken = ask(nginx, "/", headers={"X-User-ID": b"caf\xe9"})
    both = lines_of(nginx, hostile.request_id, 2)
    assert both["main"]["uri"] == both["shadow"]["uri"] == '/a?q={"x":1}\\'
    assert both["main"]["user_id"] == both["shadow"]["user_id"] == 'o"\tne\\'
    assert both["shadow"]["idempotency_key"] == "ключ"
    assert lines_of(nginx, broken.request_id, 2)["main"]["user_id"] == "[not UTF-8]"


def test_what_nginx_refuses_itself_has_a_line_and_is_not_mirrored(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge(body_size_max="1k")
    assert ask(nginx, "/big", method="POST", body=b"x" * 2000).status == 413
    assert ask(nginx, "/long", headers={"X-Long": "x" * 40_000}).status == 400
    found = {line["uri"]: line for line in all_lines(nginx, 2)}
    assert (found["/big"]["status"], found["/big"]["sampled"]) == (413, False)
    assert (found["/long"]["status"], found["/long"]["sampled"]) == (400, False)
    assert not backends["main"].seen and not backends["shadow"].seen


def test_health_is_answered_by_the_edge_alone(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge()
    assert ask(nginx, "/healthz").body == b"ok\n"
    after = ask(nginx, "/after")
    lines_of(nginx, after.request_id, 2)
    assert len(all_lines(nginx, 2)) == 2
    assert [seen.target for seen in backends["main"].seen] == ["/after"]


# --- what the backends are told -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["/a%2Fb/c%20d", "/a//b///c", "/a/../b/./c", "/a?x=1&y=%26&z", "/%e4%bd%a0?q=a+b"]
)
def test_the_target_reaches_both_as_it_was_sent(
    edge: Edge, backends: dict[str, Backend], target: str
) -> None:
    nginx = edge()
    both = lines_of(nginx, ask(nginx, target).request_id, 2)
    assert both["main"]["uri"] == both["shadow"]["uri"] == target
    assert [backends[side].seen[0].target for side in ("main", "shadow")] == [target, target]


@pytest.mark.parametrize(("method", "size"), [("POST", 11), ("PUT", 2_000_000), ("DELETE", 0), ("HEAD", 0)])
def test_method_and_body_reach_both(edge: Edge, backends: dict[str, Backend], method: str, size: int) -> None:
    nginx = edge()
    body = bytes(range(256)) * (size // 256) + b"y" * (size % 256)
    answer = ask(nginx, "/write", method=method, body=body)
    both = lines_of(nginx, answer.request_id, 2)
    assert {line["method"] for line in both.values()} == {method}
    assert {line["status"] for line in both.values()} == {200}
    for side in ("main", "shadow"):
        assert [(seen.method, seen.body) for seen in backends[side].seen] == [(method, body)]


def test_each_backend_learns_what_it_is_and_a_client_cannot_say_it(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge()
    told = (
        "X-Shadow-Request",
        "X-Shadowing-Enabled",
        "X-Shadow-Target",
        "X-Canary-Backend",
        "X-Canary-Weight",
    )
    spoofed: dict[str, str | bytes] = dict.fromkeys((*told, "X-Original-URI", "X-Original-Method"), "spoofed")
    extra = {"X-Forwarded-For": "10.1.1.1", "User-Agent": "test/1", "X-Kept": "yes"}
    answer = ask(nginx, "/a?b=1", headers={**spoofed, **extra})
    lines_of(nginx, answer.request_id, 2)
    main, shadow = backends["main"].seen[0].headers, backends["shadow"].seen[0].headers
    assert {name: main.get(name.lower()) for name in told} == {
        "X-Shadow-Request": None,
        "X-Shadowing-Enabled": "true",
        "X-Shadow-Target": "go-api",
        "X-Canary-Backend": None,
        "X-Canary-Weight": None,
    }
    assert {name: shadow.get(name.lower()) for name in told} == {
        **dict.fromkeys(told),
        "X-Shadow-Request": "true",
    }
    original = {name[11:]: value for name, value in shadow.items() if name.startswith("x-original-")}
    assert original == {
        "host": nginx.params.listen,
        "uri": "/a?b=1",
        "method": "GET",
        "remote-addr": "127.0.0.1",
        "forwarded-for": "10.1.1.1, 127.0.0.1",
        "user-agent": "test/1",
    }
    for heard in (main, shadow):
        assert heard["x-request-id"] == answer.request_id
        assert (heard["host"], heard["x-kept"]) == (nginx.params.listen, "yes")


@pytest.mark.parametrize("given", ["a", "Az09._:-", "x" * 128])
def test_a_good_request_id_is_kept(edge: Edge, backends: dict[str, Backend], given: str) -> None:
    nginx = edge()
    answer = ask(nginx, headers={"X-Request-ID": given})
    assert answer.headers.get_all("X-Request-ID") == [given]
    lines_of(nginx, given, 2)
    assert {backends[side].seen[0].headers["x-request-id"] for side in ("main", "shadow")} == {given}


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", 'a"b', "a/b", "é"])
def test_a_bad_or_absent_request_id_is_replaced(edge: Edge, backends: dict[str, Backend], given: str) -> None:
    nginx = edge()
    answer = ask(nginx, headers={"X-Request-ID": given.encode()} if given else {})
    assert len(answer.request_id) == 32 and answer.request_id != given
    lines_of(nginx, answer.request_id, 2)
    assert {backends[side].seen[0].headers["x-request-id"] for side in ("main", "shadow")} == {
        answer.request_id
    }


# --- users never feel the mirror ----------------------------------------------------------------------------


def test_a_hung_shadow_slows_no_one_not_even_on_the_same_connection(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge(shadow_rate_per_s=1000)
    backends["shadow"].delay_s = 3.0
    connection = http.client.HTTPConnection(nginx.params.listen, timeout=10)
    answers = [ask(connection, f"/{n}", method="POST", body=b"z" * 500) for n in range(100)]
    connection.close()
    slowest = sorted(answer.seconds for answer in answers)[98]
    assert {answer.status for answer in answers} == {200}
    assert slowest < 0.1, f"p99 was {slowest:.3f} s"
    shadow = lines_of(nginx, answers[-1].request_id, 2, timeout_s=8.0)["shadow"]
    assert shadow["status"] == 200 and float(shadow["upstream_time_s"]) >= 2.9
    assert Counter(line["side"] for line in all_lines(nginx, 200)) == {"main": 100, "shadow": 100}


def test_a_shadow_past_its_timeout_is_a_504_of_the_shadow_alone(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge(shadow_timeout_s=0.3)
    backends["shadow"].delay_s = 3.0
    answer = ask(nginx)
    both = lines_of(nginx, answer.request_id, 2)
    assert (answer.status, both["main"]["status"]) == (200, 200)
    assert (both["shadow"]["status"], both["shadow"]["upstream_status"]) == (504, "504")


def test_a_shadow_that_refuses_is_a_502_of_the_shadow_alone(edge: Edge) -> None:
    nginx = edge(shadow=f"127.0.0.1:{free_port()}")
    answers = [ask(nginx) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    for answer in answers:
        both = lines_of(nginx, answer.request_id, 2)
        assert (both["main"]["status"], both["shadow"]["status"]) == (200, 502)


def test_the_shadows_answer_is_read_to_its_end(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge()
    backends["shadow"].chunks = (b"x" * 200_000,) * 10
    both = lines_of(nginx, ask(nginx).request_id, 2)
    assert backends["shadow"].finished == 1
    assert int(both["shadow"]["bytes_sent"]) > 2_000_000


def test_a_client_that_leaves_takes_neither_request_nor_lines_along(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge()
    backends["main"].delay_s = backends["shadow"].delay_s = 0.5
    host, port = nginx.params.listen.split(":")
    for n in range(10):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"POST /leave HTTP/1.1\r\nHost: h\r\nX-Request-ID: leaver-{n}\r\n".encode())
            client.sendall(b"Content-Length: 4\r\n\r\ngone")
            wait_until(lambda n=n: len(backends["main"].seen) > n, 5.0, "main to be asked")  # type: ignore[misc]
    for n in range(10):
        both = lines_of(nginx, f"leaver-{n}", 2)
        assert (both["main"]["status"], both["shadow"]["status"]) == (200, 200)
    assert {seen.body for seen in backends["shadow"].seen} == {b"gone"}
    assert backends["main"].finished == backends["shadow"].finished == 10


def test_a_client_that_leaves_during_its_upload_was_never_mirrored(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge()
    host, port = nginx.params.listen.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: h\r\nX-Request-ID: half\r\nContent-Length: 9999\r\n\r\nhalf"
        )
    line = lines_of(nginx, "half", 1)["main"]
    assert line["sampled"] is False
    assert not backends["main"].seen and not backends["shadow"].seen


# --- what is not mirrored -----------------------------------------------------------------------------------


def test_copies_above_the_rate_are_shed_with_a_line_each(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge(shadow_rate_per_s=1, shadow_burst=5)
    answers = [ask(nginx, f"/{n}", headers={"X-User-ID": "u"}) for n in range(30)]
    assert {answer.status for answer in answers} == {200}
    found = all_lines(nginx, 60)
    shed = [line for line in found if line.get("shed")]
    assert {(line["side"], line["shed"], line["shed_reason"], line["user_id"]) for line in shed} == {
        ("shadow", True, "rate", "u")
    }
    assert 20 <= len(shed) <= 24
    assert len(backends["shadow"].seen) == 30 - len(shed)
    for answer in answers:
        assert lines_of(nginx, answer.request_id, 2).keys() == {"main", "shadow"}


def test_copies_under_way_are_bounded(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge(shadow_in_flight_max=3)
    backends["shadow"].delay_s = 1.0
    for n in range(10):
        ask(nginx, f"/{n}")
    found = all_lines(nginx, 20)
    assert Counter(line.get("shed_reason") for line in found if line["side"] == "shadow") == {
        "in_flight": 7,
        None: 3,
    }
    assert len(backends["shadow"].seen) == 3


def test_a_copy_that_cannot_reach_the_hop_has_a_line(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge()
    (nginx.run_dir / "hop.sock").unlink()
    answer = ask(nginx)
    shadow = lines_of(nginx, answer.request_id, 2)["shadow"]
    assert (answer.status, shadow["shed"], shadow["shed_reason"]) == (200, True, "hop_unreachable")


@pytest.mark.parametrize("percent", [0.0, 40.0])
def test_what_is_not_sampled_says_so_and_is_not_mirrored(
    edge: Edge, backends: dict[str, Backend], percent: float
) -> None:
    nginx = edge(sample_percent=percent, shadow_rate_per_s=1000)
    sent = [ask(nginx, headers={"X-Request-ID": f"sample-{n}"}).request_id for n in range(100)]
    wait_until(lambda: len({line["request_id"] for line in lines(nginx)}) == 100, 5.0, "the lines about main")
    sampled = {line["request_id"] for line in lines(nginx) if line["side"] == "main" and line["sampled"]}
    assert len(sampled) == 0 if percent == 0 else 20 <= len(sampled) <= 60
    for line in all_lines(nginx, 100 + len(sampled)):
        assert line["side"] == "main" or line["request_id"] in sampled
    assert {seen.headers["x-request-id"] for seen in backends["shadow"].seen} == sampled
    assert len(set(sent)) == 100
