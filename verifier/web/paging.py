"""Query parameters and pages: every wrong parameter is named, and every page has a bound."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.datastructures import QueryParams

from verifier.web.ports import Row
from verifier.web.problems import GIVEN_CHARS_MAX, invalid_parameters

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
TEXT_CHARS_MAX = 2048
EMPTY_FIELD = '""'

_UNIX_S_MAX = 253_402_300_799.0  # the end of the year 9999
# In a query string an unescaped "+" means a space, and people write time zones unescaped.
_LOST_PLUS = re.compile(r"(T\d{2}:\d{2}.*) (\d{2}:?\d{2})$")


class Expected(ValueError):
    """A value is not what its parameter takes; the message says what it takes."""


def limit_of(text: str) -> int:
    """`limit`: 1 to 1000."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= LIMIT_MAX):
        raise Expected(f"a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def time_of(text: str) -> float:
    """Unix seconds, or an ISO 8601 date or time; one without an offset is UTC."""
    expected = "Unix seconds, or an ISO 8601 time such as 2026-11-22T20:00:00Z"
    try:
        moment = float(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
            moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise Expected(expected) from None
    if not math.isfinite(moment) or not 0 <= moment <= _UNIX_S_MAX:
        raise Expected(expected)
    return moment


def text_of(text: str) -> str:
    """Any text, of a bounded length."""
    if len(text) > TEXT_CHARS_MAX or "\0" in text:
        raise Expected(f"a text of at most {TEXT_CHARS_MAX} characters, none of them NUL")
    return text


def field_of(text: str) -> str:
    """A field; `""` is the empty one: the status, or the body as a whole."""
    return "" if text == EMPTY_FIELD else text_of(text)


def one_of(choices: Iterable[str]) -> Callable[[str], str]:
    """One of a closed set of words."""
    allowed = tuple(choices)

    def parse(text: str) -> str:
        if text not in allowed:
            raise Expected("one of " + ", ".join(allowed))
        return text

    return parse


def read_parameters(query: QueryParams, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Return the parameters given, parsed; an empty one is as good as absent.

    Raises `Problem` (400) that names every unknown, repeated and unreadable parameter.
    """
    errors = []
    values: dict[str, Any] = {}
    for name in dict.fromkeys(query.keys()):
        given = query.getlist(name)
        expected = ""
        if name not in known:
            expected = "one of the parameters " + ", ".join(known) if known else "no parameters here"
        elif len(given) > 1:
            expected = "to be given once"
        elif given[0] != "":
            try:
                values[name] = known[name](given[0])
            except Expected as error:
                expected = str(error)
        if expected:
            errors.append(_error(name, expected, given[-1]))
    if "since" in values and "until" in values and values["since"] > values["until"]:
        errors.append(_error("until", "a time not before since", query["until"]))
    if errors:
        raise invalid_parameters(errors)
    return values


def _error(name: str, expected: str, given: str) -> dict[str, str]:
    return {"parameter": name[:GIVEN_CHARS_MAX], "expected": expected, "given": given[:GIVEN_CHARS_MAX]}


def cursor_problem(given: str) -> Exception:
    """The 400 for a cursor that no page has given out."""
    return invalid_parameters([_error("cursor", "the next_cursor of an earlier page, unchanged", given)])


class KeyedPages:
    """Pages over a bounded list that is made anew for each request, in the order of a key.

    The cursor holds the last key given out, not a position: rows that come and go between two pages shift
    nothing, so no row whose key stays is lost or repeated. `key_type` is what the key of a row is, for
    reading it back.
    """

    def __init__(self, key: Callable[[Row], Any], key_type: Any) -> None:
        self._key = key
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(key_type, strict=True)

    def page(self, rows: Sequence[Row], *, limit: int, cursor: str | None) -> Row:
        """Return one page; raises `Problem` (400) on an unreadable cursor."""
        ordered = sorted(rows, key=self._key)
        if cursor is not None:
            last = self._last_key(cursor)
            ordered = [row for row in ordered if self._key(row) > last]
        more = len(ordered) > limit
        shown = ordered[:limit]
        return {"items": shown, "next_cursor": _cursor(self._key(shown[-1])) if more else None}

    def _last_key(self, cursor: str) -> Any:
        try:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            return self._decoder.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (ValueError, msgspec.MsgspecError):
            raise cursor_problem(cursor) from None


def _cursor(key: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()
