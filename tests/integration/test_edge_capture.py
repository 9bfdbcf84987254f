"""The response records that the shipped NGINX files write: what was answered, whatever it was, and nothing secret."""

from __future__ import annotations

import gzip
import json
import random
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_driver import (
    Backend,
    Edge,
    Script,
    all_responses,
    ask,
    body_of,
    chunked,
    edges_over,
    lines_of,
    pair,
    responses,
    running_backends,
    scripted,
)
from verifier.demo.stack.errors import StackError
from verifier.demo.stack.nginx import EdgeParams, Nginx
from verifier.demo.stack.ports import free_port
from verifier.demo.stack.process import wait_until

JSON = "Content-Type: application/json"
TEXT = "Content-Type: text/plain; charset=utf-8"


@pytest.fixture
def backends() -> Iterator[dict[str, Backend]]:
    with running_backends() as three:
        yield three


@pytest.fixture
def edge(backends: dict[str, Backend], tmp_path: Path) -> Iterator[Edge]:
    with edges_over(backends, tmp_path) as start:
        yield start


def serve(backends: dict[str, Backend], main: Script, shadow: Script | None = None) -> None:
    backends["main"].scripts["*"] = main
    backends["shadow"].scripts["*"] = shadow or main


def captured(nginx: Nginx, **request: Any) -> dict[str, Any]:
    """Main's record of a request whose shadow answers the same: then both records say the same."""
    main, shadow = pair(nginx, ask(nginx, **request).request_id)
    own = ("side", "ts", "duration_ms")
    assert {**main, **dict.fromkeys(own)} == {**shadow, **dict.fromkeys(own)}
    return main


# --- what a record says ---------------------------------------------------------------------------------------


def test_a_record_says_what_was_asked_and_answered(edge: Edge, backends: dict[str, Backend]) -> None:
    serve(backends, scripted(f"{JSON}\nX-Total-Count: 2", b'{"n": 1.10}', status="201 Created"))
    backends["shadow"].delay_s = 0.2
    nginx = edge()
    answer = ask(
        nginx,
        "/api/v1/news?q=%2F",
        method="POST",
        body=b"{}",
        headers={"X-User-ID": "u-7", "Idempotency-Key": "k-1"},
    )
    main, shadow = pair(nginx, answer.request_id)
    edges = lines_of(nginx, answer.request_id, 2)
    for record in (main, shadow):
        assert (record["v"], record["method"], record["path"]) == (1, "POST", "/api/v1/news?q=%2F")
        assert (record["status"], record["user_id"], record["idempotency_key"]) == (201, "u-7", "k-1")
        assert record["headers"] == {"content-type": "application/json", "x-total-count": "2"} | (
            {"content-length": "11"} if "content-length" in record["headers"] else {}
        )
        assert (record["body_encoding"], record["body"], record["body_bytes"]) == ("json", {"n": 1.1}, 11)
        assert record["body_truncated"] is False
        assert not {"error", "capture_gap", "writes"} & record.keys()
        assert abs(record["ts"] - edges[record["side"]]["ts"]) < 0.05
    assert main["duration_ms"] < 190 <= shadow["duration_ms"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"price": 0.10, "id": 12345678901234567890, "e": 1e3, "zero": [0, -0, 0.5, -0.0E-1]}',
        b'[\r\n\t{"text": "in 2020.", "snow": "\xe2\x98\x83 \\n"}\n, -1 ]\n',
        b'{"a": {"a": 1}, "a": [true, null, "01", ""]}',
    ],
)
def test_json_is_embedded_as_it_was_sent(edge: Edge, backends: dict[str, Backend], body: bytes) -> None:
    serve(backends, scripted(JSON, body))
    nginx = edge()
    record = captured(nginx)
    assert (record["body_encoding"], record["body"]) == ("json", json.loads(body))
    as_sent = body.replace(b"\r", b" ").replace(b"\n", b" ").strip()
    assert b'"body":' + as_sent + b"}\n" in nginx.main_responses_path.read_bytes()


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 01}',
        b'{"a": 1.}',
        b'{"a": .5}',
        b'{"a": -}',
        b'{"a": 1e}',
        b'{"a": 0x1F}',
        b'{"a": 1_000}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\\ud83d"}',
        b'"root"',
        b"007",
        b'{"a": -01}',
        b"[1,\n 02]",
        b'{"text": ": 5 things"}',
        b'{"a": "tab\there"}',
        b'{"a": 1,}',
        b'{"a": 1} {"b": 2}',
        b"{'a': 1}",
        b"\xef\xbb\xbf{}",
        b"",
        b"[" * 40 + b"]" * 40,
        b'{"a": "' + b"x" * 20_000 + b'"}',
    ],
)
def test_what_may_not_be_json_to_every_reader_goes_as_text(
    edge: Edge, backends: dict[str, Backend], body: bytes
) -> None:
    serve(backends, scripted(JSON, body))
    record = captured(edge())
    assert (record["body_encoding"], body_of(record)) == ("text", body)


