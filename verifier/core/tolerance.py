"""Whether two values are near enough: numbers, instants, and texts of one shape. All of it exact decimals."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import MAX_EMAX, MIN_EMIN, ROUND_DOWN, ROUND_UP, Context, Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from typing import Any

from verifier.core.canonical import Json, NotJson, json_type, number, plain_number

Check = Callable[[Json, Json], bool]

REGEX_CHARS_MAX = 512
REGEX_TEXT_CHARS_MAX = 4096
_DIGITS = 60
# Differences round up and limits round down: in doubt, two numbers are too far apart.
_UP = Context(prec=_DIGITS, rounding=ROUND_UP, Emax=MAX_EMAX, Emin=MIN_EMIN)
_DOWN = Context(prec=_DIGITS, rounding=ROUND_DOWN, Emax=MAX_EMAX, Emin=MIN_EMIN)
_UNITS = {"s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "ns": Decimal("1e-9")}
_ISO = re.compile(
    r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})[Tt ]([0-9]{2}):?([0-9]{2})(?::?([0-9]{2})(?:[.,]([0-9]{1,18}))?)?"
    r"\s?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_EPOCH_DAY = date(1970, 1, 1).toordinal()


class ParamError(ValueError):
    """A rule's parameter is wrong: `param` names it, `expected` says what it should be."""

    def __init__(self, param: str, expected: str) -> None:
        super().__init__(f"{param}: expected {expected}")
        self.param = param
        self.expected = expected


def tolerance(params: dict[str, Any]) -> Check:
    """Numbers may differ by `abs`, or by `rel` times the larger of both. Raises ParamError."""
    if not {"abs", "rel"} & params.keys():
        raise ParamError("abs", "a number, here or in rel")
    absolute, relative = _amount(params, "abs"), _amount(params, "rel")

    def near(main: Json, other: Json) -> bool:
        mine, theirs = as_decimal(main), as_decimal(other)
        if mine is None or theirs is None:
            return False
        try:
            larger = max(mine.copy_abs(), theirs.copy_abs())
            allowed = max(absolute, _DOWN.multiply(relative, larger))
            return _UP.subtract(mine, theirs).copy_abs() <= allowed
        except (ArithmeticError, ValueError):
            return False

    return near


def time_tolerance(params: dict[str, Any]) -> Check:
    """Instants may be `seconds` apart, however they are written. Raises ParamError.

    Read are ISO 8601 date-times, HTTP dates, and Unix numbers in `unit` (s, ms, us, ns). A date-time without an offset
    is no instant, unless `naive: utc` says how to read it.
    """
    allowed = _amount(params, "seconds")
    if "seconds" not in params:
        raise ParamError("seconds", "a number of seconds")
    unit = params.get("unit", "s")
    if unit not in _UNITS:
        raise ParamError("unit", "one of s, ms, us, ns")
    naive = params.get("naive")
    if naive not in (None, "utc"):
        raise ParamError("naive", "utc, or nothing")

    def near(main: Json, other: Json) -> bool:
        mine, theirs = (instant(value, _UNITS[unit], naive_utc=naive == "utc") for value in (main, other))
        return mine is not None and theirs is not None and _UP.subtract(mine, theirs).copy_abs() <= allowed

    return near


def pattern(params: dict[str, Any]) -> Check:
    """Both values, of one type, wholly match `regex`; longer texts than 4096 characters never do. Raises ParamError.

    The parameter may be called `pattern`, too.
    """
    expression = params.get("regex", params.get("pattern"))
    if not isinstance(expression, str) or not 0 < len(expression) <= REGEX_CHARS_MAX:
        raise ParamError("regex", f"a regular expression of 1 to {REGEX_CHARS_MAX} characters")
    try:
        compiled = re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        raise ParamError("regex", f"a regular expression ({error})") from None

    def both_match(main: Json, other: Json) -> bool:
        if json_type(main) != json_type(other):
            return False
        for value in (main, other):
            text = plain_number(value) if isinstance(value, bytes) else value
            if (
                not isinstance(text, str)
                or len(text) > REGEX_TEXT_CHARS_MAX
                or compiled.fullmatch(text) is None
            ):
                return False
        return True

    return both_match


def as_decimal(value: Json) -> Decimal | None:
    """Return a JSON number as a decimal; None for other values and for exponents beyond any decimal."""
    if not isinstance(value, bytes):
        return None
    try:
        made = Decimal(value.decode())
    except (InvalidOperation, ValueError):
        return None
    return made if made.is_finite() and number_of(made) == value else None


def number_of(made: Decimal) -> bytes | None:
    """Return the canonical number of a decimal, to tell a conversion that lost something."""
    try:
        return number(str(made).replace("E+", "e").replace("E", "e"))
    except NotJson:
        return None


def instant(value: Json, unit: Decimal = _UNITS["s"], *, naive_utc: bool = False) -> Decimal | None:
    """Return the Unix seconds a value means, or None if it is no instant. A number counts in `unit` seconds."""
    if isinstance(value, bytes):
        counted = as_decimal(value)
        if counted is None or counted.adjusted() > _DIGITS // 2 or len(value) > _DIGITS:
            return None  # so long that it would have to be rounded
        return _UP.multiply(counted, unit)
    if not isinstance(value, str) or len(value) > 64:
        return None
    found = _ISO.fullmatch(value.strip())
    if found is None:
        return _http_date(value)
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    if offset is None and not naive_utc:
        return None
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    clock = int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    offset_s = _offset_s(offset)
    if int(hour) > 24 or int(minute) > 59 or int(second or 0) > 60 or clock > 86_400 or offset_s is None:
        return None
    return Decimal(days * 86_400 + clock - offset_s) + Decimal("0." + (fraction or "0"))


def _offset_s(offset: str | None) -> int | None:
    """Return an offset from UTC in seconds; None if it is no time of day (RFC 3339 section 5.6)."""
    if offset is None or offset in "Zz":
        return 0
    digits = offset[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 23 or minutes > 59:
        return None
    seconds = hours * 3600 + minutes * 60
    return -seconds if offset[0] == "-" else seconds


def _http_date(text: str) -> Decimal | None:
    try:
        read = parsedate_to_datetime(text)
        return None if read.tzinfo is None else Decimal(int(read.timestamp()))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _amount(params: dict[str, Any], name: str) -> Decimal:
    given = params.get(name, 0)
    if isinstance(given, bool) or not isinstance(given, int | float | str | Decimal):
        raise ParamError(name, "a number that is not negative")
    try:
        amount = Decimal(str(given))
    except InvalidOperation:
        raise ParamError(name, "a number that is not negative") from None
    if not amount.is_finite() or amount < 0:
        raise ParamError(name, "a number that is not negative")
    return amount
