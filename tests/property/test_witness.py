"""A witness shows the value itself, against a reader of its own: Python's decoder with exact decimals."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property import json_texts
from verifier.core.canonical import parse
from verifier.core.witness import REDACTED, redacted_copy, witness

SEEDS = st.integers(0, 2**32)
HIDDEN = frozenset(("password", "x_token"))
LIMITS = (4, 16, 64, 200, 2048, 1_000_000)


def naive(text: str) -> Any:
    return json.loads(text, parse_int=_number, parse_float=_number, object_pairs_hook=_members)


def _number(literal: str) -> Any:
    exact = Decimal(literal)
    if len(literal) <= 40 and -(2**63) < exact < 2**63 and exact == exact.to_integral_value():
        return int(exact)
    if len(literal) <= 40 and abs(exact) < Decimal("1e308") and Decimal(repr(float(exact))) == exact:
        return float(exact)
    return {"$number": exact}


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, _ in pairs:
        every = [value for other, value in pairs if other == name]
        shown = {"$repeated": every} if len(every) > 1 else every[0]
        made[_clean(name)] = REDACTED if name.lower().replace("-", "_") in HIDDEN else shown
    return made


def _clean(value: Any) -> Any:
    """Lone surrogates as visible escapes; the numbers that are marked as decimals, which tell them apart."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"$number"}:
            return {"$number": Decimal(value["$number"])}
        return {_clean(name): _clean(item) for name, item in value.items()}
    return value


def typed(value: Any) -> Any:
    """With the type of each scalar: Python's `==` takes 1 for True and for 1.0."""
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    return type(value).__name__, value


@settings(deadline=None, derandomize=True, max_examples=300)
@given(SEEDS)
def test_a_witness_with_room_is_the_value(seed: int) -> None:
    chance = Random(seed)
    text = json_texts.text(json_texts.tree(chance, 4), chance, chance.choice(("compact", "spaced", "wild")))
    value, expected = parse(text), typed(_clean(naive(text)))
    assert typed(_clean(witness(value, 10**9, HIDDEN))) == expected
    assert typed(_clean(redacted_copy(value, HIDDEN))) == expected


@settings(deadline=None, derandomize=True, max_examples=300)
@given(SEEDS)
def test_a_witness_is_the_value_if_that_fits_and_else_its_beginning_within_the_bound(seed: int) -> None:
    chance = Random(seed)
    text = json_texts.text(json_texts.tree(chance, 4), chance, "compact")
    value = parse(text)
    whole = witness(value, 10**9, HIDDEN)
    size = len(msgspec.json.encode(whole))
    for bytes_max in LIMITS:
        shown = witness(value, bytes_max, HIDDEN)
        if size <= bytes_max:
            assert shown == whole or "$cut" in shown  # a number may be written longer than it is shown
        elif bytes_max >= 64:
            assert "$cut" in shown
            assert len(msgspec.json.encode(shown)) <= bytes_max


@pytest.mark.parametrize("name", ["password", "X-Token", "x_token", "Password"])
def test_a_hidden_member_is_hidden_at_any_place_and_of_any_size(name: str) -> None:
    row = {"a": 1, name: {"b": "hunter2"}, "c": [True]}
    hidden = {"a": 1, name: REDACTED, "c": [True]}
    assert redacted_copy(parse(json.dumps([row, row, {"in": row}])), HIDDEN) == [
        hidden,
        hidden,
        {"in": hidden},
    ]
    wide = {f"{n}{'n' * 300}": n for n in range(3)} | row
    assert redacted_copy(parse(json.dumps(wide)), HIDDEN)[name] == REDACTED


def test_what_is_hidden_under_one_policy_is_shown_under_another() -> None:
    value = parse('{"a":1,"password":"p"}')
    assert witness(value, 2048, frozenset()) == {"a": 1, "password": "p"}
    assert witness(value, 2048, HIDDEN) == {"a": 1, "password": REDACTED}
