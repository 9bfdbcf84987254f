"""Any bytes become one event or one rejection with a closed reason; lenient forms keep their meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from verifier.core.events import Edge, Event, Rejection, Response, Source, Write, raw_bytes
from verifier.core.partitioner import murmur2_partition
from verifier.stream.codec import REASONS, TS_MAX, Codec, CodecConfig
from verifier.stream.quick import READERS
from verifier.stream.wire import KEY_CHARS_MAX, TEXT_CHARS_MAX
from verifier.testing import TS, StubRecord, edge, record, response, source_of, write

CODEC = Codec(CodecConfig())
SECRET = "hunter2-secret"


def read(
    source: Source, value: dict[str, Any] | bytes | None, *, codec: Codec = CODEC, **at: Any
) -> Event | Rejection:
    made = record(value)
    stub = StubRecord(value=made.value, **at)
    events, rejections = codec.decode(source, 0, [stub])
    assert len(events) + len(rejections) == 1
    if rejections:
        assert rejections[0].reason in REASONS
        assert len(rejections[0].detail) <= 500
        return rejections[0]
    return events[0].event


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def with_raw(base: dict[str, Any], name: str, raw: bytes) -> bytes:
    """A record whose field holds a text that `json.dumps` would not write."""
    return json.dumps({**base, name: "@@"}).encode().replace(b'"@@"', raw)


E, R, W = edge("r"), response("r"), write("r")
NOT_RECORDS: list[tuple[str, bytes | None, str, str]] = [
    ("tombstone", None, "empty", "empty"),
    ("no bytes", b"", "empty", "empty"),
    ("garbage", b"\x00\x01garbage", "invalid_json", "JSON"),
    ("not UTF-8", b'{"request_id":"\xff"}', "invalid_utf8", "byte 15"),
    ("a raw surrogate", with_raw(R, "body", b'"\xed\xa0\x80"'), "invalid_utf8", "byte"),
    ("an escaped lone surrogate", with_raw(R, "body", b'"\\ud800"'), "invalid_json", "JSON"),
    ("an escaped lone low surrogate", with_raw(R, "body", b'"\\udc00 and on"'), "invalid_json", "JSON"),
    ("cut off", json.dumps(R).encode()[:-5], "invalid_json", "JSON"),
    ("more after it", json.dumps(R).encode() + b"x", "invalid_json", "JSON"),
    ("a text", b'"text"', "not_an_object", "object"),
    ("null", b"null", "not_an_object", "object"),
    ("an array", b"[1,2]", "not_an_object", "object"),
    ("NaN in the body", with_raw(R, "body", b"NaN"), "invalid_json", "JSON"),
    ("Infinity in the body", with_raw(R, "body", b"[Infinity]"), "invalid_json", "JSON"),
    ("NaN as time", with_raw(R, "ts", b"NaN"), "invalid_json", "JSON"),
    ("a time no double holds", with_raw(R, "ts", b"1e999"), "invalid_field", "ts"),
    ("nested 10,000 deep", with_raw(R, "body", nested(10_000)), "too_deep", "512"),
    ("nested 100,000 deep", with_raw(R, "unknown", nested(100_000)), "too_deep", "512"),
    ("nested just too deep", with_raw(R, "body", nested(512)), "too_deep", "512"),
    ("only openings", b'{"a":' * 100_000, "too_deep", "512"),
    ("an empty object", b"{}", "missing_field", "request_id"),
]


@pytest.mark.parametrize(
    ("value", "reason", "names"), [row[1:] for row in NOT_RECORDS], ids=[r[0] for r in NOT_RECORDS]
)
@pytest.mark.parametrize("source", [Source.MAIN_RESPONSES, Source.MAIN_WRITES])
def test_what_is_no_record_is_rejected_once(
    source: Source, value: bytes | None, reason: str, names: str
) -> None:
    if source is Source.MAIN_WRITES and value is not None and b'"body"' in value:
        value = value.replace(b'"path"', b'"key"').replace(b'"status": 200', b'"entity": "e", "op": "insert"')
    rejection = read(source, value)
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, names in rejection.detail) == (reason, True), rejection.detail


def test_depth_just_within_the_bound_is_read() -> None:
    assert isinstance(read(Source.MAIN_RESPONSES, with_raw(R, "body", nested(511))), Response)


@pytest.mark.parametrize("arrays", [0, 1, 3, 100, 256, 400, 510, 511])
def test_the_bound_on_depth_is_the_same_for_arrays_and_objects(arrays: int) -> None:
    def body(objects: int) -> bytes:
        inner = b'{"":' * (objects - 1) + b"{}" + b"}" * (objects - 1) if objects else b"0"
        return b"[" * arrays + inner + b"]" * arrays

    within, beyond = (with_raw(R, "body", body(most - arrays)) for most in (511, 512))
    assert isinstance(read(Source.MAIN_RESPONSES, within), Response)
    refused = read(Source.MAIN_RESPONSES, beyond)
    assert isinstance(refused, Rejection)
    assert refused.reason == "too_deep"


def test_brackets_inside_texts_are_no_nesting() -> None:
    assert isinstance(read(Source.MAIN_RESPONSES, response("r", body='["{' * 2_000)), Response)


def test_ten_megabytes_are_too_large() -> None:
    rejection = read(Source.MAIN_RESPONSES, response("r", body="x" * 10_000_000))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "too_large"


EMPTY: tuple[Any, ...] = (None, [], {})
WRONG: list[tuple[dict[str, Any], str, Any]] = [
    *((base, name, empty) for base in (E, R, W) for name in ("request_id", "side", "ts") for empty in EMPTY),
    *((base, "request_id", 7) for base in (E, R, W)),
    *((base, "ts", SECRET) for base in (E, R, W)),
    *((base, "ts", True) for base in (E, R, W)),
    *((base, "v", "1") for base in (E, R, W)),
    *((base, "route", 5) for base in (E, R, W)),
    *((base, "user_id", [SECRET]) for base in (E, R, W)),
    *((base, "idempotency_key", {"a": SECRET}) for base in (E, R, W)),
    (E, "method", 1), (E, "uri", None), (E, "upstream_addr", 5), (E, "host", 5),
    (E, "status", "abc"), (E, "status", 99), (E, "status", 1000), (E, "status", "1000"), (E, "status", -200),
    (E, "status", True), (E, "status", [200]), (E, "status", 200.5), (E, "status", "nan"), (E, "status", "1e2"),
    (E, "upstream_status", "502, abc"), (E, "upstream_time_s", "nan"), (E, "upstream_time_s", "inf"),
    (E, "request_time_s", "0x10"), (E, "request_time_s", {}), (E, "bytes_sent", "nan"), (E, "bytes_sent", "1_000"),
    (E, "shed", "yes"), (E, "shed", 2), (E, "shed", []), (E, "sampled", "no"), (E, "sampled", {}),
    (R, "method", None), (R, "path", 5), (R, "status", "200"), (R, "status", 99), (R, "status", 1000),
    (R, "status", None), (R, "status", 200.5), (R, "headers", []), (R, "headers", "a: b"), (R, "headers", 1),
    (R, "body_encoding", "gzip"), (R, "body_encoding", 1), (R, "body_truncated", "true"), (R, "duration_ms", "5"),
    (R, "writes", -1), (R, "writes", "2"), (R, "writes", 1.5), (R, "capture_gap", 7), (R, "capture_gap", []),
    (W, "entity", None), (W, "entity", 5), (W, "key", None), (W, "key", []), (W, "key", True), (W, "key", {}),
    (W, "op", "replace"), (W, "op", None), (W, "op", []), (W, "op", {}), (W, "seq", -1), (W, "seq", "0"),
    (W, "seq", 0.5), (W, "seq", 2**60), (W, "data", []), (W, "data", "text"), (W, "before", 5),
    (W, "operation", 5), (W, "status", "done"), (W, "status", 5),
]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "name", "wrong"), WRONG, ids=[f"{source_of(b).name}-{n}-{w!r}" for b, n, w in WRONG]
)
def test_a_wrong_field_is_rejected_by_its_name(base: dict[str, Any], name: str, wrong: object) -> None:
    rejection = read(source_of(base), {**base, name: wrong})
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "invalid_field"
    assert name in rejection.detail
    assert SECRET not in rejection.detail


@pytest.mark.parametrize(
    ("base", "name"),
    [(base, name) for base, names in (
        (E, ("request_id", "side", "ts", "method", "uri")),
        (R, ("request_id", "side", "ts", "method", "path", "status")),
        (W, ("request_id", "side", "ts", "entity", "key", "op")),
    ) for name in names],
)  # fmt: skip
def test_a_missing_field_is_rejected_by_its_name(base: dict[str, Any], name: str) -> None:
    rejection = read(source_of(base), {key: value for key, value in base.items() if key != name})
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "missing_field"
    assert f"`{name}`" in rejection.detail


@pytest.mark.parametrize("request_id", ["", "a b", "é", "x" * 129, "a/b", "a\n", "-" * 128 + "\n"])
def test_request_ids_are_of_a_closed_alphabet(request_id: str) -> None:
    rejection = read(Source.EDGE, edge(request_id))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "invalid_request_id"


def test_request_ids_of_all_allowed_characters_are_read() -> None:
    assert isinstance(read(Source.EDGE, edge("Az09._:-" * 16)), Edge)


@pytest.mark.parametrize(
    ("source", "side", "fine"),
    [(source, side, side in fine) for source, fine in (
        (Source.EDGE, ("main", "shadow", "canary")),
        (Source.MAIN_RESPONSES, ("main", "reference")),
        (Source.SHADOW_RESPONSES, ("shadow", "canary")),
        (Source.MAIN_WRITES, ("main", "reference")),
        (Source.SHADOW_WRITES, ("shadow", "canary")),
    ) for side in ("main", "shadow", "canary", "reference", "Main", "other", "")],
)  # fmt: skip
def test_each_topic_has_its_sides(source: Source, side: str, *, fine: bool) -> None:
    base = E if source is Source.EDGE else R if "RESPONSES" in source.name else W
    found = read(source, {**base, "side": side})
    assert isinstance(found, Rejection) is not fine
    if isinstance(found, Rejection):
        assert found.reason == "unknown_side"
        assert found.detail.startswith("side:")


@pytest.mark.parametrize("ts", [0, -1, 946_684_799, TS * 1000, TS * 1e6, TS_MAX + 1, 1e300])
@pytest.mark.parametrize("timestamp", [0, -1, int(TS * 1000)])
def test_times_in_another_unit_or_far_away_are_rejected(ts: float, timestamp: int) -> None:
    rejection = read(Source.EDGE, edge("r", ts=ts), timestamp=timestamp)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "invalid_ts"
    assert rejection.detail.startswith("ts:")


@pytest.mark.parametrize(("ahead_s", "fine"), [(86_400.0, True), (86_400.5, False), (-400_000_000.0, True)])
def test_times_may_be_a_day_ahead_of_the_broker(ahead_s: float, *, fine: bool) -> None:
    found = read(Source.EDGE, edge("r", ts=TS + ahead_s), timestamp=int(TS * 1000))
    assert isinstance(found, Edge) is fine


@pytest.mark.parametrize(
    ("said", "read_as"),
    [("rate", "rate"), ("in_flight", "in_flight"), ("hop_unreachable", "hop_unreachable"), ("moon phase", "other"),
     (7, "other"), ({"a": 1}, "other"), ("", None), (None, None)],
)  # fmt: skip
def test_a_reason_for_shedding_is_one_of_a_few_and_refuses_no_record(
    said: object, read_as: str | None
) -> None:
    event = read(Source.EDGE, {**E, "shed": True, "shed_reason": said})
    assert isinstance(event, Edge)
    assert (event.shed, event.shed_reason) == (True, read_as)


@pytest.mark.parametrize("version", [2, 0, -1])
def test_other_versions_are_rejected(version: int) -> None:
    for base in (E, R, W):
        rejection = read(source_of(base), {**base, "v": version})
        assert isinstance(rejection, Rejection)
        assert rejection.reason == "unsupported_version"


@pytest.mark.parametrize("version", [1, None])
def test_the_first_version_may_be_said_or_left_out(version: int | None) -> None:
    assert isinstance(read(Source.EDGE, {**E, "v": version}), Edge)


@pytest.mark.parametrize("encoding", ["text", "base64"])
@pytest.mark.parametrize("body", [{"a": 1}, [1], 5, True])
def test_an_encoded_body_must_be_a_text(encoding: str, body: object) -> None:
    rejection = read(Source.MAIN_RESPONSES, response("r", body=body, body_encoding=encoding))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "invalid_field"
    assert "body" in rejection.detail


@pytest.mark.parametrize("body", ["text", None])
def test_an_encoded_body_may_be_a_text_or_absent(body: object) -> None:
    assert isinstance(read(Source.MAIN_RESPONSES, response("r", body=body, body_encoding="text")), Response)


def test_a_key_on_the_wrong_partition_is_rejected_with_the_cure() -> None:
    codec = Codec(CodecConfig(partitions=16))
    wrong = next(f"r{n}" for n in range(100) if murmur2_partition(16)(f"r{n}") != 0)
    rejection = read(Source.EDGE, edge(wrong), codec=codec)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "wrong_partition"
    assert "murmur2_random" in rejection.detail
    right = next(f"r{n}" for n in range(100) if murmur2_partition(16)(f"r{n}") == 0)
    assert isinstance(read(Source.EDGE, edge(right), codec=codec), Edge)


def test_a_bad_record_leaves_its_neighbours_alone() -> None:
    values = [record(E).value, b"garbage", record({**E, "ts": None}).value, record(edge("r2")).value]
    events, rejections = CODEC.decode(
        Source.EDGE, 0, [StubRecord(offset=7 + n, value=v) for n, v in enumerate(values)]
    )
    assert [seen.offset for seen in events] == [7, 10]
    assert [rejection.offset for rejection in rejections] == [8, 9]


# -- lenient forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "read_as"),
    [("", None), ("-", None), (None, None), (200, 200), ("200", 200), (200.0, 200), ("502, 200", 200),
     ("502 : 200", 200),
     ("502, 503 : 200", 200), ("502, -", None), ("-, 200", 200), ("000", None), (0, None), ("200.0", 200)],
)  # fmt: skip
def test_statuses_as_nginx_writes_them(given: object, read_as: int | None) -> None:
    found = read(Source.EDGE, edge("r", status=given, upstream_status=given))
    assert isinstance(found, Edge)
    assert (found.status, found.upstream_status) == (read_as, read_as)


@pytest.mark.parametrize(
    ("given", "read_as"),
    [("", None), ("-", None), (None, None), (0.004, 0.004), ("0.004", 0.004), ("0.100, 0.004", 0.004),
     ("0.100 : 0.004", 0.004), (0, 0), (-1, None), (1e300, None), (10**30, None)],
)  # fmt: skip
def test_amounts_as_nginx_writes_them(given: object, read_as: float | None) -> None:
    found = read(Source.EDGE, edge("r", upstream_time_s=given, request_time_s=given))
    assert isinstance(found, Edge)
    assert (found.upstream_time_s, found.request_time_s) == (read_as, read_as)


@pytest.mark.parametrize(
    ("given", "read_as"), [("", None), ("-", None), ("5123", 5123), (10**30, None), (7.0, 7)]
)
def test_bytes_as_nginx_writes_them(given: object, read_as: int | None) -> None:
    found = read(Source.EDGE, edge("r", bytes_sent=given))
    assert isinstance(found, Edge)
    assert found.bytes_sent == read_as


@pytest.mark.parametrize(
    ("given", "read_as"),
    [(True, True), (1, True), ("1", True), ("true", True), (False, False), (0, False), ("0", False), ("false", False),
     ("", None), ("-", None), (None, None)],
)  # fmt: skip
def test_flags_as_nginx_writes_them(given: object, *, read_as: bool | None) -> None:
    found = read(Source.EDGE, edge("r", shed=given, sampled=given))
    assert isinstance(found, Edge)
    assert found.shed is (False if read_as is None else read_as)
    assert found.sampled is (True if read_as is None else read_as)


def test_unknown_fields_are_no_reason_to_refuse() -> None:
    for base in (E, R, W):
        assert not isinstance(read(source_of(base), {**base, "color": {"a": [1]}, "pid": 7}), Rejection)


def test_a_duration_that_cannot_be_is_unknown() -> None:
    for duration_ms, read_as in ((12.5, 12.5), (-0.1, None), (1e12, None)):
        found = read(Source.MAIN_RESPONSES, response("r", duration_ms=duration_ms))
        assert isinstance(found, Response)
        assert found.duration_ms == read_as


@pytest.mark.parametrize(
    ("given", "read_as"),
    [("text", "text"), (None, None), ({"code": 5}, '{"code": 5}'), (5, "5"), ("", "")],
)
def test_an_error_may_be_any_value(given: object, read_as: str | None) -> None:
    found = read(Source.SHADOW_RESPONSES, response("r", "shadow", error=given))
    assert isinstance(found, Response)
    assert found.error == read_as


@pytest.mark.parametrize(
    ("given", "read_as"), [(True, "unspecified"), (False, None), ("", None), ("cut", "cut")]
)
def test_a_gap_may_be_named_or_only_owned_up_to(given: object, read_as: str | None) -> None:
    found = read(Source.MAIN_RESPONSES, response("r", capture_gap=given))
    assert isinstance(found, Response)
    assert found.capture_gap == read_as


def test_null_parts_count_as_absent() -> None:
    found = read(Source.MAIN_WRITES, write("r", data=None, before=None, seq=None, status=None))
    assert isinstance(found, Write)
    assert (raw_bytes(found.data), raw_bytes(found.before), found.seq, found.status) == (
        None,
        None,
        None,
        "applied",
    )


# -- keys and texts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b'"k"', "k"), (b'""', ""), (b"7", "7"), (b"-7", "-7"), (b"10", "10"), (b"1.0", "1"), (b"1e1", "10"),
     (b"1.50", "1.5"), (b"0.10000000000000001", "10000000000000001e-17"),
     (b"12345678901234567890", "12345678901234567890"),
     (b"1e999", "1e999"), (b"9" * 5000, None), (rb'"\u00e9"', "é"), ('"é"'.encode(), "é"),
     (b'{"b": 2, "a": "x"}', '{"a":"x","b":2}'), (b'{"b":2.0,"a":10}', '{"a":10,"b":2}'),
     ('{"ü": "é"}'.encode(), '{"ü":"é"}'), (b'{"a":{"c":[1,null]}}', '{"a":{"c":[1,null]}}')],
)  # fmt: skip
def test_a_key_has_one_text(raw: bytes, text: str | None) -> None:
    found = read(Source.MAIN_WRITES, with_raw(W, "key", raw))
    assert isinstance(found, Write)
    if text is None:
        assert len(found.key) == KEY_CHARS_MAX
    else:
        assert found.key == text


def test_long_texts_are_bounded_and_stay_different() -> None:
    texts = ["x" * 5000 + end for end in "ab"]
    found = [
        read(Source.MAIN_WRITES, write("r", entity=t, key=t, user_id=t, idempotency_key=t, operation=t))
        for t in texts
    ]
    kept = [
        {e.entity, e.key, e.user_id, e.idempotency_key, e.operation} for e in found if isinstance(e, Write)
    ]
    assert len(kept) == 2 and not kept[0] & kept[1]
    assert {len(text) for texts in kept for text in texts if text} == {TEXT_CHARS_MAX, KEY_CHARS_MAX}


@pytest.mark.parametrize(
    ("given", "read_as"), [(42, "42"), ("", None), ("-", None), ("u", "u"), (10**40, "1" + "0" * 40)]
)
def test_ids_may_be_numbers(given: object, read_as: str | None) -> None:
    found = read(Source.EDGE, edge("r", user_id=given, idempotency_key=given))
    assert isinstance(found, Edge)
    assert (found.user_id, found.idempotency_key) == (read_as, read_as)


def test_equal_bytes_have_equal_digests_and_others_do_not() -> None:
    values = [record(made).value for made in (E, E, {**E, "pid": 1})]
    seen, _ = CODEC.decode(Source.EDGE, 0, [StubRecord(offset=n, value=v) for n, v in enumerate(values)])
    assert seen[0].digest == seen[1].digest != seen[2].digest


def test_a_defect_of_the_reader_rejects_the_record_and_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> Edge:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr("verifier.stream.codec.read_edge", fail)
    monkeypatch.setitem(READERS, Source.EDGE, fail)
    rejection = read(Source.EDGE, E)
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, "ZeroDivisionError" in rejection.detail) == ("reader_failed", True)
    assert SECRET not in rejection.detail


def test_a_defect_of_the_quick_reader_alone_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(Source.EDGE, E)

    def fail(_: object) -> Edge:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setitem(READERS, Source.EDGE, fail)
    assert read(Source.EDGE, E) == whole


NGINX = (
    b'{"v":1,"request_id":"r","side":"main","ts":1767225600.123,"method":"GET","uri":"/a?b=1","status":200,'
    b'"upstream_status":"200","upstream_addr":"10.0.0.1:80","upstream_time_s":"0.012","request_time_s":0.013,'
    b'"bytes_sent":1843,"host":"a.example","user_id":"","idempotency_key":"-","sampled":true}'
)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (Source.EDGE, NGINX),
        (
            Source.EDGE,
            NGINX.replace(b'"bytes_sent":1843', b'"bytes_sent":"1843"').replace(b"main", b"shadow"),
        ),
        (Source.EDGE, json.dumps(E).encode()),
        (Source.MAIN_RESPONSES, json.dumps({**R, "v": 1, "body_encoding": "json", "user_id": ""}).encode()),
        (Source.SHADOW_RESPONSES, json.dumps({**R, "side": "shadow", "body": "Grüße"}).encode()),
        (Source.MAIN_WRITES, json.dumps({**W, "key": "a", "idempotency_key": "", "v": 1}).encode()),
        (Source.SHADOW_WRITES, json.dumps({**W, "side": "canary", "key": 7}).encode()),
    ],
)
def test_the_usual_forms_are_read_quickly(source: Source, value: bytes) -> None:
    event = READERS[source](value)
    assert event is not None
    assert event == read(source, value)
