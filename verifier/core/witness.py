"""Values as they are shown in a difference: bounded, without secrets, and encodable by any JSON library.

What is not the value itself is an object with one member named `$…`: `$cut` the beginning of a larger value, `$number`
a number that neither a 64-bit integer nor a double holds, `$text` and `$bytes` the digest of a text or of binary data,
`$excerpt` the place where two texts part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any

import msgspec

from verifier.core.canonical import Json, Repeated, canonical, escape, json_type, number, plain_number

REDACTED = "[redacted]"
_DEPTH_MAX = 32
_INT_MAX = 2**63 - 1
_SEGMENT_CHARS_MAX = 256
_EXCERPT_CHARS = 160
_WHOLE_CHARS_MAX = 256
_NUMBER_CHARS_MAX = 40
_NUMBER_BYTES_MAX = 128  # no number of so many characters is shown in more
_NUMBERS_MAX = 16_384
_STEPS_MAX = 4096
_NAMES_CHARS_MAX = 512
_SHAPES_MAX = 1024  # of objects; the names of one take some 25 KB at most
_ENDLESS = 1 << 62
_CONTAINERS = frozenset((list, dict, Repeated))


class _TooLarge(Exception):
    """The value does not fit the bound."""


def witness(value: Json, bytes_max: int, hidden: AbstractSet[str]) -> Any:
    """Return a value as plain JSON data of at most `bytes_max` bytes, with members named in `hidden` redacted."""
    if type(value) is str:
        if len(value) * 6 < bytes_max:
            return clean(value)
    elif type(value) is bytes:
        if len(value) <= _NUMBER_CHARS_MAX and bytes_max >= _NUMBER_BYTES_MAX:
            return _number(value)
    elif value is None and bytes_max >= 4:
        return None
    try:
        made = _plain(value, hidden, 0, _Room(bytes_max))
        if len(msgspec.json.encode(made)) <= bytes_max:
            return made
    except _TooLarge:
        pass
    return _cut(value, bytes_max, hidden)


def redacted_copy(value: Json, hidden: AbstractSet[str]) -> Any:
    """Return a whole value as plain JSON data, with members named in `hidden` redacted; cut where it nests too deep."""
    return _plain(value, hidden, 0, _Room(None))


def clean(text: str) -> str:
    """Return a text that any encoder takes: lone surrogates become visible escapes."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def step(name: str) -> str:
    """Return what a member's name adds to a path."""
    return "/" + segment(name) if len(name) > _SEGMENT_CHARS_MAX else _short_step(name)


@lru_cache(maxsize=_STEPS_MAX)
def _short_step(name: str) -> str:
    return "/" + segment(name)


def segment(name: str) -> str:
    """Return one segment of a path: escaped, without lone surrogates, and of bounded length (then with a digest)."""
    if len(name) > _SEGMENT_CHARS_MAX:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
        name = f"{name[: _SEGMENT_CHARS_MAX // 2]}...sha256:{digest}"
    return escape(name if name.isascii() else clean(name))


