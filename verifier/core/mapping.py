"""Ids that each side generates for itself: equal as long as they map one to one."""

from __future__ import annotations

import re

from verifier.core.canonical import Json, plain_number

_IDS_MAX = 10_000
_DELIMITER = re.compile(r"([/?&=#])")


class IdMapping:
    """The one-to-one mapping of main's ids to the other side's within one request.

    A space keeps apart ids of unrelated sequences, which may use the same small numbers. It holds at most `ids_max`
    pairs; a pair beyond that is called inconsistent, so it shows as a difference.
    """

    __slots__ = ("_ids_max", "_main_of", "_other_of")

    def __init__(self, ids_max: int = _IDS_MAX) -> None:
        self._ids_max = ids_max
        self._other_of: dict[tuple[str, str], str] = {}
        self._main_of: dict[tuple[str, str], str] = {}

    def observe(self, main: str, other: str, space: str = "") -> bool:
        """Note that the two stand at the same place. False if one of them is already paired with another id."""
        known_other = self._other_of.get((space, main))
        known_main = self._main_of.get((space, other))
        if known_other is None and known_main is None:
            if len(self._other_of) >= self._ids_max:
                return False
            self._other_of[space, main] = other
            self._main_of[space, other] = main
            return True
        return known_other == other and known_main == main

    def other_of(self, main: str, space: str = "") -> str | None:
        """Return the other side's id of main's id, if one has been seen."""
        return self._other_of.get((space, main))

    def partner(self, value: str, space: str = "") -> str | None:
        """Return the id a value is paired with, whichever side it is of."""
        return self._other_of.get((space, value)) or self._main_of.get((space, value))


def id_pairs(main: Json, other: Json) -> list[tuple[str, str]] | None:
    """Return the pairs of ids two values give rise to, or None if the values cannot be ids of each other.

    A URL or path is split, and only its segments that carry a digit may differ: a different scheme, host, collection or
    parameter's name is no generated id.
    """
    if isinstance(main, bytes) and isinstance(other, bytes):
        return [(plain_number(main), plain_number(other))]
    if not (isinstance(main, str) and isinstance(other, str) and main and other):
        return None
    if not (_is_path(main) or _is_path(other)):
        return [(main, other)]
    parts, other_parts = _DELIMITER.split(main), _DELIMITER.split(other)
    if len(parts) != len(other_parts):
        return None
    fixed = _fixed(parts) | _fixed(other_parts)
    pairs = []
    for index, (mine, theirs) in enumerate(zip(parts, other_parts, strict=True)):
        if mine != theirs and (index in fixed or not (_has_digit(mine) and _has_digit(theirs))):
            return None
        if index % 2 == 0 and index not in fixed and mine:
            pairs.append((mine, theirs))
    return pairs


def _fixed(parts: list[str]) -> set[int]:
    """Return the places of what is no id even with a digit: delimiters, scheme and authority, names of parameters."""
    places = set(range(1, len(parts), 2))
    if parts[1:4] == ["/", "", "/"]:
        places |= {0, 4}
    query = parts.index("?") if "?" in parts else len(parts)
    return places | {
        at - 1 for at in range(query + 2, len(parts), 2) if parts[at] == "=" and parts[at - 2] != "="
    }


def _is_path(text: str) -> bool:
    return text.startswith("/") or "://" in text


def _has_digit(text: str) -> bool:
    return any(char.isdigit() for char in text)
