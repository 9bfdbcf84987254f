"""The images of a request's rows: as they are stored, and as they are compared. Each distinct text is read once.

Both sides mostly write the same rows, and a row's image is needed for what is stored and for each claim.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from math import isinf
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, UnsetType

from verifier.core.canonical import NotJson, canonical, number, parse
from verifier.core.limits import Limits
from verifier.core.policy import Policy

WRITE_ROWS_MAX = 200
_PLAIN_BRACKETS_MAX = 64
_LITERALS_MAX = 16_384
_LITERAL_CHARS_MAX = 40
_encode = msgspec.json.encode


class RowText(NamedTuple):
    """A row's text, read.

    `image` is for storing: bounded, with the values of redacted fields replaced; `size` is that of its JSON in bytes.
    `content` is canonical JSON: equal for equal rows however they are written down. Both are None without a text.
    """

    image: Any
    content: str | None
    size: int


_NO_ROW = RowText(None, None, 4)


class RowTexts:
    """The rows of one request."""

    __slots__ = ("_limits", "_policy", "_read")

    def __init__(self, policy: Policy, limits: Limits) -> None:
        self._policy = policy
        self._limits = limits
        self._read: dict[bytes, RowText] = {}

    def of(self, data: Raw | UnsetType) -> RowText:
        """Read a row's text, or recall it."""
        if isinstance(data, UnsetType):
            return _NO_ROW
        raw = bytes(data)
        found = self._read.get(raw)
        if found is None:
            content = _plain_content(raw)
            image = self._image(raw, plain=content is not None)
            size = len(raw) if isinstance(image, Raw) else len(_encode(image))
            found = self._read[raw] = RowText(image, content or _content(raw), size)
        return found

    def _image(self, raw: bytes, *, plain: bool) -> Any:
        if len(raw) > self._limits.row_bytes:
            digest = hashlib.sha256(raw).hexdigest()
            return {"$cut": True, "bytes": len(raw), "sha256": digest}
        if self._policy.mentions_secret(raw) or not (plain or _is_plain(raw)):
            return self._policy.redacted(raw)
        return Raw(raw)


def _plain_content(raw: bytes) -> str | None:
    """The content of a row that is certainly plain, escapes nothing and names no member twice; None for any other.

    This is what `_content` and `_is_plain` say, in half the time. The decoder does not tell of repeated members; but
    where nothing is escaped every text has two quotes, so what it drops is missed in the result.
    """
    if b"\\" in raw or raw.count(b"[") + raw.count(b"{") > _PLAIN_BRACKETS_MAX:
        return None
    pieces: list[str] = []
    try:
        _add_text(_decode_exactly(raw), pieces)
    except (msgspec.DecodeError, ValueError):
        return None
    text = "".join(pieces)
    return text if text.count('"') == raw.count(b'"') else None


@lru_cache(_LITERALS_MAX)
def _exact(literal: str) -> bytes:
    """A number with a fraction or an exponent, in canonical form. Raises ValueError for what is not plain."""
    if len(literal) > _LITERAL_CHARS_MAX or isinf(float(literal)):
        raise ValueError(literal[:_LITERAL_CHARS_MAX])
    return number(literal)


_decode_exactly = msgspec.json.Decoder(float_hook=_exact).decode


def _add_text(value: Any, out: list[str]) -> None:
    """Add the pieces of a value's canonical text. An object's members, mostly texts and integers, need no calls."""
    kind = type(value)
    if kind is dict:
        out.append("{")
        for name in sorted(value):
            item = value[name]
            kind = type(item)
            out.append(f"{encode_basestring_ascii(name)}:")
            if kind is str:
                out.append(encode_basestring_ascii(item))
            elif kind is int and item % 10:
                out.append(str(item))
            else:
                _add_text(item, out)
            out.append(",")
        if value:
            out[-1] = "}"
        else:
            out.append("}")
    elif kind is list:
        out.append("[")
        for item in value:
            _add_text(item, out)
            out.append(",")
        if value:
            out[-1] = "]"
        else:
            out.append("]")
    elif kind is str:
        out.append(encode_basestring_ascii(value))
    elif kind is int:
        digits = str(value)
        kept = digits.rstrip("0")
        out.append("0" if not value else digits if kept == digits else f"{kept}e{len(digits) - len(kept)}")
    elif kind is bytes:
        out.append(str(value, "ascii"))
    else:
        out.append("null" if value is None else "true" if value else "false")


def _content(raw: bytes) -> str:
    try:
        return canonical(parse(raw)).decode()
    except NotJson:
        return raw.decode(errors="backslashreplace")


def _is_plain(raw: bytes) -> bool:
    """Whether every reader of JSON takes the text: no number that no double holds, no deep nesting."""
    if raw.count(b"[") + raw.count(b"{") > _PLAIN_BRACKETS_MAX:
        return False
    try:
        msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return False
    return True
