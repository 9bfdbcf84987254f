"""How the elements of two arrays belong together, so that one insertion is one difference and not a shift of the rest.

Elements come with labels: equal labels mean the same element. The longest common subsequence of the labels stays in
place (Myers, "An O(ND) Difference Algorithm and Its Variations", 1986). Elements left over on both sides with the same
label have moved. Between those that stayed, as many on one side as on the other are replacements, in order; of unequal
numbers the most similar belong together, if that can be told cheaply, and the rest is missing or extra.
The answer is the same with the sides exchanged: labels decide which side the algorithm takes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from msgspec import Struct

Similarity = Callable[[int, int], float]
_SIMILAR_MIN = 0.5
_SIMILAR_CELLS_MAX = 256
_REPLACED_MAX = 8


class Plan(Struct, frozen=True):
    """Which elements belong together.

    `same`: pairs of indexes with equal labels. `replaced`: pairs to be compared. `missing`: indexes of main's elements
    without partner, `extra`: of the other's. `moved`: some pairs are in another order.
    """

    same: list[tuple[int, int]] = []
    replaced: list[tuple[int, int]] = []
    missing: list[int] = []
    extra: list[int] = []
    moved: bool = False


def trim(main: Sequence[object], other: Sequence[object]) -> tuple[int, int]:
    """Return how many elements are equal at the beginning, and how many more at the end."""
    shorter = min(len(main), len(other))
    head = 0
    while head < shorter and main[head] == other[head]:
        head += 1
    tail = 0
    while tail < shorter - head and main[-1 - tail] == other[-1 - tail]:
        tail += 1
    return head, tail


def in_place(main: Sequence[object], other: Sequence[object]) -> Plan | None:
    """Return a plan for arrays of one length with a few replaced elements, each between equal ones; else None.

    None too if a replaced element stands elsewhere on the other side: then something moved.
    """
    if len(main) != len(other):
        return None
    changed = [at for at, mine in enumerate(main) if mine != other[at]]
    if len(changed) > _REPLACED_MAX or any(at - before == 1 for before, at in pairwise(changed)):
        return None
    if any(main[mine] == other[theirs] for mine in changed for theirs in changed):
        return None
    out = set(changed)
    return Plan(
        same=[(at, at) for at in range(len(main)) if at not in out], replaced=[(at, at) for at in changed]
    )


def align(
    main: Sequence[bytes], other: Sequence[bytes], similarity: Similarity, *, steps_max: int
) -> Plan | None:
    """Align two sequences of labels. None if that takes more than `steps_max` steps."""
    if main == other:
        return Plan(same=[(at, at) for at in range(len(main))])
    if (len(other), other) < (len(main), main):
        turned = _align(other, main, lambda mine, theirs: similarity(theirs, mine), steps_max)
        return None if turned is None else _turn(turned)
    return _align(main, other, similarity, steps_max)


def match_any_order(main: Sequence[bytes], other: Sequence[bytes]) -> Plan:
    """Pair equal labels wherever they stand; of what is left over, pair in order what both sides have."""
    same, missing, extra = _pair_equal(main, other, range(len(main)), range(len(other)))
    replaced = list(zip(missing, extra, strict=False))
    pairs = sorted(same + replaced)
    moved = any(before[1] > after[1] for before, after in pairwise(pairs))
    return Plan(same, replaced, missing[len(replaced) :], extra[len(replaced) :], moved)


def _turn(plan: Plan) -> Plan:
    return Plan(
        same=sorted((mine, theirs) for theirs, mine in plan.same),
        replaced=sorted((mine, theirs) for theirs, mine in plan.replaced),
        missing=plan.extra,
        extra=plan.missing,
        moved=plan.moved,
    )


def _align(
    main: Sequence[bytes], other: Sequence[bytes], similarity: Similarity, steps_max: int
) -> Plan | None:
    if len(main) == len(other) and sorted(main) == sorted(other):
        same, _, _ = _pair_equal(main, other, range(len(main)), range(len(other)))
        return Plan(same=same, moved=main != other)
    stayed = common_subsequence(main, other, steps_max=steps_max)
    if stayed is None:
        return None
    in_main, in_other = {mine for mine, _ in stayed}, {theirs for _, theirs in stayed}
    left = [at for at in range(len(main)) if at not in in_main]
    left_other = [at for at in range(len(other)) if at not in in_other]
    moved, left, left_other = _pair_equal(main, other, left, left_other)
    replaced, missing, extra = _fill_gaps(stayed, left, left_other, similarity)
    return Plan(sorted(stayed + moved), replaced, missing, extra, bool(moved))


def _pair_equal(
    main: Sequence[bytes], other: Sequence[bytes], mine: Sequence[int], theirs: Sequence[int]
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Pair the n-th of a label with the n-th of the same label; return the pairs and what is left on each side."""
    places: dict[bytes, list[int]] = {}
    for at in reversed(theirs):
        places.setdefault(other[at], []).append(at)
    pairs: list[tuple[int, int]] = []
    left: list[int] = []
    for at in mine:
        candidates = places.get(main[at])
        if candidates:
            pairs.append((at, candidates.pop()))
        else:
            left.append(at)
    return pairs, left, sorted(at for rest in places.values() for at in rest)