def text_witnesses(main: str, other: str, bytes_max: int, *, secret: bool) -> tuple[Any, Any]:
    """Return two texts that differ: whole if short, else from shortly before the place where they part.

    With `secret` neither is shown, only its digest and length in characters.
    """
    if secret:
        return _text_digest(main), _text_digest(other)
    if max(len(main), len(other)) <= _WHOLE_CHARS_MAX and max(len(main), len(other)) * 6 < bytes_max:
        return clean(main), clean(other)
    at = common_prefix(main, other)
    size = min(_EXCERPT_CHARS, max(8, bytes_max // 12))
    start = max(0, at - size // 4)
    return tuple(  # type: ignore[return-value]
        {
            "$excerpt": {
                "text": clean(text[start : start + size]),
                "from": start,
                "differs_at": at,
                "of": len(text),
            }
        }
        for text in (main, other)
    )


def common_prefix(main: str, other: str) -> int:
    """Return the length of what two texts begin with in common, by halving."""
    low, high = 0, min(len(main), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if main[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def bytes_witness(data: bytes) -> dict[str, Any]:
    """Return binary data as its length and SHA-256 digest."""
    return {"$bytes": {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}}


def _text_digest(text: str) -> dict[str, Any]:
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return {"$text": {"length": len(text), "sha256": digest}}


class _Room:
    """The bytes of JSON left for a value, counted down by one at least for each value and character."""

    __slots__ = ("bounded", "left")

    def __init__(self, bytes_max: int | None) -> None:
        self.bounded = bytes_max is not None
        self.left = _ENDLESS if bytes_max is None else bytes_max


def _plain(value: Json, hidden: AbstractSet[str], depth: int, room: _Room) -> Any:
    """Convert a value. Raises _TooLarge if there is no room for it."""
    if not isinstance(value, list | dict):
        return _plain_items((value,), hidden, depth, room)[0]
    room.left -= 1
    if depth < _DEPTH_MAX:
        if isinstance(value, list):
            return _plain_items(value, hidden, depth + 1, room)
        return _plain_members(value, hidden, depth + 1, room)
    if room.bounded:
        raise _TooLarge
    return {"$cut": "(nested too deeply)", "type": json_type(value), "members": len(value)}


def _plain_items(values: Iterable[Json], hidden: AbstractSet[str], depth: int, room: _Room) -> list[Any]:
    """Convert one value after the other; what is neither array nor object needs no call of its own."""
    made: list[Any] = []
    for value in values:
        if type(value) is str:
            room.left -= len(value)
            shown: Any = value if value.isascii() else clean(value)
        elif type(value) is bytes:
            room.left -= len(value)
            shown = _number(value)
        elif type(value) in _CONTAINERS:
            shown = _plain(value, hidden, depth, room)
        else:
            room.left -= 1
            shown = value
        if room.left < 0:
            raise _TooLarge
        made.append(shown)
    return made


def _plain_members(
    value: dict[str, Json], hidden: AbstractSet[str], depth: int, room: _Room
) -> dict[str, Any]:
    chars = sum(map(len, value))
    room.left -= chars
    if chars <= _NAMES_CHARS_MAX and type(value) is dict:
        names = _shown_names(tuple(value), hidden)
        if names is not None:
            return dict(zip(names, _plain_items(value.values(), hidden, depth, room), strict=True))
    made: dict[str, Any] = {}
    for name, member in value.items():
        shown = clean(name)
        if _is_hidden(name, hidden):
            made[shown] = REDACTED
        elif isinstance(value, Repeated) and name in value.repeats:
            made[shown] = {"$repeated": _plain_items(value.repeats[name], hidden, depth, room)}
        else:
            made[shown] = _plain(member, hidden, depth, room)
    return made


@lru_cache(maxsize=_SHAPES_MAX)
def _shown_names(names: tuple[str, ...], hidden: AbstractSet[str]) -> tuple[str, ...] | None:
    """Return the names of an object's members as they are shown; None if one of them is hidden."""
    return None if any(_is_hidden(name, hidden) for name in names) else tuple(map(clean, names))


def _is_hidden(name: str, hidden: AbstractSet[str]) -> bool:
    return (_folded(name) if len(name) > _SEGMENT_CHARS_MAX else _short_folded(name)) in hidden


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")


@lru_cache(maxsize=_STEPS_MAX)
def _short_folded(name: str) -> str:
    return _folded(name)


def _number(value: bytes) -> Any:
    made = _short_number(value) if len(value) <= _NUMBER_CHARS_MAX else None
    return {"$number": plain_number(value)} if made is None else made


@lru_cache(maxsize=_NUMBERS_MAX)
def _short_number(value: bytes) -> int | float | None:
    """Return a number that a 64-bit integer or a double holds exactly; None if neither does."""
    plain = plain_number(value)
    if "e" not in plain and len(plain) <= 19:
        whole = int(plain)
        if abs(whole) <= _INT_MAX:
            return whole
    if len(plain.partition("e")[2]) <= 4:
        made = float(plain)
        if abs(made) != float("inf") and number(repr(made)) == value:
            return made
    return None


def _cut(value: Json, bytes_max: int, hidden: AbstractSet[str]) -> dict[str, Any]:
    """Return the beginning of a value's text, marked as cut, with the value's type and size."""
    if isinstance(value, list | dict):
        head = canonical(_hidden_copy(value, hidden, [bytes_max])).decode()
        mark: dict[str, Any] = {"type": json_type(value), "members": len(value)}
    else:
        head = clean(value) if isinstance(value, str) else value.decode() if isinstance(value, bytes) else ""
        mark = {"type": json_type(value), "chars": len(head)}
    head = head[:bytes_max]
    while len(msgspec.json.encode({"$cut": head, **mark})) > bytes_max and head:
        head = head[: len(head) * 3 // 4]
    return {"$cut": head, **mark}


def _hidden_copy(value: Json, hidden: AbstractSet[str], room: list[int], depth: int = 0) -> Json:
    """Copy the beginning of a value, as much as `room` bytes may show, without what is hidden."""
    room[0] -= 1
    if isinstance(value, str):
        room[0] -= len(value)
        return value[: max(0, room[0] + len(value))]
    if isinstance(value, list | dict) and depth >= _DEPTH_MAX:
        return "..."
    if isinstance(value, list):
        items: list[Json] = []
        for item in value:
            if room[0] <= 0:
                break
            items.append(_hidden_copy(item, hidden, room, depth + 1))
        return items
    if isinstance(value, dict):
        made: dict[str, Json] = {}
        for name, member in value.items():
            if room[0] <= 0:
                break
            room[0] -= len(name)
            made[name] = (
                REDACTED if _is_hidden(name, hidden) else _hidden_copy(member, hidden, room, depth + 1)
            )
        return made
    return value
