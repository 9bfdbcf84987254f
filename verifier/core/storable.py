"""Texts and JSON in a form that any database row and index can hold.

PostgreSQL refuses U+0000, lone surrogates and numbers beyond its numeric type, and an index entry over 2.7
kB. A value from somebody's traffic must never stop a batch, so such values are changed here, the same way
every time.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import msgspec

TEXT_BYTES_MAX = 512
_SHORT_CHARS = 128
_MARK_HEX = 16
_DEPTH_MAX = 100
_DIGITS_MAX = 999
_TOO_DEEP = "(nested too deeply)"
_REPLACEMENT = "�"
# Makes digits, exponents and opening brackets alike, so that plain searches find what may be too large or too deep.
_SHAPE = bytes.maketrans(b"123456789E{", b"000000000e[")
# What the plain searches find is mostly an id in hexadecimal digits or a harmless escape: these tell.
_LARGE_EXPONENT = re.compile(rb"(?:^|[:,\[\s])-?[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]{4}").search
_BAD_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89A-Fa-f])").search
_TOO_MANY_DIGITS = b"0" * (_DIGITS_MAX + 1)
_TOO_MANY_BRACKETS = b"[" * 64
_encode = msgspec.json.Encoder(decimal_format="number").encode


def bounded_text(text: str) -> str:
    """Return `text` fit for an indexed column: no NUL, at most 512 bytes of UTF-8.

    A longer one keeps its beginning and ends in a hash of the whole, so that different texts stay different.
    """
    if len(text) <= _SHORT_CHARS and text.isascii() and "\0" not in text:
        return text
    clean = _storable_text(text)
    encoded = clean.encode()
    if len(encoded) <= TEXT_BYTES_MAX:
        return clean
    mark = blake2b(encoded, digest_size=_MARK_HEX // 2).hexdigest()
    return encoded[: TEXT_BYTES_MAX - _MARK_HEX - 1].decode(errors="ignore") + "~" + mark


def json_text(value: Any) -> str:
    """Return `value` as JSON text that PostgreSQL's jsonb takes; what it would refuse is replaced.

    `msgspec.Raw` inside it is passed on as it is, unless something in it has to be replaced.
    """
    try:
        encoded = _encode(value)
    except UnicodeEncodeError:
        encoded = _encode(_storable(msgspec.to_builtins(value, builtin_types=(Decimal,)), 0))
    if _suspicious(encoded):
        try:
            parsed = json.loads(encoded.decode(errors="replace"), parse_float=Decimal, parse_int=Decimal)
        except RecursionError:
            parsed = _TOO_DEEP
        encoded = _encode(_storable(parsed, 0))
    return encoded.decode(errors="replace")


def _suspicious(encoded: bytes) -> bool:
    """Whether jsonb might refuse this: NUL, surrogates, numbers beyond its range, endless nesting."""
    if b"\\u" in encoded and _BAD_ESCAPE(encoded):
        return True
    shape = encoded.translate(_SHAPE, b"+-")
    if b"0e0000" in shape and _LARGE_EXPONENT(encoded):
        return True
    return _TOO_MANY_BRACKETS in shape or (len(shape) > _DIGITS_MAX and _TOO_MANY_DIGITS in shape)


def _storable_text(text: str) -> str:
    return text.replace("\0", _REPLACEMENT).encode(errors="replace").decode()


def _storable(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _storable_text(value)
    if isinstance(value, (list, tuple, dict)):
        if depth == _DEPTH_MAX:
            return _TOO_DEEP
        if isinstance(value, dict):
            return {_storable_text(str(key)): _storable(item, depth + 1) for key, item in value.items()}
        return [_storable(item, depth + 1) for item in value]
    if isinstance(value, Decimal):
        too_long = len(value.as_tuple().digits) > _DIGITS_MAX
        return str(value) if too_long or abs(value.adjusted()) > _DIGITS_MAX else value
    return value
