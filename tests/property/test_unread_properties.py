"""Reading only what differs finds what reading all finds, in the same order; and sure sameness is sameness."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.property import json_texts
from verifier.core.canonical import NotJson, canonical, parse, read_plain
from verifier.core.compare import compare_responses
from verifier.core.difference import Comparison, Kind
from verifier.core.documents import compare_documents
from verifier.core.events import Response
from verifier.core.findings import Findings
from verifier.core.limits import Limits
from verifier.core.policy import Policy, rule_from_dict
from verifier.core.sameness import surely_same
from verifier.core.unread import compare_unread

PROFILE = settings(
    deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.too_slow]
)

SEEDS = st.integers(0, 2**32)  # a failure is one number to run again
PAIRS_A_SEED = 20


RULES: list[dict[str, Any]] = [
    {"kind": "body", "field": "/a", "action": "ignore"},
    {"kind": "body", "field": "/**/v", "action": "type"},
    {"kind": "body", "field": "/a", "action": "unordered"},
    {"kind": "body", "field": "", "action": "unordered"},
    {"kind": "body", "field": "/*/id", "action": "ignore"},
    {"kind": "*", "field": "/**", "action": "tolerance", "params": {"abs": 1}},
]  # fmt: skip
POLICIES = [Policy.default()] * 4 + [Policy.default([rule_from_dict(rule)]) for rule in RULES]
LIMITS = [
    Limits(), Limits(), Limits(), Limits(depth_max=2), Limits(depth_max=0), Limits(differences_max=1),
    Limits(align_steps_max=3), Limits(align_bytes_max=30), Limits(value_bytes=64),
]  # fmt: skip


def _all_read(main: str, other: str, policy: Policy, limits: Limits) -> Comparison:
    findings = Findings("GET /", policy, limits, None)
    compare_documents(parse(main), parse(other), findings, kind=Kind.BODY)
    return findings.result()


def _told(main: str, other: str, policy: Policy, limits: Limits) -> bool:
    """Compare by reading what differs, check it against reading all, and return whether that could be done."""
    findings = Findings("GET /", policy, limits, None)
    told = compare_unread(main.encode(), other.encode(), findings, kind=Kind.BODY)
    found = findings.result()
    assert found == (_all_read(main, other, policy, limits) if told else Comparison()), (main, other)
    return told


@PROFILE
@given(SEEDS)
def test_reading_what_differs_finds_what_reading_all_finds(seed: int) -> None:
    chance = Random(seed)
    for _ in range(PAIRS_A_SEED):
        main, other = json_texts.documents(chance)
        _told(main, other, chance.choice(POLICIES), chance.choice(LIMITS))


def _meaning(text: str) -> Any:
    """The oracle, which shares nothing with the comparison: numbers as decimals, all values of a repeated name."""

    def of_object(pairs: list[tuple[str, Any]]) -> dict[str, tuple[Any, ...]]:
        made: dict[str, tuple[Any, ...]] = {}
        for name, value in pairs:
            made[name] = (*made.get(name, ()), value)
        return made

    def of_number(literal: str) -> tuple[str, Decimal]:
        return "number", Decimal(literal)

    # A tagged number never equals a boolean.
    return json.loads(text, parse_int=of_number, parse_float=of_number, object_pairs_hook=of_object)


@PROFILE
@given(SEEDS)
def test_nothing_is_found_only_in_texts_that_mean_the_same(seed: int) -> None:
    chance = Random(seed)
    for _ in range(PAIRS_A_SEED):
        main, other = json_texts.documents(chance)
        same = _meaning(main) == _meaning(other)
        one, two = (
            Response(
                request_id="r",
                side="main",
                ts=1.0,
                method="GET",
                path="/",
                status=200,
                body=Raw(text.encode()),
            )
            for text in (main, other)
        )
        found = compare_responses(one, two, route="GET /", policy=POLICIES[0])
        assert (found == Comparison()) is same, (main, other)
        assert bool(found.differences) is not same


@pytest.mark.parametrize(
    ("main", "other"),
    [
        ("[1,2]", "[1.0,2,3]"),
        ("[1,2,3]", "[1,2.0,2,3]"),
        ('[{"id":1,"v":1},{"id":1,"v":2}]', '[{"id":1,"v":3},{"id":1,"v":4}]'),
        ('[{"id":1,"v":1},{"id":1,"v":2}]', '[{"id":1,"v":2},{"id":1,"v":3}]'),
        ('[{"id":1,"v":1},{"id":2,"v":2}]', '[{"id":1.0,"v":3},{"id":2,"v":4}]'),
        ('[{"id":1,"v":1},{"id":1.0,"v":2}]', '[{"id":1,"v":2},{"id":1.0,"v":1}]'),
        ('[{"id":10,"v":1},{"id":1e1,"v":2}]', '[{"id":10,"v":2},{"id":1e1,"v":1}]'),
        ('[{"id":-0,"v":1},{"id":0,"v":2}]', '[{"id":-0,"v":2},{"id":0,"v":1}]'),
        (r'[{"id":"a","v":1},{"id":"\u0061","v":2}]', r'[{"id":"a","v":2},{"id":"\u0061","v":1}]'),
        ('[{"id":null,"v":1},{"id":true,"v":2}]', '[{"id":null,"v":2},{"id":true,"v":1}]'),
        ('[{"id":["1"],"v":1},{"id":"2","v":2}]', '[{"id":["1"],"v":2},{"id":"2","v":1}]'),
        ('[{"id":1,"v":1},{"id":"1","v":2}]', '[{"id":1,"v":2},{"id":"1","v":1}]'),
        ('{"a":{"b":1,"b":2}}', '{"a":{"b":3,"b":2}}'),
        ('{"":1,"b":2,"c":3,"":0}', '{"":0,"b":2,"c":4}'),
        ('{"a":[{"a":1,"a":2},3]}', '{"a":[{"a":1,"a":3},3]}'),
    ],
)
def test_what_looks_plain_and_is_not(main: str, other: str) -> None:
    for one, two in ((main, other), (other, main)):
        _told(one, two, Policy.default(), Limits())


def test_half_of_the_random_documents_are_told_without_reading_all() -> None:
    """The properties would hold of functions that always decline."""
    chance = Random(1)
    told = same = sure = 0
    for _ in range(500):
        main, other = json_texts.documents(chance)
        told += _told(main, other, Policy.default(), Limits())
        same += parse(main) == parse(other)
        sure += surely_same(main.encode(), other.encode())
    assert told > 250
    assert sure > same / 3 > 20


def test_most_plain_documents_are_told_without_reading_all() -> None:
    """The property above would hold of a function that always declines."""
    for main, other in (
        ('{"a":1,"b":[1,2,{"c":null}]}', '{"a":1,"b":[1,2,{"c":3}]}'),
        ('{"a": 1, "b": [1, 2]}', '{"a":1,"b":[1,3]}'),
        ('{"é":1}', '{"é":"\\u00e9"}'),
        ('[{"id":1,"v":1},{"id":2,"v":1}]', '[{"id":1,"v":2},{"id":2,"v":2}]'),
        ("[1,2,3]", "[1,3]"),
        ("{}", '{"a":1}'),
    ):
        findings = Findings("GET /", Policy.default(), Limits(), None)
        assert compare_unread(main.encode(), other.encode(), findings, kind=Kind.BODY)
        assert findings.result().differences


@PROFILE
@given(st.binary(max_size=12) | st.text(alphabet='{}[]",:1eé\\u ', max_size=14).map(str.encode), st.data())
def test_what_is_no_json_is_never_told(text: bytes, data: st.DataObject) -> None:
    try:
        parse(text)
    except NotJson:
        findings = Findings("GET /", Policy.default(), Limits(), None)
        for main, other in ((text, b"{}"), (b"[]", text), (text, text + b" ")):
            assert not compare_unread(main, other, findings, kind=Kind.BODY)
            assert not surely_same(main, other)
        assert findings.result() == Comparison()


@PROFILE
@given(SEEDS)
def test_what_is_surely_the_same_is_the_same(seed: int) -> None:
    chance = Random(seed)
    for _ in range(PAIRS_A_SEED):
        main, other = json_texts.documents(chance)
        if surely_same(main.encode(), other.encode()):
            assert parse(main) == parse(other)
            assert surely_same(other.encode(), main.encode())


@pytest.mark.parametrize(
    ("main", "other"),
    [
        ("[true]", "[1]"),
        ("[0]", "[false]"),
        ("[0.1]", "[0.10000000000000001]"),
        ("[1e23]", "[99999999999999991611392]"),
        ("[9007199254740993]", "[9007199254740992.0]"),
        ('{"a":1,"a":1}', '{"a":1}'),
        ('{"a" :1,"a":1}', '{"a" :1}'),
        ('{"a":"\\u003a","b":1,"b":1}', '{"a":":","b":1}'),
        ('{"a":"\\u0022:","b":1,"b":1}', '{"a":"\\":","b":1}'),
        ('["\\ud800"]', '["\\ud801"]'),
        ("[NaN]", "[NaN]"),
    ],
)
def test_what_nearly_is_the_same_is_not_surely_so(main: str, other: str) -> None:
    assert not surely_same(main.encode(), other.encode())


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.sampled_from(["", "a b", "é", "true", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé", max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def _turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _turned(value[name]) for name in reversed(value)}
    return [_turned(item) for item in value] if isinstance(value, list) else value


@PROFILE
@given(VALUES)
def test_members_in_another_order_and_blanks_are_surely_the_same(value: Any) -> None:
    main, other = (
        json.dumps(value, separators=(",", ":"), ensure_ascii=False),
        json.dumps(_turned(value), ensure_ascii=False),
    )
    assert surely_same(main.encode(), other.encode())


@PROFILE
@given(SEEDS)
def test_a_value_without_blanks_around_it_is_read_as_ever(seed: int) -> None:
    chance = Random(seed)
    for _ in range(PAIRS_A_SEED):
        text = json_texts.text(json_texts.tree(chance, 2), chance, "wild")
        assert canonical(read_plain(text.encode())) == canonical(parse(text))


@pytest.mark.parametrize("brackets", ["[", '{"a":'])
def test_no_depth_makes_it_fail_or_differ(brackets: str) -> None:
    """Somewhere the stack ends: there and around it the answer is the same as of shallow documents."""
    closing = "]" if brackets == "[" else "}"
    for depth in (10, 199, 200, 201, *range(880, 1000, 5), 3000):
        main, other = (f"{brackets * depth}{leaf}{closing * depth}" for leaf in (1, 2))
        findings = Findings("GET /", Policy.default(), Limits(), None)
        if compare_unread(main.encode(), other.encode(), findings, kind=Kind.BODY):
            assert findings.result() == _all_read(main, other, Policy.default(), Limits())
        else:
            assert depth > 800
            assert findings.result() == Comparison()
