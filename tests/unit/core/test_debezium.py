"""Debezium's change events become writes, or a sentence that names what they lack."""

from __future__ import annotations

import json
from typing import Any

import pytest

from verifier.core.events import Rejection, Seen, Source, Write, raw_bytes
from verifier.stream.codec import Codec, CodecConfig
from verifier.testing import TS, StubRecord

ROW = {"id": 7, "request_id": "r-1", "title": "t", "price": 1.10}


def envelope(**changes: Any) -> dict[str, Any]:
    source = {
        "connector": "postgresql",
        "table": "news",
        "ts_ms": int(TS * 1000) + 250,
        "lsn": 100,
        "txId": 5,
    }
    return {
        "op": "c",
        "before": None,
        "after": dict(ROW),
        "source": source,
        "ts_ms": int(TS * 1000) + 900,
        **changes,
    }


def change_of(**changes: Any) -> dict[str, Any]:
    made = envelope()
    return {**made, "source": {**made["source"], **changes}}


def decoded(
    document: object,
    *,
    source: Source = Source.MAIN_WRITES,
    headers: tuple[tuple[str, bytes], ...] = (),
    **config: Any,
) -> Seen | Rejection:
    record = StubRecord(value=json.dumps(document).encode(), headers=headers)
    events, rejections = Codec(CodecConfig(**config)).decode(source, 0, [record])
    assert len(events) + len(rejections) == 1
    return events[0] if events else rejections[0]


def written(document: object, **how: Any) -> Write:
    found = decoded(document, **how)
    assert isinstance(found, Seen), found
    assert isinstance(found.event, Write)
    return found.event


def refusal(document: object, **how: Any) -> tuple[str, str]:
    found = decoded(document, **how)
    assert isinstance(found, Rejection)
    return found.reason, found.detail


@pytest.mark.parametrize(
    "wrap", [lambda document: document, lambda document: {"schema": None, "payload": document}]
)
def test_a_change_is_a_write_with_or_without_its_wrapper(wrap: Any) -> None:
    write = written(wrap(envelope()))
    assert (write.request_id, write.side, write.ts) == ("r-1", "main", TS + 0.25)
    assert (write.entity, write.key, write.op, write.seq) == ("news", "7", "insert", None)
    assert json.loads(raw_bytes(write.data) or b"") == {"id": 7, "title": "t", "price": 1.1}
    assert raw_bytes(write.before) is None


@pytest.mark.parametrize(("op", "name"), [("c", "insert"), ("r", "insert"), ("u", "update"), ("d", "delete")])
def test_every_kind_of_change_has_its_operation(op: str, name: str) -> None:
    assert written(envelope(op=op)).op == name


def test_a_deletion_is_known_by_the_row_before() -> None:
    write = written(envelope(op="d", before=ROW, after=None))
    assert (write.request_id, write.key, raw_bytes(write.data)) == ("r-1", "7", None)
    assert json.loads(raw_bytes(write.before) or b"") == {"id": 7, "title": "t", "price": 1.1}


def test_the_side_comes_from_the_topic() -> None:
    assert written(envelope(), source=Source.SHADOW_WRITES).side == "shadow"


@pytest.mark.parametrize("name", ["request_id", "REQUEST_ID", "x-request-id", "X-Request-ID"])
def test_the_request_id_may_come_from_a_header(name: str) -> None:
    row = {"id": 7, "request_id": None}
    assert written(envelope(after=row), headers=(("other", b"x"), (name, b"r-9"))).request_id == "r-9"


def test_the_column_of_the_request_id_is_a_setting_and_no_data() -> None:
    write = written(envelope(after={"id": 7, "rid": "r-3"}), request_id_column="rid")
    assert (write.request_id, raw_bytes(write.data)) == ("r-3", b'{"id":7}')


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"id": 7, "a": 1}, "7"),
        ({"a": "x", "uuid": "u-1"}, "u-1"),
        ({"id": True, "key": "k"}, "k"),
        ({"number": 5, "b": 1}, "5"),
        ({"point": {"x": 1}, "b": 2}, '{"b":2,"point":{"x":1}}'),
    ],
)
def test_the_key_is_the_column_that_is_one_by_its_name_or_place(row: dict[str, Any], key: str) -> None:
    assert written(envelope(after=row), headers=(("request_id", b"r"),)).key == key


def test_the_key_is_what_the_schema_requires_where_no_column_is_one_by_name() -> None:
    columns = [
        {"field": "b", "optional": False},
        {"field": "a", "optional": False},
        {"field": "c", "optional": True},
    ]
    document = {
        "schema": {"fields": [{"field": "before", "fields": columns}, {"field": "after", "fields": columns}]},
        "payload": envelope(after={"a": 1, "b": 2, "c": 3, "request_id": "r"}),
    }
    assert written(document).key == '{"a":1,"b":2}'


NO_SCHEMAS: list[Any] = [
    5,
    [],
    {"fields": 5},
    {"fields": [5]},
    {"fields": [{"field": "after", "fields": 7}]},
    {"fields": [{"field": "after", "fields": [{"field": [], "optional": False}]}]},
]


@pytest.mark.parametrize("schema", NO_SCHEMAS)
def test_a_schema_that_is_none_is_passed_over(schema: object) -> None:
    assert written({"schema": schema, "payload": envelope(after={"a": 1, "request_id": "r"})}).key == "1"


@pytest.mark.parametrize(
    ("document", "names"),
    [
        (envelope(after=None), "after, before"),
        (envelope(after={}), "after, before"),
        (envelope(after=[1]), "after, before"),
        (change_of(table=None), "source.table"),
        (change_of(table=5), "source.table"),
        (change_of(table=""), "source.table"),
        (envelope(source={"table": "t"}, ts_ms=None), "source.ts_ms"),
        (change_of(ts_ms="soon"), "source.ts_ms"),
        (change_of(ts_ms=True), "source.ts_ms"),
        (change_of(ts_ms=-5), "source.ts_ms"),
        (change_of(ts_ms=10**300), "source.ts_ms"),
        (envelope(after={"id": 1}), "request_id"),
        (envelope(after={"id": 1, "request_id": 5}), "request_id"),
        (envelope(op="t"), "op"),
    ],
)
def test_an_envelope_that_cannot_be_read_says_why(document: object, names: str) -> None:
    reason, detail = refusal(document)
    assert (reason, detail.startswith(names)) == ("invalid_envelope", True), detail


@pytest.mark.parametrize(
    "document",
    [envelope(op=[]), envelope(op={}), envelope(op=None), envelope(source=None), envelope(source=[]), {"payload": 5},
     {"payload": None}],
)  # fmt: skip
def test_what_is_neither_write_nor_envelope_is_refused_as_a_write(document: object) -> None:
    assert refusal(document)[0] in ("missing_field", "invalid_field")


def test_values_of_rows_are_checked_like_those_of_any_write() -> None:
    assert refusal(envelope(after={"id": 1, "request_id": "a b"}))[0] == "invalid_request_id"
    assert refusal(change_of(ts_ms=5))[0] == "invalid_ts"


def test_a_repeat_of_a_change_is_known_whenever_it_was_sent() -> None:
    first, again, other = (
        decoded(document) for document in (envelope(), envelope(ts_ms=1), change_of(lsn=101))
    )
    assert isinstance(first, Seen) and isinstance(again, Seen) and isinstance(other, Seen)
    assert first.digest == again.digest != other.digest
