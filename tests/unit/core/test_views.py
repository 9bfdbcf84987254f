"""Rates, quantiles and cursors."""

from __future__ import annotations

import pytest

from verifier.core.counts import LATENCY_BOUNDS_US, LATENCY_BUCKETS
from verifier.core.paging import decode_cursor, encode_cursor
from verifier.core.views import quantile_s, wilson_interval


# Reference values: Newcombe (1998), Statistics in Medicine 17, table I, method 3 (score).
@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_rate_is_wilsons(k: int, n: int, low: float, high: float) -> None:
    assert list(wilson_interval(k, n)) == pytest.approx([low, high], abs=5e-5)
    assert list(wilson_interval(n - k, n)) == pytest.approx([1 - high, 1 - low], abs=5e-5)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (2, 1), (-1, 5)])
def test_there_is_no_rate_of_nothing(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="no rate"):
        wilson_interval(k, n)


def _buckets(**by_place: int) -> list[int]:
    return [by_place.get(f"b{place}", 0) for place in range(LATENCY_BUCKETS)]


def test_a_quantile_lies_in_its_bucket() -> None:
    assert quantile_s(_buckets(), 0.5) is None
    assert quantile_s(_buckets(b0=10), 0.5) == pytest.approx(0.0005)
    assert quantile_s(_buckets(b4=1), 1.0) == pytest.approx(LATENCY_BOUNDS_US[4] / 1e6)
    mixed = _buckets(b2=98, b10=2)
    assert LATENCY_BOUNDS_US[1] / 1e6 < (quantile_s(mixed, 0.5) or 0) < LATENCY_BOUNDS_US[2] / 1e6
    assert LATENCY_BOUNDS_US[9] / 1e6 < (quantile_s(mixed, 0.99) or 0) <= LATENCY_BOUNDS_US[10] / 1e6


def test_beyond_the_last_bound_the_bound_is_all_that_is_known() -> None:
    last = _buckets(**{f"b{LATENCY_BUCKETS - 1}": 3})
    assert quantile_s(last, 0.5) == LATENCY_BOUNDS_US[-1] / 1e6


@pytest.mark.parametrize("ts", [0.0, -1.5, 1_764_000_000.123456])
@pytest.mark.parametrize("item_id", ["", "a", "é|:" * 20])
def test_a_cursor_comes_back_as_it_went(ts: float, item_id: str) -> None:
    cursor = encode_cursor(ts, item_id)
    assert decode_cursor(cursor) == (ts, item_id)
    assert all(char.isascii() and (char.isalnum() or char in "-_") for char in cursor)


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!!!", "é", "bnVsbA", "WzFd", "WyJhIiwiYiJd", "A" * 4000, encode_cursor(1.0, "a\0")]
)
def test_anything_else_is_no_cursor(cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor(cursor)
