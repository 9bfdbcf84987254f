"""Random JSON as text, for what matters is how it is written: repeated names, escapes, blanks, numbers in any spelling.

Made by one seeded source of chance, much quicker than by strategies: thousands of pairs a second.
"""

from __future__ import annotations

import json
from random import Random
from typing import TypeAlias

Members: TypeAlias = "list[tuple[str, Tree]]"
Tree: TypeAlias = (
    "str | Members | list[Tree]"  # a leaf as it is written; an object's members; an array's elements
)

NAMES = ["a", "b", "id", "name", "key", "x/y", "~", "", "0", "é", "\ud800", "password", '"q', "t", "u", "v"]
NUMBERS = [
    *(
        "0",
        "1",
        "2",
        "-1",
        "1.0",
        "1e0",
        "0.0",
        "-0",
        "-0.0",
        "10",
        "1e1",
        "100",
        "1E2",
        "100.00",
        "0.1",
        "0.10",
    ),
    *(
        "1e400",
        "123456789012345678901234567890",
        "1.5e-3",
        "9007199254740993",
        "0.1000000000000000055511151231257827",
    ),
    "1" * 45,
]
TEXTS = [
    *(
        '""',
        '"1"',
        '"true"',
        '"{}"',
        '"\\u00e9"',
        '"é"',
        '"e\\u0301"',
        '"\\ud83d\\ude00"',
        '"😀"',
        '"\\ud800"',
    ),
    *('"\\/"', '"/"', '"\\u0041"', '"A"', '"a\\"b:c\\":1"', '":"', '"\\u0022\\u003a"', '"a : b"', '"[1,2]"'),
    *('"2026-01-01T00:00:00Z"', '"' + "x" * 300 + '"'),
]
CONSTANTS = ["true", "false", "null"]
RESPELT = {"1": "1.0", "0": "-0", "10": "1e1", "100": "100.00", "0.1": "0.10"}


def leaf(chance: Random) -> str:
    return chance.choice(chance.choice((NUMBERS, NUMBERS, TEXTS, CONSTANTS)))


def tree(chance: Random, depth: int) -> Tree:
    """A value nested at most so deep; an array is often one of objects that name themselves."""
    kind = chance.random()
    if depth <= 0 or kind < 0.25:
        return leaf(chance)
    count = chance.choice((0, 1, 2, 3, 4, 6))
    if kind < 0.6:
        return _members(chance, count, depth)
    if kind < 0.8:
        return [tree(chance, depth - 1) for _ in range(count)]
    named = chance.choice(("id", "id", "key", "name", "uuid", "none"))
    rows: list[Tree] = []
    for at in range(count):
        own: Members = [(named, str(at) if chance.random() < 0.95 else leaf(chance))]
        rows.append(own + [(name, leaf(chance)) for name in ("v", "w")])
    return rows


def _members(chance: Random, count: int, depth: int) -> Members:
    names = [chance.choice(NAMES) for _ in range(count)]
    if chance.random() < 0.9:
        names = list(dict.fromkeys(names))
    return [(name, tree(chance, depth - 1)) for name in names]


def changed(value: Tree, chance: Random, often: float) -> Tree:
    """Return the value with some leaves replaced, and members and elements dropped, added, doubled and shuffled."""
    if isinstance(value, str):
        return leaf(chance) if chance.random() < often else value
    if chance.random() < often / 2:
        return tree(chance, 2)
    made: list[tuple[str, Tree] | Tree] = []
    for each in value:
        if chance.random() < often / 2:
            continue
        if isinstance(each, tuple):
            made.append((each[0], changed(each[1], chance, often)))
        else:
            made.append(changed(each, chance, often))
    if chance.random() < often:
        is_object = bool(value) and isinstance(value[0], tuple)
        made.insert(
            chance.randint(0, len(made)), (chance.choice(NAMES), leaf(chance)) if is_object else leaf(chance)
        )
    if made and chance.random() < often / 2:
        made.append(chance.choice(made))
    if chance.random() < often / 2:
        chance.shuffle(made)
    return made  # type: ignore[return-value] # of members alone, or of elements alone


def text(value: Tree, chance: Random, style: str) -> str:
    """Write a value: `compact`, `spaced` as Python's encoder does, or `wild`: any blanks, escapes and spellings."""
    if isinstance(value, str):
        return RESPELT.get(value, value) if style == "wild" and chance.random() < 0.2 else value

    def blank() -> str:
        return {"compact": "", "spaced": " "}.get(style) or (
            chance.choice(("", " ", "\n\t")) if style == "wild" else ""
        )

    comma = "," + blank()
    if value and isinstance(value[0], tuple):
        before = blank() if style == "wild" else ""
        members = []
        for name, inner in value:
            written = json.dumps(name, ensure_ascii=style != "wild" or not name.isprintable())
            members.append(f"{written}{before}:{blank()}{text(inner, chance, style)}")
        return "{" + comma.join(members) + "}"
    return "[" + comma.join(text(each, chance, style) for each in value) + "]"  # type: ignore[arg-type]


def documents(chance: Random) -> tuple[str, str]:
    """Two documents, objects or arrays: mostly one and the same but for what stands in a few places."""
    main: Tree = ""
    while isinstance(main, str):
        main = tree(chance, chance.choice((1, 2, 3, 4)))
    other = changed(main, chance, chance.choice((0.0, 0.03, 0.1, 0.3)))
    styles = chance.choice(
        [("compact", "compact")] * 4 + [("spaced", "spaced"), ("compact", "spaced"), ("wild", "wild")]
    )
    return text(main, chance, styles[0]), text(other, chance, styles[1])
