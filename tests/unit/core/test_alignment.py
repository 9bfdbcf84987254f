"""How the elements of two arrays are paired."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from verifier.core.arrays import align, common_subsequence, in_place, match_any_order, most_similar, trim


def labels(text: str) -> list[bytes]:
    return [char.encode() for char in text]


def plain_longest(main: str, other: str) -> int:
    """The length of a longest common subsequence, by the textbook's table."""
    table = [[0] * (len(other) + 1) for _ in range(len(main) + 1)]
    for row, mine in enumerate(main):
        for column, theirs in enumerate(other):
            table[row + 1][column + 1] = (
                table[row][column] + 1
                if mine == theirs
                else max(table[row][column + 1], table[row + 1][column])
            )
    return table[-1][-1]


def test_the_common_subsequence_is_a_longest_one() -> None:
    words = ["".join(word) for size in range(5) for word in itertools.product("ab", repeat=size)]
    seeded = random.Random(7)
    words += ["".join(seeded.choices("abcd", k=seeded.randrange(12))) for _ in range(40)]
    for main, other in itertools.product(words, repeat=2):
        pairs = common_subsequence(labels(main), labels(other), steps_max=10_000)
        assert pairs is not None
        assert all(main[one] == other[two] for one, two in pairs)
        assert all(
            first[0] < second[0] and first[1] < second[1] for first, second in itertools.pairwise(pairs)
        )
        assert len(pairs) == plain_longest(main, other)


def test_alignment_is_the_same_with_the_sides_exchanged() -> None:
    seeded = random.Random(11)
    for _ in range(500):
        main, other = (labels("".join(seeded.choices("abcde", k=seeded.randrange(9)))) for _ in range(2))
        one = align(main, other, lambda _one, _two: 0.0, steps_max=10_000)
        two = align(other, main, lambda _one, _two: 0.0, steps_max=10_000)
        assert one is not None
        assert two is not None
        assert (one.missing, one.extra, one.moved) == (two.extra, two.missing, two.moved)
        assert sorted(one.same) == sorted((theirs, mine) for mine, theirs in two.same)
        assert sorted(one.replaced) == sorted((theirs, mine) for mine, theirs in two.replaced)


@pytest.mark.parametrize(
    "plan_of", [lambda a, b: align(a, b, lambda _one, _two: 0.0, steps_max=10_000), match_any_order]
)
def test_every_element_is_accounted_for_once(plan_of: Any) -> None:
    seeded = random.Random(13)
    for _ in range(500):
        main, other = (labels("".join(seeded.choices("abcde", k=seeded.randrange(9)))) for _ in range(2))
        plan = plan_of(main, other)
        pairs = [*plan.same, *plan.replaced]
        assert sorted([one for one, _ in pairs] + plan.missing) == list(range(len(main)))
        assert sorted([two for _, two in pairs] + plan.extra) == list(range(len(other)))
        assert all(main[one] == other[two] for one, two in plan.same)


def test_too_many_steps_are_given_up() -> None:
    main, other = labels("abcdefghij" * 20), labels("jihgfedcba" * 21)
    assert align(main, other, lambda _one, _two: 0.0, steps_max=100) is None


def test_trimming_never_counts_an_element_twice() -> None:
    assert trim("aaa", "aa") == (2, 0)
    assert trim("abc", "axc") == (1, 1)
    assert trim("", "a") == (0, 0)


def test_replacements_in_place_are_seen_only_if_nothing_moved() -> None:
    plan = in_place("abcde", "xbcdy")
    assert plan is not None
    assert plan.replaced == [(0, 0), (4, 4)]
    assert in_place("abc", "cba") is None
    assert in_place("abcd", "xycd") is None
    assert in_place("abc", "ab") is None


def test_the_most_similar_are_paired_in_order() -> None:
    scores = {(0, 0): 0.9, (0, 1): 0.6, (1, 0): 0.9, (1, 1): 0.4, (1, 2): 0.8}
    pairs = most_similar([10, 11], [20, 21, 22], lambda one, two: scores.get((one - 10, two - 20), 0.0))
    assert pairs == [(10, 20), (11, 22)]
