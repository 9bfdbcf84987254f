"""What an adversary would try: pairs that look equal and are not, and pairs that look different and are not."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import zlib
from typing import Any

import pytest
from msgspec import UNSET, Raw

from verifier.core.compare import compare_responses
from verifier.core.difference import NOTHING, Comparison
from verifier.core.events import Response
from verifier.core.policy import Policy, rule_from_dict

JSON = {"content-type": "application/json"}
POLICY = Policy.default()


def answer(raw: str | bytes | None = None, headers: Any = None, **fields: Any) -> Response:
    """A response whose body is given as it stands in the record."""
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    values: dict[str, Any] = {
        "request_id": "r", "side": "main", "ts": 1.0, "method": "GET", "path": "/x", "status": 200,
        "body": UNSET if data is None else Raw(data),
        "headers": UNSET if headers is None else Raw(json.dumps(headers).encode()),
    }  # fmt: skip
    return Response(**values | fields)


def text_answer(text: str, headers: Any = None, **fields: Any) -> Response:
    return answer(json.dumps(text), headers, body_encoding="text", **fields)


def bytes_answer(data: bytes, headers: Any = None, **fields: Any) -> Response:
    return answer(f'"{base64.b64encode(data).decode()}"', headers, body_encoding="base64", **fields)


def compared(main: Response, other: Response, *rules: dict[str, Any]) -> Comparison:
    policy = Policy.default([rule_from_dict(rule) for rule in rules]) if rules else POLICY
    return compare_responses(main, other, route="GET /x", policy=policy)


def found(comparison: Comparison) -> list[tuple[str, str, str]]:
    assert comparison.doubts == ()
    return [(each.kind, each.path, each.change) for each in comparison.differences]


TURNED = {"missing": "extra", "extra": "missing"}
# Each value once, by its JSON type, in spellings that all mean the same.
VALUES = {
    "null": [["null"]],
    "boolean": [["true"], ["false"]],
    "number": [["1", "1.0", "10e-1", "0.1E+1"], ["0", "-0", "0.0", "-0e7"], ["1.5", "15e-1"], ["-1", "-1.0"],
               ["0.30000000000000004"], ["0.3", "0.30"], ["1e400"], ["9007199254740993"], ["9007199254740992"],
               ["100000000000000000000000", "1e23"], ["99999999999999991611392"]],
    "string": [
        *(['""'], ['"1"'], ['"1.0"'], ['"true"'], ['"null"'], ['"[]"'], ['"{}"'], ['"A"'], ['"a "'], ['"\\ud83d"']),
        *(['"é"', '"\\u00e9"', '"\\u00E9"'], ['"e\\u0301"'], ['"a"', '"\\u0061"'], ['"\\ud83d\\ude00"', '"😀"']),
        *(['"/"', '"\\/"'], ['"2026-01-01T00:00:00Z"'], ['"2026-01-01T00:00:00+00:00"'], ['"\\u0000"']),
    ],
    "array": [["[]", "[ ]"], ["[null]"], ["[[]]"], ["[0]", "[-0.0]"], ["[false]"]],
    "object": [["{}", "{ }"], ['{"a":null}'], ['{"a":1}', '{ "\\u0061" : 1.0 }'], ['{"a":true}'], ['{"A":1}']],
}  # fmt: skip
KNOWN = [(kind, spelt) for kind, values in VALUES.items() for spelt in values]


def test_every_value_equals_its_own_spellings_and_no_other_value() -> None:
    """At once for all pairs: alone, in an object and in an array, and with the sides exchanged."""
    for (kind, mine), (other_kind, theirs) in itertools.product(KNOWN, KNOWN):
        for template, path in (('{"x":%s,"z":[1]}', "/x"), ("[7,%s]", "/1")):
            for one, two in itertools.product(mine, theirs):
                comparison = compared(answer(template % one, JSON), answer(template % two, JSON))
                if mine is theirs:
                    assert comparison is NOTHING, (one, two)
                    continue
                differences = found(comparison)
                assert differences, (one, two)
                if kind not in ("array", "object") or kind != other_kind:
                    expected = "value" if kind == other_kind else "type"
                    assert differences == [("body", path, expected)], (one, two)
                assert all(each[1].startswith(path) for each in differences)


@pytest.mark.parametrize("spelt", [each[0] for _, each in KNOWN])
def test_a_missing_member_equals_no_value(spelt: str) -> None:
    with_it, without = answer(f'{{"a/~b":{spelt},"b":1}}', JSON), answer('{"b":1}', JSON)
    assert found(compared(with_it, without)) == [("body", "/a~1~0b", "missing")]
    assert found(compared(without, with_it)) == [("body", "/a~1~0b", "extra")]


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        # nested arrays: an element goes, comes, moves, is doubled
        ("[[1,2],[3,4]]", "[[3,4],[1,2]]", [("", "order")]),
        ("[[1,2],[3,4]]", "[[1,2],[4,3]]", [("/1", "order")]),
        ("[[1],[2],[3]]", "[[1],[3]]", [("/1", "missing")]),
        ("[[1],[2]]", "[[1],[2],[2]]", [("/2", "extra")]),
        ("[1,2,3]", "[1,2,2,3]", [("/2", "extra")]),
        ('{"a":[{"id":1},{"id":2}]}', '{"a":[{"id":2},{"id":1}]}', [("/a", "order")]),
        ('{"a":[{"id":1,"v":[1,2]}]}', '{"a":[{"id":1,"v":[2,1]}]}', [("/a/0/v", "order")]),
        ('[{"id":1},{"id":2},{"id":3}]', '[{"id":1},{"id":3}]', [("/1", "missing")]),
        # ids exchanged between two rows: the rows moved, or their content did; never nothing
        ('[{"id":1,"v":"a"},{"id":2,"v":"b"}]', '[{"id":2,"v":"a"},{"id":1,"v":"b"}]',
            [("", "order"), ("/0/v", "value"), ("/1/v", "value")]),
        # an id that is its neighbour's, too, names nothing
        ('[{"id":1,"v":1},{"id":1,"v":2}]', '[{"id":1,"v":1},{"id":1,"v":3}]', [("/1/v", "value")]),
        ('[{"id":1,"v":1},{"id":1,"v":2},{"id":2,"v":1}]', '[{"id":1,"v":2},{"id":2,"v":9}]',
            [("/0", "missing"), ("/2/v", "value")]),
        # numbers and texts as ids are not the same id
        ('[{"id":1},{"id":"2"}]', '[{"id":"1"},{"id":"2"}]', [("/0/id", "type")]),
        # names given twice
        ('{"a":1,"a":1}', '{"a":1}', [("/a", "duplicate")]),
        ('{"a":[{"b":1,"b":2}]}', '{"a":[{"b":2,"b":2}]}', [("/a/0/b", "duplicate")]),
        ('{"a":1,"\\u0061":2}', '{"a":2}', [("/a", "duplicate")]),
        # members with the strangest names
        ('{"":{"":1}}', '{"":{"":2}}', [("//", "value")]),
        ('{"~1":1,"/":1}', '{"~1":2,"/":2}', [("/~01", "value"), ("/~1", "value")]),
        ('{"0":1}', "[1]", [("", "type")]),
        ('{"a":{"0":1}}', '{"a":[1]}', [("/a", "type")]),
    ],
)  # fmt: skip
def test_json_is_told_apart(main: str, other: str, expected: list[tuple[str, str]]) -> None:
    mine, theirs = answer(main, JSON), answer(other, JSON)
    assert found(compared(mine, theirs)) == [("body", path, change) for path, change in expected]
    mirrored = [(each.change, each.shadow, each.main) for each in compared(theirs, mine).differences]
    assert sorted(map(repr, mirrored)) == sorted(
        repr((TURNED.get(each.change, each.change), each.main, each.shadow))
        for each in compared(mine, theirs).differences
    )


@pytest.mark.parametrize(
    ("mine", "theirs"),
    list(itertools.permutations([
        lambda text: answer(text, JSON),
        lambda text: answer(text, JSON, body_encoding="json"),
        lambda text: text_answer(text, JSON),
        lambda text: text_answer(" " + text.replace(",", " ,\n") + "\r\n", JSON),
        lambda text: bytes_answer(text.encode(), JSON),
    ], 2)),
)  # fmt: skip
def test_however_json_was_captured_it_is_compared_as_json(mine: Any, theirs: Any) -> None:
    text = '{"a":[1,2.50,"x"],"b":null}'
    assert compared(mine(text), theirs(text)) is NOTHING
    assert compared(mine(text), theirs('{"b":null,"a":[1.0,2.5,"x"]}')) is NOTHING
    assert found(compared(mine(text), theirs(text.replace("2.50", "2.51")))) == [("body", "/a/1", "value")]


@pytest.mark.parametrize("told", [{}, {"headers": {}}, {"headers": {"content-type": ""}}])
def test_text_of_no_known_type_that_is_json_on_both_sides_is_compared_as_json(told: dict[str, Any]) -> None:
    mine = text_answer('{"a": 1, "b": 2}', **told)
    assert compared(mine, text_answer('{"b":2,"a":1}', **told)) is NOTHING
    assert found(compared(mine, text_answer('{"b":3,"a":1}', **told))) == [("body", "/b", "value")]
    assert found(compared(mine, text_answer('{"a": 1, "b": 2', **told))) == [("body", "", "value")]
    assert found(compared(text_answer("1", **told), text_answer("1.0", **told))) == [("body", "", "value")]
    plain = {"content-type": "text/plain"}
    assert found(compared(text_answer('{"a": 1}', plain), text_answer('{"a":1}', plain))) == [
        ("body", "", "value")
    ]


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        ('{"a":1', '{"a":1', []),
        ('{"a":1', '{"a":2', [("body", "", "value")]),
        ('{"a":1', '{"a":1}', [("body", "", "value")]),
        ("{'a':1}", '{"a":1}', [("body", "", "value")]),
        ("NaN", "NaN", []),
        ("NaN", "null", [("body", "", "value")]),
        ("", "null", [("body", "", "extra")]),
        ("", '""', [("body", "", "extra")]),
        ("<html>", "{}", [("body", "", "value")]),
        ("\ufeff{}", "{}", [("body", "", "value")]),
        ("{}\n", "{}", []),
        ("01", "1", [("body", "", "value")]),
    ],
)
def test_what_says_it_is_json_and_is_not(main: str, other: str, expected: list[tuple[str, str, str]]) -> None:
    assert found(compared(text_answer(main, JSON), text_answer(other, JSON))) == expected
    turned = [(kind, path, TURNED.get(change, change)) for kind, path, change in expected]
    assert found(compared(text_answer(other, JSON), text_answer(main, JSON))) == turned


HTML = {"content-type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("main", "other"),
    [
        ("<p>a</p>", "<p>b</p>"), ("<p>a</p>", "<p>a</p>\n"), ("<p>a</p>\r\n", "<p>a</p>\n"), ("<P>", "<p>"),
        ("é", "e\u0301"),
        ("a", "a\u200b"), ("a b", "a\u00a0b"), ("null", ""), ("{}", "{ }"), ("1", "1.0"), ("true", "True"),
        ("x" * 70_000 + "a", "x" * 70_000 + "b"),
    ],
)  # fmt: skip
def test_texts_are_equal_only_to_the_letter(main: str, other: str) -> None:
    expected = ["missing"] if not other else ["value"]
    comparison = compared(text_answer(main, HTML), text_answer(other, HTML))
    assert [change for _, _, change in found(comparison)] == expected
    assert compared(text_answer(main, HTML), bytes_answer(main.encode(), HTML)) is NOTHING
    assert found(compared(text_answer(main, HTML), bytes_answer(other.encode(), HTML)))


class TestCompression:
    GZIP = JSON | {"content-encoding": "gzip"}
    TEXT = b'{"items":[1,2,3],"note":"' + b"long " * 50 + b'"}'

    @staticmethod
    def packed(data: bytes, level: int = 9, when: int = 1) -> bytes:
        return gzip.compress(data, level, mtime=when)

    def test_the_same_content_compressed_otherwise_is_the_same(self) -> None:
        one = bytes_answer(self.packed(self.TEXT), self.GZIP)
        for other in (
            self.packed(self.TEXT, 1),
            self.packed(self.TEXT, when=99),
            self.packed(self.TEXT[:9]) + self.packed(self.TEXT[9:]),
            self.packed(self.TEXT.replace(b",", b" , ")),
        ):
            assert compared(one, bytes_answer(other, self.GZIP)) is NOTHING
            assert compared(one, bytes_answer(other, {**JSON, "content-encoding": ["gzip"]})) is NOTHING

    def test_other_content_is_found_where_it_is(self) -> None:
        one = bytes_answer(self.packed(self.TEXT), self.GZIP)
        other = bytes_answer(self.packed(self.TEXT.replace(b"2", b"4")), self.GZIP)
        assert found(compared(one, other)) == [("body", "/items/1", "value")]
        html = {"content-type": "text/html", "content-encoding": "gzip"}
        one, other = (bytes_answer(self.packed(text), html) for text in (b"<p>1", b"<p>2"))
        assert found(compared(one, other)) == [("body", "", "value")]

    def test_compressed_against_plain_differs_in_the_header_alone(self) -> None:
        plain = answer(self.TEXT, JSON)
        for coding, data in (("gzip", self.packed(self.TEXT)), ("deflate", zlib.compress(self.TEXT))):
            other = bytes_answer(data, JSON | {"content-encoding": coding})
            assert found(compared(plain, other)) == [("header", "content-encoding", "extra")]

    def test_data_that_is_damaged_or_cut_off_is_a_doubt(self) -> None:
        whole = self.packed(self.TEXT)
        one = bytes_answer(whole, self.GZIP)
        for data in (whole[:-1], whole[:20], whole[:-5] + b"\0\0\0\0\0", whole + b"more"):
            comparison = compared(one, bytes_answer(data, self.GZIP))
            assert (comparison.differences, comparison.doubts) == ((), ("body_unreadable",))
        cut = bytes_answer(whole[:20], self.GZIP, body_truncated=True)
        for pair in ((one, cut), (cut, one), (cut, cut)):
            assert compared(*pair).doubts == ("body_truncated",)
            assert compared(*pair).differences == ()

    def test_an_empty_body_compressed_is_an_empty_body(self) -> None:
        assert found(compared(answer(None, JSON), bytes_answer(self.packed(b""), self.GZIP))) == [
            ("header", "content-encoding", "extra")
        ]


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        ({"set-cookie": ["a=1", "b=2"]}, {"set-cookie": ["a=1", "b=2"]}, []),
        ({"x-a": ["1", "2"]}, {"x-a": ["2", "1"]}, ["order"]),
        ({"x-a": ["1", "2"]}, {"x-a": ["1"]}, ["value"]),
        ({"x-a": ["1"]}, {"x-a": "1"}, []),
        ({"x-a": []}, {}, ["missing"]),
        ({"X-A": "1", "x-a": "2"}, {"x-a": "1, 2"}, []),
        ({"x-a": "1"}, {"x-b": "1"}, ["missing", "extra"]),
        ({"x-a": "\t1 "}, {"x-a": "1"}, []),
        ({"x-a": "1  2"}, {"x-a": "1 2"}, ["value"]),
        ({"etag": '"a"'}, {"etag": 'W/"a"'}, ["value"]),
        ({"vary": "Accept-Encoding, Origin"}, {"vary": "accept-encoding,origin"}, []),
        ({"vary": "Accept"}, {"vary": "Accept-Encoding"}, ["value"]),
        ({"content-encoding": "GZIP"}, {"content-encoding": "gzip"}, []),
        ({"allow": "GET, POST"}, {"allow": "get, post"}, ["value"]),
        ({"cache-control": "no-store, max-age=0"}, {"cache-control": "max-age=0, no-store"}, ["order"]),
        ({"content-type": "application/json"}, {"content-type": "application/json;charset=utf-8"}, []),
        ({"content-type": "application/json"}, {"content-type": "application/json;charset=utf-16"}, ["value"]),
        ({"content-type": "application/json"}, {"content-type": "application/json;v=2"}, ["value"]),
        ({"content-type": "text/plain;a=1;b=2"}, {"content-type": "text/plain; b=2; a=1"}, []),
        ({"location": "/a"}, {"location": "/A"}, ["value"]),
    ],
)  # fmt: skip
def test_headers_are_told_apart(main: Any, other: Any, expected: list[str]) -> None:
    differences = found(compared(answer(None, main), answer(None, other)))
    assert [change for _, _, change in differences] == expected
    reversed_ = found(compared(answer(None, other), answer(None, main)))
    assert sorted(TURNED.get(change, change) for _, _, change in reversed_) == sorted(expected)


def test_members_of_headers_in_any_order_are_the_same() -> None:
    main, other = {"a": "1", "b": "2", "c": "3"}, {"c": "3", "a": "1", "b": "2"}
    assert compared(answer(None, main), answer(None, other)) is NOTHING


IDS = {"kind": "*", "field": "/**", "action": "generated_id"}


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        ({"id": 1, "ref": [1, 1]}, {"id": 9, "ref": [9, 9]}, []),
        ({"id": 1, "ref": 1}, {"id": 9, "ref": 8}, ["/ref"]),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}, []),  # each generated by its own side: one to one all the same
        ({"a": 1, "b": 2, "c": 1}, {"a": 2, "b": 1, "c": 1}, ["/a", "/b"]),
        ({"a": 1, "b": 2}, {"a": 9, "b": 9}, ["/b"]),
        ({"a": 1, "b": 1}, {"a": 8, "b": 9}, ["/b"]),
        ({"a": "1"}, {"a": 1}, ["/a"]),
        ({"a": None}, {"a": 1}, ["/a"]),
        ({"a": 1}, {}, ["/a"]),
        ({"id": 7, "self": "/orders/7"}, {"id": 8, "self": "/orders/8"}, []),
        ({"id": 7, "self": "/orders/7"}, {"id": 8, "self": "/orders/9"}, ["/self"]),
        ({"self": "/orders/7"}, {"self": "/invoices/7"}, ["/self"]),
        ({"self": "https://api1.example.org/orders/7"}, {"self": "https://api2.example.org/orders/7"}, ["/self"]),
        ({"self": "//10.0.0.7:8080/orders/7"}, {"self": "//10.0.0.9:8080/orders/7"}, ["/self"]),
        ({"self": "https://api1.example.org/orders/7"}, {"self": "https://api1.example.org/orders/8"}, []),
        ({"next": "/orders?after1=5"}, {"next": "/orders?after2=5"}, ["/next"]),
        ({"next": "/orders?after=5"}, {"next": "/orders?after=6"}, []),
        ({"file": "/files/YWJj1=="}, {"file": "/files/ZGVm2=="}, []),
    ],
)  # fmt: skip
def test_generated_ids_are_equal_only_one_to_one(main: Any, other: Any, expected: list[str]) -> None:
    for one, two in ((main, other), (other, main)):
        differences = found(compared(answer(json.dumps(one), JSON), answer(json.dumps(two), JSON), IDS))
        assert [path for _, path, _ in differences] == expected


def test_ids_of_two_roles_may_meet_if_the_rules_keep_them_apart() -> None:
    main, other = (
        answer(json.dumps(value), JSON) for value in ({"user": 5, "order": 5}, {"user": 6, "order": 7})
    )
    assert found(compared(main, other, IDS)) == [("body", "/order", "value")]
    rules = [{"kind": "body", "field": f"/{role}", "action": "generated_id", "params": {"space": role}}
             for role in ("user", "order")]  # fmt: skip
    assert found(compared(main, other, *rules)) == []


@pytest.mark.parametrize(
    ("main", "other", "near"),
    [
        ("2026-03-01T00:00:00Z", "2026-02-28T24:00:00Z", True),
        ("2026-03-01T00:00:00Z", "20260301T000000Z", True),
        ("2026-03-01T00:00:00Z", "Sun, 01 Mar 2026 00:00:00 GMT", True),
        ("2026-03-01T00:00:00Z", "2026-03-01 00:00:00+00", True),
        ("2026-03-01T00:00:00Z", "2026-03-05T03:00:00+99:00", False),
        ("2026-03-01T00:00:00Z", "2026-02-29T00:00:00Z", False),
        ("2026-03-01T00:00:00Z", "2026-03-01", False),
        ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00", False),
        ("2026-03-01T00:00:00Z", None, False),
        ("2026-03-01T00:00:00Z", True, False),
        (1, 1.0000000001, False),
    ],
)
def test_instants_in_any_spelling(main: Any, other: Any, near: bool) -> None:
    rule = {"kind": "body", "field": "/at", "action": "time_tolerance", "params": {"seconds": 0}}
    one, two = (answer(json.dumps({"at": value}), JSON) for value in (main, other))
    assert (found(compared(one, two, rule)) == []) is near
    assert found(compared(one, two)) == [
        ("body", "/at", "value" if type(main) is type(other) or main == 1 else "type")
    ]


def test_instants_beyond_what_is_computed_exactly_are_never_near() -> None:
    rule = {"kind": "body", "field": "", "action": "time_tolerance", "params": {"seconds": 0}}
    one, two = (answer("0." + "1" * 70 + last, JSON) for last in "12")
    assert found(compared(one, two, rule)) == [("body", "", "value")]


def test_statuses_and_what_was_said_beside_them() -> None:
    assert found(compared(answer(status=200), answer(status=201))) == [("status", "", "value")]
    # What a side says of its own failure is no part of the answer that a client got.
    failed = answer('{"e":1}', JSON, status=500, error="TimeoutError")
    assert compared(failed, answer('{"e":1}', JSON, status=500, error="OperationalError")) is NOTHING