def _fill_gaps(
    stayed: list[tuple[int, int]], left: list[int], left_other: list[int], similarity: Similarity
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    replaced: list[tuple[int, int]] = []
    missing: list[int] = []
    extra: list[int] = []
    mine_at = theirs_at = 0
    for mine_end, theirs_end in [
        *stayed,
        (left[-1] + 1 if left else 0, left_other[-1] + 1 if left_other else 0),
    ]:
        mine, theirs = [], []
        while mine_at < len(left) and left[mine_at] < mine_end:
            mine.append(left[mine_at])
            mine_at += 1
        while theirs_at < len(left_other) and left_other[theirs_at] < theirs_end:
            theirs.append(left_other[theirs_at])
            theirs_at += 1
        if len(mine) == len(theirs):
            pairs = list(zip(mine, theirs, strict=True))
        elif len(mine) * len(theirs) <= _SIMILAR_CELLS_MAX:
            pairs = most_similar(mine, theirs, similarity)
        else:
            pairs = []
        replaced += pairs
        paired, paired_other = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
        missing += [at for at in mine if at not in paired]
        extra += [at for at in theirs if at not in paired_other]
    return replaced, missing, extra


def most_similar(mine: list[int], theirs: list[int], similarity: Similarity) -> list[tuple[int, int]]:
    """Pair elements in order so that the sum of their similarities is greatest; pairs under one half do not count."""
    rows, columns = len(mine), len(theirs)
    scores = [[similarity(one, two) for two in theirs] for one in mine]
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            score = scores[row][column]
            paired = best[row + 1][column + 1] + score if score >= _SIMILAR_MIN else 0.0
            best[row][column] = max(best[row + 1][column], best[row][column + 1], paired)
    pairs: list[tuple[int, int]] = []
    row = column = 0
    while row < rows and column < columns:
        score = scores[row][column]
        if score >= _SIMILAR_MIN and best[row][column] == best[row + 1][column + 1] + score:
            pairs.append((mine[row], theirs[column]))
            row, column = row + 1, column + 1
        elif best[row][column] == best[row + 1][column]:
            row += 1
        else:
            column += 1
    return pairs


def common_subsequence(
    main: Sequence[bytes], other: Sequence[bytes], *, steps_max: int
) -> list[tuple[int, int]] | None:
    """Return the pairs of indexes of a longest common subsequence, or None beyond `steps_max` steps."""
    shared = set(main) & set(other)
    mine = [at for at, label in enumerate(main) if label in shared]
    theirs = [at for at, label in enumerate(other) if label in shared]
    numbers = {label: number for number, label in enumerate(shared)}
    first, second = [numbers[main[at]] for at in mine], [numbers[other[at]] for at in theirs]
    rows, columns = len(first), len(second)
    furthest = {1: 0}
    trace: list[dict[int, int]] = []
    steps = 0
    for edits in range(rows + columns + 1):
        trace.append(furthest.copy())
        steps += 2 * edits + 1
        if steps > steps_max:
            return None
        for diagonal in range(-edits, edits + 1, 2):
            down = diagonal == -edits or (
                diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1]
            )
            row = furthest[diagonal + 1] if down else furthest[diagonal - 1] + 1
            column = row - diagonal
            while row < rows and column < columns and first[row] == second[column]:
                row += 1
                column += 1
            furthest[diagonal] = row
            if row >= rows and column >= columns:
                return [(mine[one], theirs[two]) for one, two in _walk_back(trace, rows, columns)]
    return []


def _walk_back(trace: list[dict[int, int]], row: int, column: int) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for edits in range(len(trace) - 1, -1, -1):
        furthest = trace[edits]
        diagonal = row - column
        down = diagonal == -edits or (diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1])
        before = diagonal + 1 if down else diagonal - 1
        row_before = furthest[before]
        column_before = row_before - before
        while row > row_before and column > column_before:
            row, column = row - 1, column - 1
            pairs.append((row, column))
        row, column = row_before, column_before
    return pairs[::-1]
