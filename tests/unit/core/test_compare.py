"""Answers compared: what is a difference, what is none, and what nobody can tell."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from verifier.core.compare import Limits, compare_responses, compare_status
from verifier.core.difference import NOTHING, Comparison
from verifier.core.events import Response
from verifier.core.mapping import IdMapping
from verifier.core.policy import Policy, rule_from_dict

JSON = {"content-type": "application/json"}
POLICY = Policy.default()
NOT_GIVEN: Any = object()


def answer(
    body: Any = NOT_GIVEN, *, headers: Any = NOT_GIVEN, raw: bytes | None = None, **fields: Any
) -> Response:
    """A response whose body and headers are given as Python values, or as raw JSON."""
    given = raw if raw is not None else None if body is NOT_GIVEN else json.dumps(body).encode()
    values: dict[str, Any] = {
        "request_id": "r", "side": "main", "ts": 1.0, "method": "GET", "path": "/x", "status": 200,
        "body": UNSET if given is None else Raw(given),
        "headers": UNSET if headers is NOT_GIVEN else Raw(json.dumps(headers).encode()),
    }  # fmt: skip
    return Response(**values | fields)


def compared(main: Response, other: Response, *rules: dict[str, Any], **options: Any) -> Comparison:
    policy = Policy.default([rule_from_dict(rule) for rule in rules]) if rules else POLICY
    return compare_responses(main, other, route="GET /x", policy=policy, **options)


def found(comparison: Comparison) -> list[tuple[str, str, str]]:
    return [(each.kind, each.path, each.change) for each in comparison.differences]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def bodies(main: str, other: str, *rules: dict[str, Any]) -> list[tuple[str, str]]:
    """Compare two raw JSON bodies and return the path and change of each difference."""
    one, two = (answer(raw=text.encode(), headers=JSON) for text in (main, other))
    comparison = compared(one, two, *rules)
    assert comparison.doubts == ()
    return [(each.path, each.change) for each in comparison.differences]


@pytest.mark.parametrize(
    ("main", "other"),
    [
        ('{"a":1,"b":2}', '{ "b" : 2, "a" : 1 }'),
        ("1.0", "1"),
        ("1e0", "1.00"),
        ("100", "1e2"),
        ("-0", "0.0"),
        ("-0.50", "-5e-1"),
        ("0.025", "25E-3"),
        ("1e999", "10e998"),
        ("123456789012345678901234567890", "123456789012345678901234567890.0"),
        ("1" * 5000, "1" * 5000 + ".0"),
        ('"\\u00e9"', '"é"'),
        ('{"a":1,"a":2}', '{"a": 1, "a": 2}'),
        ('"{\\"a\\":1}"', '"{ \\"a\\": 1.0 }"'),
        ("[" * 150 + "1.0" + "]" * 150, "[" * 150 + "1" + "]" * 150),
    ],
)
def test_the_same_json_in_another_notation_is_equal(main: str, other: str) -> None:
    assert bodies(main, other) == []


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        ("0.1", "0.10000000000000001", [("", "value")]),
        ("9007199254740993", "9007199254740992", [("", "value")]),
        ("1e999", "1e998", [("", "value")]),
        ("1" * 5000, "1" * 4999 + "2", [("", "value")]),
        ("true", "1", [("", "type")]),
        ("false", "0", [("", "type")]),
        ("[true]", "[1]", [("/0", "type")]),
        ('{"a":[1,{"b":true}]}', '{"a":[1,{"b":1}]}', [("/a/1/b", "type")]),
        ('"1"', "1", [("", "type")]),
        ('{"a":null}', "{}", [("/a", "missing")]),
        ('{"a":null}', '{"a":0}', [("/a", "type")]),
        ("{}", '{"a":null}', [("/a", "extra")]),
        ('{"a":{"b":[1,2]}}', '{"a":{"b":[1,3]}}', [("/a/b/1", "value")]),
        ('{"a/b":1,"m~n":1}', '{"a/b":2,"m~n":2}', [("/a~1b", "value"), ("/m~0n", "value")]),
        ('{"":1}', '{"":2}', [("/", "value")]),
        ('"\\u00e9"', '"e\\u0301"', [("", "value")]),
        ('"{\\"a\\":1}"', '{"a":1}', [("", "type")]),
        ('"{\\"a\\":1}"', '"{\\"a\\":2}"', [("/a", "value")]),
        ('"[1"', '"[2"', [("", "value")]),
        ('{"a":1,"a":2}', '{"a":2}', [("/a", "duplicate")]),
        ('{"a":1,"a":2}', '{"a":3,"a":2}', [("/a", "duplicate")]),
        ('{"a":2}', '{"a":2,"a":3}', [("/a", "value"), ("/a", "duplicate")]),
        ('{"x":[{"a":1,"a":2}]}', '{"x":[{"a":2}]}', [("/x/0/a", "duplicate")]),
        ("{}", "[]", [("", "type")]),
        ("null", "{}", [("", "type")]),
    ],
)
def test_a_difference_of_json_is_found_where_it_is(
    main: str, other: str, expected: list[tuple[str, str]]
) -> None:
    assert bodies(main, other) == expected


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        ("[1,2,3,4]", "[1,3,4]", [("/1", "missing")]),
        ("[1,2,3]", "[0,1,2,3]", [("/0", "extra")]),
        ("[1,2,3]", "[3,2,1]", [("", "order")]),
        ("[1,2,3,4]", "[2,1,3,5]", [("", "order"), ("/3", "value")]),
        ("[1,2,3,4,5,6]", "[1,9,3,4,8,6]", [("/1", "value"), ("/4", "value")]),
        ("[1,2,3,4,5]", "[2,3,4,5,6]", [("/0", "missing"), ("/4", "extra")]),
        ("[1,1,1]", "[1,1]", [("/2", "missing")]),
        ("[]", "[1,2]", [("/0", "extra"), ("/1", "extra")]),
        ('[{"id":1,"v":1},{"id":2,"v":2}]', '[{"id":2,"v":3}]', [("/0", "missing"), ("/1/v", "value")]),
        (
            '[{"id":1,"v":1},{"id":2,"v":2},{"id":3,"v":3}]', '[{"id":3,"v":3},{"id":2,"v":2},{"id":1,"v":9}]',
            [("", "order"), ("/0/v", "value")],
        ),
        ('[{"v":1,"w":1},{"v":2,"w":2}]', '[{"v":0,"w":0},{"v":1,"w":1},{"v":2,"w":3}]',
            [("/1/w", "value"), ("/0", "extra")]),
        ("[[1,2],[3]]", "[[1,2],[4]]", [("/1/0", "value")]),
    ],
)  # fmt: skip
def test_one_insertion_is_one_difference(main: str, other: str, expected: list[tuple[str, str]]) -> None:
    assert sorted(bodies(main, other)) == sorted(expected)


def test_an_index_is_a_star_in_the_field_and_names_are_not() -> None:
    main, other = (answer({"items": [{"0": value}]}, headers=JSON) for value in (1, 2))
    difference = compared(main, other).differences[0]
    assert (difference.path, difference.field) == ("/items/0/0", "/items/*/0")
    assert (difference.main, difference.shadow) == (1, 2)


def test_beyond_the_bound_arrays_are_compared_by_index_and_their_length_is_named_once() -> None:
    main, other = answer([*range(60)], headers=JSON), answer([*range(100, 30, -1)], headers=JSON)
    limits = Limits(align_bytes_max=10, differences_max=1000)
    changes = [each.change for each in compared(main, other, limits=limits).differences]
    assert changes.count("value") == 59  # 50 stands at the same place
    assert changes.count("length") == 1
    assert len(changes) == 60


@pytest.mark.parametrize("depth", [250, 5_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_nesting_beyond_the_bound_is_compared_as_one_value(depth: int, brackets: str) -> None:
    opening, closing = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    texts = [opening * depth + leaf + closing * depth for leaf in ("1", "1.0", "2")]
    one, same, different = (answer(text, headers=JSON, body_encoding="text") for text in texts)
    assert compared(one, same) is NOTHING
    differences = compared(one, different).differences
    assert len(differences) == 1
    assert differences[0].path.count("/") == 200
    msgspec.json.encode(differences)


def test_what_nests_too_deep_to_be_read_is_a_doubt() -> None:
    texts = ["[" * 30_000 + leaf + "]" * 30_000 for leaf in ("1", "2")]
    one, two = (answer(text, headers=JSON, body_encoding="text") for text in texts)
    assert compared(one, two).doubts == ("body_too_deep",)
    assert compared(one, answer([1], headers=JSON)).doubts == ("body_too_deep",)
    assert compared(one, one) is NOTHING


@pytest.mark.parametrize("raw", [b'"\xff"', b'{"a":"\xff"}', b"[", b"", b"nul", b"{'a':1}", b"\xef\xbb\xbf1"])
def test_what_is_not_json_is_compared_all_the_same(raw: bytes) -> None:
    assert compared(answer(raw=raw, headers=JSON), answer(raw=raw + b" ", headers=JSON)) is not None
    assert compared(answer(raw=raw, headers=JSON), answer(raw=b'{"z":1}', headers=JSON)).differences


def test_lone_surrogates_are_compared_and_shown_without_harm() -> None:
    main, other = (
        answer(raw=rb'{"\ud800%s":"\udfff%s"}' % (x, y), headers=JSON) for x, y in ((b"", b"1"), (b"", b"2"))
    )
    comparison = compared(main, other)
    assert [each.change for each in comparison.differences] == ["value"]
    msgspec.json.encode(comparison)


@pytest.mark.parametrize(
    ("main", "other"),
    [
        ({}, {"body": "", "body_encoding": "text"}),
        ({}, {"body": "", "body_encoding": "base64"}),
        ({"body": "", "body_encoding": "text"}, {"body": "", "body_encoding": "base64"}),
        ({}, {"body": ""}),
    ],
)
def test_an_absent_body_equals_an_empty_one(main: dict[str, Any], other: dict[str, Any]) -> None:
    assert compared(answer(**main), answer(**other)) is NOTHING
    assert compared(answer(**other), answer(**main)) is NOTHING


@pytest.mark.parametrize("body", [None, 0, [], {}, "text", False])
def test_an_empty_body_is_not_a_value(body: Any) -> None:
    assert found(compared(answer(), answer(body, headers=JSON))) == [("body", "", "extra")]
    assert found(compared(answer(body, headers=JSON), answer())) == [("body", "", "missing")]


def test_an_empty_json_string_is_a_body_under_a_json_type_only() -> None:
    assert found(compared(answer(headers=JSON), answer("", headers=JSON))) == [("body", "", "extra")]
    html = {"content-type": "text/html"}
    assert compared(answer(headers=html), answer("", headers=html)) is NOTHING


@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_the_way_of_capturing_makes_no_difference(encoding: str) -> None:
    value = {"a": [1, 2.50, "é"], "b": None}
    text = json.dumps(value, indent=2, ensure_ascii=False)
    captured = text if encoding == "text" else b64(text.encode())
    assert (
        compared(answer(value, headers=JSON), answer(captured, body_encoding=encoding, headers=JSON))
        is NOTHING
    )
    other = captured.replace("2.5", "2.6") if encoding == "text" else b64(text.replace("2.5", "2.6").encode())
    comparison = compared(answer(value, headers=JSON), answer(other, body_encoding=encoding, headers=JSON))
    assert found(comparison) == [("body", "/a/1", "value")]


def test_a_wrong_content_type_is_a_header_difference_and_the_body_is_compared_as_json() -> None:
    html = {"content-type": "text/html"}
    same = compared(answer({"a": 1}, headers=JSON), answer('{ "a": 1 }', body_encoding="text", headers=html))
    assert found(same) == [("header", "content-type", "value")]
    missing = compared(answer({"a": 1}, headers=JSON), answer('{ "a": 2 }', body_encoding="text", headers={}))
    assert found(missing) == [("header", "content-type", "missing"), ("body", "/a", "value")]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw-deflate"])
def test_compressed_bodies_are_compared_by_what_they_hold(coding: str) -> None:
    def packed(value: Any) -> Response:
        data = json.dumps(value).encode()
        if coding == "gzip":
            data = gzip.compress(data)
        else:
            data = zlib.compress(data)[2:-4] if coding == "raw-deflate" else zlib.compress(data)
        headers = JSON | {"content-encoding": coding.removeprefix("raw-")}
        return answer(b64(data), body_encoding="base64", headers=headers)

    plain = compared(answer({"a": 1}, headers=JSON), packed({"a": 1}))
    assert found(plain) == [("header", "content-encoding", "extra")]
    assert found(compared(packed({"a": 1}), packed({"a": 2}))) == [("body", "/a", "value")]


def test_a_decompression_bomb_is_a_doubt() -> None:
    headers = {"content-encoding": "gzip"}
    one, two = [answer(b64(gzip.compress(mark + b"0" * 3_000_000)), body_encoding="base64", headers=headers)
             for mark in (b"1", b"2")]  # fmt: skip
    assert compared(one, two).doubts == ("body_too_large",)
    roomy = Limits(inflate_ratio_max=100_000)
    assert found(compared(one, two, limits=roomy)) == [("body", "", "value")]


def test_a_coding_that_cannot_be_undone_is_a_doubt_unless_the_bytes_are_equal() -> None:
    one, two = (
        answer(b64(data), body_encoding="base64", headers={"content-encoding": "br"}) for data in (b"1", b"2")
    )
    assert compared(one, two).doubts == ("body_unreadable",)
    assert compared(one, one) is NOTHING


@pytest.mark.parametrize("fields", [{"body_encoding": "base64"}, {"body_encoding": "hex"}])
def test_an_unreadable_body_is_a_doubt_and_never_a_match(fields: dict[str, Any]) -> None:
    comparison = compared(answer("no base64!", **fields), answer("text", body_encoding="text", status=500))
    assert comparison.doubts == ("body_unreadable",)
    assert found(comparison) == [("status", "", "value")]


def test_compressed_data_with_more_behind_it_is_unreadable() -> None:
    headers = {"content-encoding": "deflate"}
    data = zlib.compress(b"text")
    whole, more = (
        answer(b64(each), body_encoding="base64", headers=headers) for each in (data, data + b"more")
    )
    assert compared(whole, more).doubts == ("body_unreadable",)


def test_the_same_text_in_another_encoding_is_another_body() -> None:
    text, data = (answer("aGk=", body_encoding=encoding) for encoding in ("text", "base64"))
    assert found(compared(text, data)) == [("body", "", "value")]
    assert compared(answer("hi", body_encoding="text"), data) is NOTHING


def test_binary_bodies_are_compared_by_digest() -> None:
    one, two = (answer(b64(b"\xff\xfe" + data), body_encoding="base64") for data in (b"1", b"2"))
    difference = compared(one, two).differences[0]
    assert (difference.path, difference.change) == ("", "value")
    assert difference.main["$bytes"]["length"] == 3
    assert difference.main != difference.shadow


def test_a_long_text_shows_where_it_differs() -> None:
    one, two = (answer("x" * 5000 + tail, body_encoding="text") for tail in ("a", "b"))
    difference = compared(one, two).differences[0]
    assert difference.main["$excerpt"]["differs_at"] == 5000
    assert difference.main["$excerpt"]["text"].endswith("xa")
    short = compared(answer("OK", body_encoding="text"), answer("ok", body_encoding="text")).differences[0]
    assert (short.main, short.shadow) == ("OK", "ok")


def test_forms_are_compared_field_by_field() -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}

    def of(text: str) -> Response:
        return answer(text, body_encoding="text", headers=form)

    assert compared(of("a=1&b=2&b=3"), of("b=2&a=%31&b=3")) is NOTHING
    assert found(compared(of("a=1&b=2"), of("a=2&c="))) == [
        ("body", "/a", "value"), ("body", "/b", "missing"), ("body", "/c", "extra")]  # fmt: skip
    assert found(compared(of("a=%ff"), of("a=%fe"))) == [("body", "/a", "value")]
    assert found(compared(of("a=1&a=2"), of("a=2&a=1"))) == [("body", "/a", "order")]
    plain = answer("b=2&a=1", body_encoding="text", headers={"content-type": "text/plain"})
    assert found(compared(of("a=1&b=2"), plain)) == [
        ("header", "content-type", "value"),
        ("body", "", "value"),
    ]
    assert found(compared(of("a=1&b=2"), answer("b=2&a=1", body_encoding="text"))) == []


class TestTruncation:
    def test_equal_beginnings_are_a_doubt_and_never_a_match(self) -> None:
        one = answer("abc", body_encoding="text", body_truncated=True)
        assert compared(one, one).doubts == ("body_truncated",)
        assert compared(one, answer("abcdef", body_encoding="text")).doubts == ("body_truncated",)

    @pytest.mark.parametrize("other", ["abX", "ab", "aXc"])
    def test_a_text_that_cannot_have_had_this_beginning_differs(self, other: str) -> None:
        one = answer("abc", body_encoding="text", body_truncated=True)
        assert found(compared(one, answer(other, body_encoding="text"))) == [("body", "", "value")]

    def test_a_shorter_truncated_side_proves_nothing(self) -> None:
        one = answer("ab", body_encoding="text", body_truncated=True)
        two = answer("abc", body_encoding="text", body_truncated=True)
        assert compared(one, two).doubts == compared(two, one).doubts == ("body_truncated",)

    def test_a_beginning_of_json_proves_nothing(self) -> None:
        one = answer('{"a":1,"b', body_encoding="text", headers=JSON, body_truncated=True)
        two = answer('{"b":2, "a":1}', body_encoding="text", headers=JSON)
        comparison = compared(one, two)
        assert (comparison.differences, comparison.doubts) == ((), ("body_truncated",))

    def test_whole_documents_are_compared_and_stay_in_doubt(self) -> None:
        one = answer({"a": 1}, headers=JSON, body_truncated=True)
        assert found(compared(one, answer({"a": 2}, headers=JSON))) == [("body", "/a", "value")]
        assert compared(one, answer({"a": 1}, headers=JSON)).doubts == ("body_truncated",)

    def test_a_number_that_was_cut_is_not_taken_for_a_whole_one(self) -> None:
        one = answer("12", body_encoding="text", headers=JSON, body_truncated=True)
        assert compared(one, answer("123", body_encoding="text", headers=JSON)).doubts == ("body_truncated",)
        assert compared(one, answer("13", body_encoding="text", headers=JSON)).doubts == ("body_truncated",)

    def test_something_kept_differs_from_an_empty_body(self) -> None:
        one = answer("abc", body_encoding="text", body_truncated=True)
        assert found(compared(one, answer())) == [("body", "", "missing")]
        assert compared(answer(body_truncated=True), answer("abc", body_encoding="text")).doubts == (
            "body_truncated",
        )

    def test_a_rule_that_ignores_the_body_leaves_no_doubt_about_it(self) -> None:
        one = answer("abc", body_encoding="text", body_truncated=True)
        rule = {"kind": "body", "field": "**", "action": "ignore"}
        assert compared(one, one, rule).doubts == ()


def test_a_capture_gap_is_a_doubt_and_what_is_there_is_compared() -> None:
    gap = answer(side="shadow", capture_gap="response_dropped", body_truncated=True, status=500)
    comparison = compared(answer({"a": 1}, headers=JSON), gap)
    assert comparison.doubts == ("capture_gap:shadow.response_dropped",)
    assert found(comparison) == [("status", "", "value")]
    writes = answer({"a": 2}, side="shadow", headers=JSON, capture_gap="writes_dropped")
    comparison = compared(answer({"a": 1}, headers=JSON), writes)
    assert comparison.doubts == ("capture_gap:shadow.writes_dropped",)
    assert found(comparison) == [("body", "/a", "value")]


def test_statuses_alone_can_be_compared() -> None:
    assert compare_status(200, 200) is NOTHING
    difference = compare_status(200, 503).differences[0]
    assert (difference.kind, difference.path, difference.main, difference.shadow) == ("status", "", 200, 503)
    ignoring = Policy([rule_from_dict({"kind": "status", "action": "ignore"})])
    comparison = compare_status(200, 503, route="GET /x", policy=ignoring)
    assert (comparison.differences, len(comparison.ignored)) == ((), 1)


def test_the_number_of_differences_kept_is_bounded_and_the_rest_counted() -> None:
    main, other = ({str(n): value for n in range(150)} for value in (1, 2))
    comparison = compared(answer(main, headers=JSON), answer(other, headers=JSON))
    assert (len(comparison.differences), comparison.dropped) == (100, 50)
    everything = {"kind": "body", "field": "/**", "action": "ignore"}
    comparison = compared(answer(main, headers=JSON), answer(other, headers=JSON), everything)
    assert (len(comparison.ignored), comparison.ignored_dropped, comparison.dropped) == (100, 50, 0)


@pytest.mark.parametrize(
    "value", ["x" * 9000, "\x00" * 3000, ["y" * 50] * 200, {"a": {"b": ["z"] * 3000}}, "é" * 3000]
)
def test_a_large_value_is_cut_and_marked(value: Any) -> None:
    difference = compared(answer({"a": value}, headers=JSON), answer({}, headers=JSON)).differences[0]
    assert len(msgspec.json.encode(difference.main)) <= 2048
    assert difference.main["$cut"]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [(b"1.5", 1.5), (b"100", 100), (b"1e400", {"$number": "1e400"}), (b"9223372036854775807", 9223372036854775807),
     (b"0.10000000000000001", {"$number": "10000000000000001e-17"}), (b"true", True)],
)  # fmt: skip
def test_numbers_are_shown_exactly_or_marked(raw: bytes, shown: Any) -> None:
    main = answer(raw=b'{"a":%s}' % raw, headers=JSON)
    assert compared(main, answer({}, headers=JSON)).differences[0].main == shown


def test_secrets_are_compared_and_never_shown() -> None:
    main = answer(
        {"password": "one", "nested": {"Set_Cookie": "two"}}, headers=JSON | {"authorization": "three"}
    )
    other = answer({"password": "four"}, headers=JSON | {"authorization": "five"})
    comparison = compared(main, other)
    assert found(comparison) == [
        ("header", "authorization", "value"), ("body", "/password", "value"), ("body", "/nested", "missing")
    ]  # fmt: skip
    shown = msgspec.json.encode(comparison).decode()
    assert not [word for word in ("one", "two", "three", "four", "five") if f'"{word}"' in shown]
    assert comparison.differences[0].main == comparison.differences[0].shadow == "[redacted]"


def test_a_text_that_names_a_secret_is_shown_as_digest_only() -> None:
    one, two = (answer(f"password={word}", body_encoding="text") for word in ("hunter1", "hunter2"))
    shown = msgspec.json.encode(compared(one, two)).decode()
    assert "hunter" not in shown
    assert "sha256" in shown


class TestGeneratedIds:
    RULES = (
        {"kind": "body", "field": "/**/id", "action": "generated_id"},
        {"kind": "body", "field": "/**/ref", "action": "generated_id"},
        {"kind": "header", "field": "location", "action": "generated_id"},
    )

    def judged(
        self, main: Any, other: Any, mapping: IdMapping | None = None, **headers: tuple[str, str]
    ) -> Comparison:
        one, two = ({name: pair[side] for name, pair in headers.items()} for side in (0, 1))
        return compared(
            answer(main, headers=JSON | one), answer(other, headers=JSON | two), *self.RULES, mapping=mapping
        )

    def test_a_consistent_mapping_is_equality_and_stays_visible(self) -> None:
        comparison = self.judged(
            {"id": "A", "ref": "A"}, {"id": "B", "ref": "B"}, location=("/o/1A", "/o/2B")
        )
        assert comparison.differences == ()
        assert len(comparison.ignored) == 3

    @pytest.mark.parametrize(
        ("main", "other"),
        [
            ({"id": "A", "ref": "A"}, {"id": "B", "ref": "C"}),
            ({"id": "A", "ref": "D"}, {"id": "B", "ref": "B"}),
            ({"id": "A", "ref": "A"}, {"id": "B", "ref": "A"}),
            ({"id": "A", "ref": "A"}, {"id": "A", "ref": "B"}),
            ({"id": 1, "ref": "1"}, {"id": 2, "ref": "3"}),
            ({"id": "A"}, {"id": 7}),
            ({"id": "A"}, {"id": ""}),
            ({"id": "A"}, {"id": None}),
        ],
    )
    def test_a_broken_mapping_is_a_difference(self, main: Any, other: Any) -> None:
        assert self.judged(main, other).differences

    def test_an_id_of_a_header_must_fit_the_body(self) -> None:
        assert not self.judged({"id": 7}, {"id": 8}, location=("/o/7", "/o/8")).differences
        assert self.judged({"id": 7}, {"id": 8}, location=("/o/7", "/o/9")).differences
        assert self.judged({"id": 7}, {"id": 8}, location=("/o/7", "/o/7")).differences

    def test_another_host_or_collection_is_no_generated_id(self) -> None:
        assert self.judged({}, {}, location=("http://a1/o/7", "https://a1/o/7")).differences
        assert self.judged({}, {}, location=("/orders/7", "/order/7")).differences

    def test_identical_answers_stay_identical_and_bind_their_ids(self) -> None:
        mapping = IdMapping()
        assert self.judged({"id": "A"}, {"id": "A"}, mapping) is NOTHING
        assert not mapping.observe("A", "B")

    def test_spaces_keep_unrelated_sequences_apart(self) -> None:
        rules = [{"kind": "body", "field": f"/{name}", "action": "generated_id", "params": {"space": name}}
                 for name in ("user", "order")]  # fmt: skip
        one, two = (
            answer({"user": 1, "order": 1}, headers=JSON),
            answer({"user": 5, "order": 6}, headers=JSON),
        )
        assert compared(one, two, *rules).differences == ()
