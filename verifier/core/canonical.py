"""JSON as values that Python's own `==` compares exactly as JSON does.

Numbers are kept as `bytes`: their canonical decimal text (RFC 8785's idea, without its detour over doubles). So
`1.0`, `1e0` and `1` are one value, `0.1` and `0.10000000000000001` are two, integers of any length are exact, and `1`
never equals `true`, as it does between Python's int and bool. Strings keep lone surrogates. An object that names a
member twice is a `Repeated`, which equals only an object that repeats the same members with the same values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, TypeAlias

Json: TypeAlias = "bool | bytes | str | list[Json] | dict[str, Json] | None"

_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?)0*([0-9]*))?")
_BLANK = re.compile(r"[ \t\n\r]*")
_EXPONENT_DIGITS_MAX = 4000
_PLAIN_ZEROS_MAX = 40
_LITERALS_MAX = 16_384
_NESTING_MAX = 20_000
_LITERAL_CHARS_MAX = 40
_OPENING = frozenset((b"{", b"["))
_CONSTANTS = {b"t": True, b"f": False, b"n": None}


class NotJson(ValueError):
    """The text is not one JSON value (RFC 8259)."""


class TooDeep(NotJson):
    """The text nests deeper than is read here; it may be JSON all the same."""


class Repeated(dict[str, Json]):
    """An object with repeated members: the last value of each counts; `repeats` has all values of the repeated."""

    __slots__ = ("repeats",)
    __hash__ = None

    def __init__(self, pairs: list[tuple[str, Json]]) -> None:
        super().__init__(pairs)
        values: dict[str, list[Json]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        self.repeats: dict[str, list[Json]] = {name: all_ for name, all_ in values.items() if len(all_) > 1}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Repeated) and dict.__eq__(self, other) and self.repeats == other.repeats

    def __ne__(self, other: object) -> bool:
        return not self == other


def number(literal: str) -> bytes:
    """Return the canonical text of a JSON number: sign, digits without outer zeros, and an exponent unless it is 0."""
    found = _NUMBER.fullmatch(literal)
    if found is None:
        raise NotJson(f"not a JSON number: {literal[:40]!r}")
    sign, whole, fraction, exponent_sign, exponent_digits = found.groups(default="")
    if (
        len(exponent_digits) > _EXPONENT_DIGITS_MAX
    ):  # Python refuses to read it; only the same literal equals it
        return literal.encode()
    digits = (whole + fraction).lstrip("0")
    kept = digits.rstrip("0")
    if not kept:
        return b"0"
    exponent = int(exponent_sign + (exponent_digits or "0")) - len(fraction) + len(digits) - len(kept)
    return f"{sign}{kept}e{exponent}".encode() if exponent else f"{sign}{kept}".encode()


def _integer(literal: str) -> bytes:
    """Do the same for a literal that is known to be an integer's, quickly."""
    if literal[-1] != "0":
        return literal.encode()
    kept = literal.rstrip("0")
    return f"{kept}e{len(literal) - len(kept)}".encode() if kept not in ("", "-") else b"0"


def _real(literal: str) -> bytes:
    """Do the same for a literal with a fraction or an exponent, quickly where there is no exponent."""
    whole, _, fraction = literal.partition(".")
    kept = fraction.rstrip("0")
    if not kept.isdigit() or "e" in whole or "E" in whole:
        return number(literal)
    if whole in ("0", "-0"):
        return f"{whole[:-1]}{kept.lstrip('0')}e-{len(kept)}".encode()
    return f"{whole}{kept}e-{len(kept)}".encode()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else Repeated(pairs)


def _refuse_constant(name: str) -> Any:
    raise NotJson(f"{name} is not JSON")


class _LongLiteral(Exception):
    """The number's literal is too long to be remembered."""


