"""Texts and JSON from anybody's traffic, made fit for any database row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from msgspec import Raw

from verifier.core.storable import TEXT_BYTES_MAX, bounded_text, json_text


@pytest.mark.parametrize("text", ["", "GET /api", "é" * 200, "x" * TEXT_BYTES_MAX])
def test_a_text_that_fits_stays_as_it_is(text: str) -> None:
    assert bounded_text(text) == text


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 513, "é" * 300, "\0" * 600])
def test_any_other_text_becomes_one_that_fits(text: str) -> None:
    fit = bounded_text(text)
    assert "\0" not in fit
    assert 0 < len(fit.encode()) <= TEXT_BYTES_MAX
    assert bounded_text(fit) == fit


def test_long_texts_stay_different() -> None:
    assert bounded_text("x" * 600) != bounded_text("x" * 601)
    assert bounded_text("x" * 600) == bounded_text("x" * 600)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, {"a": [1, 2.5, None, True, "é"]}),
        ("\0", "�"),
        ({"\0": "\ud800"}, {"�": "?"}),
        (Raw(b'{"a": "\\u0000\\ud800", "n": 1e999999}'), {"a": "�?", "n": "1E+999999"}),
        (Raw(b'{"a": 0.10}'), {"a": 0.10}),
        ([Decimal("1E400000"), Decimal("0.1")], ["1E+400000", 0.1]),
        (Raw(b'["3e12345", "\\u00e9", "\\\\u0000"]'), ["3e12345", "é", "\\u0000"]),
        (Raw(b'{"a":-3.5E+12345}'), {"a": "-3.5E+12345"}),
        (Raw(b"1e12345"), "1E+12345"),
        (Raw(b"[ 1e-12345]"), ["1E-12345"]),
        ("1e9999 stays, being text", "1e9999 stays, being text"),
        (10**50, 10**50),
    ],
)
def test_json_is_stored_as_it_is_but_for_what_no_database_takes(value: Any, stored: Any) -> None:
    assert json.loads(json_text(value)) == stored


def test_numbers_of_a_thousand_digits_become_text() -> None:
    assert json.loads(json_text([10**1500])) == [str(Decimal(10**1500))]


def test_endless_nesting_is_cut() -> None:
    assert "nested too deeply" in json_text(Raw(b"[" * 500 + b"]" * 500))
    assert "nested too deeply" in json_text(Raw(b"[" * 100_000 + b"]" * 100_000))