def test_whatever_bytes_a_backend_sends_a_record_is_json_and_gives_them_back(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge(shadow_rate_per_s=1000)
    chance = random.Random(20261123)
    alphabets = (bytes(range(256)), b'{}[]",:\\/ 0123456789.eE+-truefalsn\n\t', "aé☃😀\u2028\x7f\0".encode())
    sent: dict[str, tuple[bytes, bytes]] = {}
    for number in range(150):
        body = bytes(chance.choices(chance.choice(alphabets), k=chance.choice((1, 7, 300, 3000))))
        kind = chance.choice((JSON, TEXT, "Content-Type: image/png", "X-None: 1", "Content-Type: a/b;\xff=1"))
        odd = b"o%so" % bytes(chance.choices([byte for byte in range(32, 256) if byte != 127], k=12))
        script = scripted(f"{kind}\nX-Odd: {odd.decode('latin-1')}\n__proto__: {number}", body)
        for backend in backends.values():
            backend.scripts[f"/{number}"] = script
        sent[f"odd-{number}"] = body, odd
        ask(nginx, f"/{number}", headers={"X-Request-ID": f"odd-{number}"})
    for (request_id, _), record in all_responses(nginx, 300).items():
        body, odd = sent[request_id]
        if record["body_encoding"] == "json":
            assert record["body"] == json.loads(body)
        else:
            assert body_of(record) == body
        shown = record["headers"]["x-odd"]
        assert shown in (odd.decode("latin-1"), odd.decode(errors="replace")) or "\ufffd" in shown
        assert record["headers"]["__proto__"] == request_id.removeprefix("odd-")
    assert "[error]" not in nginx.error_log_path.read_text()


def test_text_bytes_and_compressed_bodies(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge()
    packed = gzip.compress(b'{"items": [1, 2]}')
    for head, body, encoding in (
        (TEXT, "zwölf ☃\n".encode(), "text"),
        ("Content-Type: text/csv; charset=iso-8859-1", "zwölf".encode("latin-1"), "base64"),
        ("Content-Type: application/octet-stream", bytes(range(256)), "base64"),
        (f"{JSON}\nContent-Encoding: gzip", packed, "base64"),
        (f"{JSON}\nContent-Encoding: identity", b"{}", "json"),
        (TEXT, b"\0\1\2" * 40_000, "base64"),  # as text, its escapes would make six bytes of each
    ):
        serve(backends, scripted(head, body))
        limited = ask(nginx, headers={"Accept-Encoding": "gzip"})
        record, _ = pair(nginx, limited.request_id)
        kept = body[:65_536]
        assert (record["body_encoding"], body_of(record)) == (encoding, kept)
        assert (record["body_truncated"], record["body_bytes"]) == (len(body) > 65_536, len(body))
        assert (
            record["headers"].get("content-encoding") == ("gzip" if body is packed else None)
            or b"id" in head.encode()
        )
    assert {seen.headers.get("accept-encoding") for seen in backends["shadow"].seen} == {"gzip"}


def test_answers_without_a_body_and_in_pieces(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge()
    events = b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"
    for script, method, status, body in (
        (scripted("X-A: 1", status="204 No Content", length=False), "DELETE", 204, b""),
        (scripted('ETag: "1"', status="304 Not Modified", length=False), "GET", 304, b""),
        (scripted(JSON, b'{"length": "told, not sent"}'), "HEAD", 200, b""),
        (scripted(JSON), "GET", 200, b""),
        (chunked("Content-Type: text/event-stream", *events, pause_s=0.02), "GET", 200, b"".join(events)),
        (chunked(TEXT, b"a" * 7000, b"b" * 7000), "GET", 200, b"a" * 7000 + b"b" * 7000),
        (scripted(TEXT, b"until it ", b"closes", length=False, then="close"), "GET", 200, b"until it closes"),
        (scripted(JSON, b'{"error": 1}', status="500 Oh"), "GET", 500, b'{"error": 1}'),
        (scripted("Location: /else", b"", status="302 Found"), "GET", 302, b""),
    ):
        serve(backends, script)
        record = captured(nginx, method=method)
        assert (record["status"], body_of(record), record["body_truncated"]) == (status, body, False)


@pytest.mark.parametrize("in_chunks", [False, True])
def test_beyond_the_cap_the_beginning_is_kept(
    edge: Edge, backends: dict[str, Backend], in_chunks: bool
) -> None:
    nginx = edge(capture_body_bytes_max=1000)
    snow = "☃".encode() * 1_000_000  # 1000 is no multiple of 3: the cap cuts one in two
    serve(backends, chunked(TEXT, snow) if in_chunks else scripted(TEXT, snow))
    answer = ask(nginx)
    assert answer.body == snow
    for record in pair(nginx, answer.request_id):
        assert (record["body_encoding"], record["body"], record["body_truncated"]) == (
            "text",
            "☃" * 333,
            True,
        )
        assert record.get("body_bytes") in ({len(snow), None} if in_chunks else {len(snow)})


@pytest.mark.parametrize("letter", [b"\xff", b'"', "😀".encode(), b"\1"])
def test_a_line_at_the_largest_cap_still_fits_the_shipper(
    edge: Edge, backends: dict[str, Backend], letter: bytes
) -> None:
    nginx = edge(capture_body_bytes_max=131_072)
    body = letter * (131_072 // len(letter))
    serve(backends, scripted(TEXT + "\nX-Large: " + "é" * 2000, body))
    record = captured(nginx, target="/" + "%22" * 5000, headers={"X-User-ID": "u" * 5000})
    assert (body_of(record), record["body_truncated"]) == (body, False)
    assert len(record["user_id"]) == 256


# --- what is secret -------------------------------------------------------------------------------------------


def test_secret_headers_are_redacted_one_by_one(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge(capture_redact=("X-Api-Key",), canary_weight_percent=1)
    head = "Set-Cookie: a=secret\nSet-Cookie: b=secret\nAuthorization: secret\nX-API-Key: secret\nX-Open: 1"
    serve(backends, scripted(head, b"ok"))
    answer = ask(nginx, headers={"X-Canary": "never"})  # or one in a hundred would go there
    assert len(answer.headers.get_all("Set-Cookie") or []) == 3, "the edge's own, too"
    for record in pair(nginx, answer.request_id):
        assert {name: value for name, value in record["headers"].items() if name != "content-length"} == {
            "set-cookie": ["[redacted]", "[redacted]"],
            "authorization": "[redacted]",
            "x-api-key": "[redacted]",
            "x-open": "1",
        }
    assert b"secret" not in nginx.main_responses_path.read_bytes() + nginx.shadow_responses_path.read_bytes()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ('{"password": "se\\"cret", "n": 0.10}', '{"password":"[redacted]", "n": 0.10}'),
        ('{"a": [{"PassWord" :\n"x"}], "b": "password"}', None),
        ('{"password": {"deep": ["se}cret", 1]}, "z": [1]}', '{"password":"[redacted]", "z": [1]}'),
        ('{"password": ["s", {"e": 1}]}', '{"password":"[redacted]"}'),
        ('{"pass\\u0077ord": 7, "token": null}', '{"pass\\u0077ord":"[redacted]", "token":"[redacted]"}'),
        ('{"said": "\\"password\\": 1", "passwords": 2}', '{"said": "\\"password\\": 1", "passwords": 2}'),
        ('{"open": 1, "password": "se', '{"open": 1, "password":"[redacted]"'),
    ],
)
def test_members_of_configured_names_are_redacted_and_nothing_else(
    edge: Edge, backends: dict[str, Backend], sent: str, kept: str | None
) -> None:
    nginx = edge(capture_redact=("password", "token"))
    serve(backends, scripted(JSON, sent.encode()))
    record = captured(nginx)
    if kept is None:
        kept = '{"a": [{"PassWord" : "[redacted]"}], "b": "password"}'
    kept = kept.replace(':"[redacted]"', ': "[redacted]"')
    if record["body_encoding"] == "json":
        assert record["body"] == json.loads(kept)
    else:
        assert record["body"].replace(':"[redacted]"', ': "[redacted]"') == kept
    assert ask(nginx).body == sent.encode(), "the user gets all of it"


def test_a_form_is_redacted_and_what_cannot_be_looked_into_is_withheld(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge(capture_redact=("password",))
    serve(backends, scripted("Content-Type: application/x-www-form-urlencoded", b"a=1&pass%77ord=x+y&b"))
    assert captured(nginx)["body"] == "a=1&pass%77ord=[redacted]&b"
    for head in (f"{JSON}\nContent-Encoding: gzip", JSON):
        serve(backends, scripted(head, gzip.compress(b'{"password": 1}')))
        record = captured(nginx)
        assert "body" not in record
        assert (record["body_truncated"], record["capture_gap"]) == (True, "body_not_redactable")


# --- answers that break off, or never come ----------------------------------------------------------------------


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_shadow_that_breaks_off_is_recorded_as_far_as_it_came(
    edge: Edge, backends: dict[str, Backend], then: str, in_chunks: bool
) -> None:
    whole = scripted(JSON, b'{"items": [1, 2]}')
    if in_chunks:
        broken = chunked(JSON, b'{"items": [1', end=b"", then=then)
    else:
        broken = Script((whole.pieces[0][:-5],), then=then)  # type: ignore[arg-type]
    serve(backends, whole, broken)
    nginx = edge()
    answer = ask(nginx)
    main, shadow = pair(nginx, answer.request_id)
    assert (answer.body, main["body"], "error" in main) == (b'{"items": [1, 2]}', {"items": [1, 2]}, False)
    assert shadow["error"] == "the answer ended before it was complete"
    assert (shadow["body_truncated"], "capture_gap" in shadow) == (False, False)
    assert shadow["body"] in ('{"items": [1', "")  # a reset may overtake what was sent before it


def test_a_shadow_that_stands_still_or_never_ends_is_given_up(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    nginx = edge(shadow_timeout_s=0.4, shadow_answer_s_max=0.3, shadow_body_bytes_max=100_000)
    whole = scripted(TEXT, b"x" * 10)
    for shadow, gap in (
        (Script((whole.pieces[0][:-5],), then="hang"), "shadow_timeout"),
        (chunked(TEXT, *[b"tick"] * 60, pause_s=0.1), "answer_too_long"),
        (scripted(TEXT, b"y" * 3_000_000), "answer_too_large"),
    ):
        serve(backends, whole, shadow)
        answer = ask(nginx)
        main, other = pair(nginx, answer.request_id)
        assert (answer.body, main["body"]) == (b"x" * 10, "x" * 10)
        assert (other["capture_gap"], other["body_truncated"], "error" in other) == (gap, True, False)


def test_what_was_never_answered_has_no_record(edge: Edge, backends: dict[str, Backend]) -> None:
    refusing = edge(shadow=f"127.0.0.1:{free_port()}")
    hung = edge(shadow_timeout_s=0.3)
    dying = edge(main=f"127.0.0.1:{free_port()}", shadow_timeout_s=0.3)
    garbled = edge(canary=backends["canary"].address, canary_opt_in=True)
    backends["shadow"].scripts["*"] = Script((), then="hang")
    backends["canary"].scripts["*"] = Script((b"",), then="reset")
    for nginx, side, status in ((refusing, "shadow", 502), (hung, "shadow", 504), (dying, "main", 502)):
        request_id = ask(nginx).request_id
        assert lines_of(nginx, request_id, 2)[side]["status"] == status
        assert (request_id, side) not in responses(nginx)
    request_id = ask(garbled, headers={"X-Canary": "true"}).request_id
    assert lines_of(garbled, request_id, 1)["canary"]["status"] == 502
    assert not responses(garbled)


def test_when_a_users_answer_breaks_off_the_record_does_not_say_who_left(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    whole = scripted(JSON, b'{"items": [1, 2]}')
    serve(backends, Script((whole.pieces[0][:-5],), then="close"), whole)
    nginx = edge()
    with socket.create_connection(nginx.params.listen.split(":")) as client:  # type: ignore[arg-type]
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-Request-ID: cut\r\n\r\n")
        assert client.recv(65_536)
    main, shadow = pair(nginx, "cut")
    assert (main["capture_gap"], main["body_truncated"]) == ("answer_cut", True)
    assert shadow["body"] == {"items": [1, 2]}


def test_a_user_who_leaves_does_not_take_the_record_along(edge: Edge, backends: dict[str, Backend]) -> None:
    serve(backends, scripted(JSON, b'{"n": 1}'))
    backends["main"].delay_s = 0.3
    nginx = edge()
    for number in range(5):
        with socket.create_connection(nginx.params.listen.split(":")) as client:  # type: ignore[arg-type]
            client.sendall(f"GET / HTTP/1.1\r\nHost: h\r\nX-Request-ID: gone-{number}\r\n\r\n".encode())
            wait_until(lambda n=number: len(backends["main"].seen) > n, 5.0, "main to be asked")  # type: ignore[misc]
    for number in range(5):
        assert [record["body"] for record in pair(nginx, f"gone-{number}")] == [{"n": 1}] * 2


# --- whose, when, and whether -----------------------------------------------------------------------------------


def test_the_canarys_answer_is_captured_as_its_own(edge: Edge, backends: dict[str, Backend]) -> None:
    backends["canary"].scripts["*"] = scripted(JSON, b'{"by": "canary"}')
    nginx = edge(canary_weight_percent=100)
    request_id = ask(nginx).request_id
    lines_of(nginx, request_id, 1)
    record = responses(nginx)[request_id, "canary"]
    assert (record["body"], record["status"]) == ({"by": "canary"}, 200)
    assert "set-cookie" not in record["headers"], "the edge's own cookie is none of the canary's"


def test_a_count_of_writes_is_taken_off_the_answer_and_recorded(
    edge: Edge, backends: dict[str, Backend]
) -> None:
    serve(backends, scripted("X-Verifier-Writes: 3", b"x"), scripted("X-Verifier-Writes: many", b"x"))
    nginx = edge()
    answer = ask(nginx)
    main, shadow = pair(nginx, answer.request_id)
    assert (main["writes"], "writes" in shadow) == (3, False)
    assert answer.headers["X-Verifier-Writes"] is None
    assert not {name for record in (main, shadow) for name in record["headers"]} & {"x-verifier-writes"}


def test_requests_do_not_mix_however_they_overlap(edge: Edge, backends: dict[str, Backend]) -> None:
    nginx = edge(shadow_rate_per_s=1000)
    for backend in backends.values():
        for number in range(40):
            pieces = [f"{number}-{part};".encode() * 500 for part in range(4)]
            backend.scripts[f"/{number}"] = chunked(TEXT, *pieces, pause_s=0.02)
    host, port = nginx.params.listen.split(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(40)]
    for number, client in enumerate(clients):
        asked = (
            f"GET /{number} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Request-ID: mix-{number}\r\n\r\n"
        )
        client.sendall(asked.encode())
    for client in clients:
        with client:
            while client.recv(65_536):
                pass
    for (request_id, _), record in all_responses(nginx, 80).items():
        asked = request_id.removeprefix("mix-")
        assert body_of(record) == b"".join(f"{asked}-{part};".encode() * 500 for part in range(4))


def test_capture_is_switched_by_one_value_and_a_reload(edge: Edge) -> None:
    nginx = edge(capture=False)
    off = ask(nginx).request_id
    lines_of(nginx, off, 2)
    nginx.reload(replace(nginx.params, capture=True))
    on = ask(nginx).request_id
    pair(nginx, on)
    nginx.reload(replace(nginx.params, capture=False))
    off_again = ask(nginx).request_id
    lines_of(nginx, off_again, 2)
    assert {request_id for request_id, _ in responses(nginx)} == {on}


def test_only_what_is_mirrored_is_captured(edge: Edge) -> None:
    nginx = edge(sample_percent=50, shadow_rate_per_s=1000)
    sampled = set()
    for number in range(30):
        ask(nginx, headers={"X-Request-ID": f"half-{number}"})
        line = wait_until(lambda n=number: _main_line(nginx, f"half-{n}"), 5.0, "main's line")  # type: ignore[misc]
        sampled |= {f"half-{number}"} if line["sampled"] else set()
    assert 5 <= len(sampled) <= 25
    assert {request_id for request_id, _ in all_responses(nginx, 2 * len(sampled))} == sampled


def _main_line(nginx: Nginx, request_id: str) -> dict[str, Any]:
    found = [json.loads(line) for line in nginx.log_path.read_bytes().splitlines()]
    return next((each for each in found if (each["request_id"], each["side"]) == (request_id, "main")), {})


def test_wrong_parameters_of_capture_are_named() -> None:
    with pytest.raises(StackError, match=r"capture_redact must be.*capture_body_bytes_max must be at most"):
        EdgeParams(main="m:1", shadow="s:1", capture_redact=('a"b',), capture_body_bytes_max=200_000)


# --- backends that know nothing of the verifier -----------------------------------------------------------------


def test_the_records_suffice_to_judge_both_sides(edge: Edge, backends: dict[str, Backend]) -> None:
    answers = {
        "same": (scripted(JSON, b'{"a": 1}'), chunked(JSON, b'{"a"', b": 1}"), "match"),
        "order": (scripted(JSON, b'{"a": 1, "b": 2}'), scripted(JSON, b'{"b":2,"a":1}'), "match"),
        "packed": (_packed(b'{"a": 1}', 1), _packed(b'{"a": 1}', 9), "match"),
        "packed-other": (_packed(b'{"a": 1}', 1), _packed(b'{"a": 2}', 1), "divergence"),
        "large": (scripted(JSON, _large(1)), scripted(JSON, _large(1)), "match"),
        "large-other": (scripted(JSON, _large(1)), scripted(JSON, _large(2)), "divergence"),
        "embedded-or-not": (scripted(JSON, b"[1]"), scripted(JSON, b"[1" + b" " * 20_000 + b"]"), "match"),
        "status": (scripted(JSON, b"{}"), scripted(JSON, b"{}", status="404 Not Found"), "divergence"),
        "header": (scripted(f"{JSON}\nX-V: 1", b"{}"), scripted(f"{JSON}\nX-V: 2", b"{}"), "divergence"),
        "text": (scripted(TEXT, b"a"), scripted(TEXT, b"b"), "divergence"),
        "bytes": (scripted("X-A: 1", b"\xff\0"), scripted("X-A: 1", b"\xff\1"), "divergence"),
        "cookie": (scripted("Set-Cookie: s=1", b""), scripted("Set-Cookie: s=2", b""), "match"),
        "broken-off": (
            scripted(JSON, b"[1, 2]"),
            Script((scripted(JSON, b"[1, 2]").pieces[0][:-3],), then="close"),
            "divergence",
        ),
        "too-large": (scripted(TEXT, b"x" * 70_000), scripted(TEXT, b"x" * 70_000), "incomparable"),
        "silent": (scripted(JSON, b"{}"), Script((), then="reset"), "incomplete"),
    }
    nginx = edge()
    for name, (main, shadow, _) in answers.items():
        backends["main"].scripts[f"/{name}"], backends["shadow"].scripts[f"/{name}"] = main, shadow
        ask(nginx, f"/{name}", headers={"X-Request-ID": name, "Accept-Encoding": "gzip"})
        lines_of(nginx, name, 2)
    assert _verdicts(nginx) == {name: verdict for name, (_, _, verdict) in answers.items()}


def _packed(body: bytes, level: int) -> Script:
    return scripted(f"{JSON}\nContent-Encoding: gzip", gzip.compress(body, level))


def _large(last: int) -> bytes:
    return json.dumps({"items": [{"id": n, "name": "é☃"} for n in range(1000)], "last": last}).encode()


def _verdicts(nginx: Nginx) -> dict[str, str]:
    database = nginx.data_dir / "verdicts.sqlite"
    files = [str(path) for path in (nginx.log_path, nginx.main_responses_path, nginx.shadow_responses_path)]
    command = [sys.executable, "-m", "verifier", "offline", *files, "--sqlite", str(database)]
    done = subprocess.run(
        [*command, "--fail-on", "rejected"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute("SELECT request_id, verdict FROM requests"))