def _remembered(read: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Return `read` with its latest answers kept: both sides, and other answers, mostly use the same few numbers."""

    @lru_cache(maxsize=_LITERALS_MAX)
    def of_short(literal: str) -> bytes:
        if len(literal) > _LITERAL_CHARS_MAX:
            raise _LongLiteral  # an exception is not kept, so the memory has a bound
        return read(literal)

    return of_short


def _decoder(read_integer: Callable[[str], bytes], read_real: Callable[[str], bytes]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_object,
        parse_float=read_real,
        parse_int=read_integer,
        parse_constant=_refuse_constant,
    )


_DECODER = _decoder(_integer, _real)
_QUICK_DECODER = _decoder(_remembered(_integer), _remembered(_real))


def parse(source: bytes | str) -> Json:
    """Read one JSON value, nested up to 20,000 deep. Raises NotJson, also for bytes that are not UTF-8, and TooDeep."""
    try:
        text = source if isinstance(source, str) else source.decode()
        value: Json = _QUICK_DECODER.decode(text)
    except _LongLiteral:
        return _parse_with_long_literals(text)
    except RecursionError:
        return _parse_deep(text)
    except ValueError as error:
        raise NotJson(str(error)[:200]) from None
    return value


@lru_cache(maxsize=_LITERALS_MAX)
def _short_number(literal: bytes) -> bytes:
    return number(literal.decode())


def read_plain(source: bytes) -> Json:
    """Read what is known to be one JSON value without blanks around it: as `parse` does, quicker for small ones."""
    first = source[:1]
    if first == b'"':
        return parse(source) if b"\\" in source else source[1:-1].decode()
    if first in _CONSTANTS:
        return _CONSTANTS[first]
    if first in _OPENING or len(source) > _LITERAL_CHARS_MAX:
        return parse(source)
    return _short_number(source)


def _parse_with_long_literals(text: str) -> Json:
    try:
        value: Json = _DECODER.decode(text)
    except RecursionError:
        return _parse_deep(text)
    except ValueError as error:
        raise NotJson(str(error)[:200]) from None
    return value


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _scalar(text: str, at: int) -> tuple[Json, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except ValueError:
        raise NotJson(f"no JSON value at character {at}") from None
    return value, end


def _member_name(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        raise NotJson(f"no member name at character {at}")
    name, at = _scalar(text, at)
    at = _skip(text, at)
    if text[at : at + 1] != ":" or not isinstance(name, str):
        raise NotJson(f"no colon at character {at}")
    return name, _skip(text, at + 1)


def _parse_deep(text: str) -> Json:
    """Read a value nested deeper than Python's recursion goes, with a stack of its own."""
    opened: list[tuple[str, list[Any]]] = []  # closing character and members of each container still open
    names: list[str] = []  # the member being read of each object still open
    at = _skip(text, 0)
    while True:
        value: Any
        opening = text[at : at + 1]
        if opening and opening in "[{":
            opened.append(("]" if opening == "[" else "}", []))
            if len(opened) > _NESTING_MAX:
                raise TooDeep(f"nested more than {_NESTING_MAX} deep")
            at = _skip(text, at + 1)
            if text[at : at + 1] != opened[-1][0]:
                if opening == "{":
                    name, at = _member_name(text, at)
                    names.append(name)
                continue
            opened.pop()
            value, at = ([] if opening == "[" else {}), at + 1
        else:
            value, at = _scalar(text, at)
        while True:  # a value is complete: close what ends with it
            at = _skip(text, at)
            if not opened:
                if at != len(text):
                    raise NotJson(f"more text after the value at character {at}")
                whole: Json = value
                return whole
            closing, members = opened[-1]
            members.append(value if closing == "]" else (names.pop(), value))
            mark, at = text[at : at + 1], at + 1
            if mark == ",":
                at = _skip(text, at)
                if closing == "}":
                    name, at = _member_name(text, at)
                    names.append(name)
                break
            if mark != closing:
                raise NotJson(f"neither comma nor {closing} at character {at - 1}")
            opened.pop()
            value = members if closing == "]" else _object(members)  # and see what follows it


def canonical(value: Json) -> bytes:
    """Return the one JSON text of a value: members sorted by name, no blanks, canonical numbers, ASCII."""
    try:
        return _text(value).encode()
    except RecursionError:
        return _deep_text(value).encode()


def _text(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is bytes:
        return str(value, "ascii")
    if kind is dict:
        return (
            "{"
            + ",".join([f"{encode_basestring_ascii(name)}:{_text(value[name])}" for name in sorted(value)])
            + "}"
        )
    if kind is list:
        return "[" + ",".join(map(_text, value)) + "]"
    if kind is Repeated:
        members = [f"{encode_basestring_ascii(name)}:{_text(each)}" for name, each in _members(value)]
        return "{" + ",".join(members) + "}"
    return "null" if value is None else "true" if value else "false"


def _deep_text(value: Json) -> str:
    """Write a value nested deeper than Python's recursion goes, with a stack of its own."""
    out: list[str] = []
    stack: list[Any] = [value]  # values still to write; a tuple holds a text to be written as it is
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is str:
            out.append(encode_basestring_ascii(item))
        elif kind is bytes:
            out.append(item.decode())
        elif kind is tuple:
            out.append(item[0])
        elif item is None or kind is bool:
            out.append("null" if item is None else "true" if item else "false")
        elif kind is list:
            stack.append(("]",))
            for position in range(len(item) - 1, -1, -1):
                stack.append(item[position])
                stack.append((",",) if position else ("[",))
            if not item:
                stack.append(("[",))
        else:
            stack.append(("}",))
            members = _members(item)
            for position in range(len(members) - 1, -1, -1):
                name, member = members[position]
                stack.append(member)
                stack.append(((",%s:" if position else "{%s:") % encode_basestring_ascii(name),))
            if not members:
                stack.append(("{",))
    return "".join(out)


def _members(value: dict[str, Json]) -> list[tuple[str, Json]]:
    names = sorted(value)
    if isinstance(value, Repeated):
        return [(name, each) for name in names for each in value.repeats.get(name, [value[name]])]
    return [(name, value[name]) for name in names]


_TYPES: dict[type, str] = {
    type(None): "null", bool: "boolean", bytes: "number", str: "string", list: "array", dict: "object",
    Repeated: "object",
}  # fmt: skip


def json_type(value: Json) -> str:
    """Name the JSON type of a value; null is a type of its own."""
    return _TYPES[type(value)]


def known_same(main: Json, other: Json) -> bool:
    """Say whether two values are certainly equal; False for equal ones that nest too deep to be told so quickly."""
    try:
        return main == other
    except RecursionError:
        return False


def plain_number(value: bytes) -> str:
    """Return a canonical number as people write it: without an exponent where that stays short."""
    digits, _, exponent = value.decode().partition("e")
    if exponent and len(exponent) < 4 and 0 < int(exponent) <= _PLAIN_ZEROS_MAX:
        return digits + "0" * int(exponent)
    return value.decode()


def escape(name: str) -> str:
    """Escape one segment of a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name
