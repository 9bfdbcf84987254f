"""Whatever bytes a service sends, the record gives them back."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.capture.records import ResponseRecord, encode_response


class Decoded(msgspec.Struct):
    """How a consumer reads a record: every field typed, the body raw."""

    request_id: str
    status: int
    body_encoding: str
    body_truncated: bool
    body: msgspec.Raw
    headers: dict[str, str | list[str]]
    error: str | None = None


def record(body: bytes, content_type: str = "application/json", **changes: Any) -> ResponseRecord:
    fields: dict[str, Any] = {
        "request_id": "r", "side": "main", "ts": 1.5, "method": "GET", "path": "/", "status": 200,
        "headers": ((b"content-type", content_type.encode("latin-1")),), "redact": frozenset(), "body": body,
        "body_bytes": len(body), "body_truncated": False, "duration_ms": 1.0,
    }  # fmt: skip
    return ResponseRecord(**(fields | changes))


def decode(value: bytes) -> Decoded:
    return msgspec.json.decode(value, type=Decoded)


def bytes_of(decoded: Decoded) -> bytes:
    if decoded.body_encoding == "json":
        return bytes(decoded.body)
    text = msgspec.json.decode(bytes(decoded.body), type=str)
    return text.encode() if decoded.body_encoding == "text" else base64.b64decode(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
content_types = st.sampled_from(
    ["application/json", "application/problem+json; charset=utf-8", "text/plain", "image/png", ""]
)


@given(body=st.binary(max_size=300) | st.text(max_size=100).map(str.encode), content_type=content_types)
def test_any_bytes_come_back(body: bytes, content_type: str) -> None:
    decoded = decode(encode_response(record(body, content_type)))
    if decoded.body_encoding == "json":
        assert bytes_of(decoded) == body.strip(b" \t\r\n")
    else:
        assert bytes_of(decoded) == body


@given(value=json_values, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_any_json_comes_back_byte_for_byte(value: object, indent: int | None, ascii_only: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8")
    decoded = decode(encode_response(record(body)))
    assert decoded.body_encoding == "json"
    assert bytes_of(decoded) == body


@given(body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode), cut=st.integers(0, 200))
def test_a_cut_body_is_a_beginning_of_what_was_sent(body: bytes, cut: int) -> None:
    kept = body[:cut]
    decoded = decode(encode_response(record(kept, body_truncated=True, body_bytes=len(body))))
    assert decoded.body_truncated
    assert kept.startswith(bytes_of(decoded))
    assert len(kept) - len(bytes_of(decoded)) <= 3


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"1.0", "json"),
        (b"-0.0e-0", "json"),
        (b"123456789012345678901234567890.000", "json"),
        (b"9" * 5000, "json"),
        (b'  {"a": [1, 2]}\n', "json"),
        (b'"\\ud83d\\ude00"', "json"),
        (b'{"a": 1, "a": 2}', "text"),  # which of the two wins depends on the reader
        (b'{"a": {"b": 1, "b": 1}}', "text"),
        (b"NaN", "text"),
        (b"[1, Infinity]", "text"),
        (b'"\\ud800"', "text"),  # no UTF-8 reader can hold it
        (b"\xef\xbb\xbf{}", "text"),
        (b"{", "text"),
        (b"", "text"),
        (b"[" * 100_000, "text"),
        (b'{"a": "\xff"}', "base64"),
    ],
)
def test_only_what_every_reader_understands_alike_is_embedded(body: bytes, encoding: str) -> None:
    decoded = decode(encode_response(record(body)))
    assert decoded.body_encoding == encoding
    assert bytes_of(decoded) == (body.strip() if encoding == "json" else body)


@given(
    headers=st.lists(
        st.tuples(st.sampled_from([b"x-a", b"X-A", b"x-b", b"set-cookie"]), st.binary(max_size=8)), max_size=6
    )
)
def test_every_header_value_is_there_in_order(headers: list[tuple[bytes, bytes]]) -> None:
    decoded = decode(encode_response(record(b"", headers=tuple(headers), redact=frozenset({b"set-cookie"}))))
    expected: dict[str, list[str]] = {}
    for name, value in headers:
        shown = "[redacted]" if name == b"set-cookie" else value.decode("latin-1")
        expected.setdefault(name.decode().lower(), []).append(shown)
    found = {name: [v] if isinstance(v, str) else v for name, v in decoded.headers.items()}
    assert found == expected
