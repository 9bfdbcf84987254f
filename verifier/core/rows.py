"""The images of a request's rows: as they are stored, and as they are compared. Each distinct text is read once.

Both sides mostly write the same rows, and a row's image is needed for what is stored and for each claim.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, UnsetType

from verifier.core.canonical import NotJson, canonical, parse
from verifier.core.limits import Limits
from verifier.core.policy import Policy

WRITE_ROWS_MAX = 200
_PLAIN_BRACKETS_MAX = 64
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
            image = self._image(raw)
            size = len(raw) if isinstance(image, Raw) else len(_encode(image))
            found = self._read[raw] = RowText(image, _content(raw), size)
        return found

    def _image(self, raw: bytes) -> Any:
        if len(raw) > self._limits.row_bytes:
            digest = hashlib.sha256(raw).hexdigest()
            return {"$cut": True, "bytes": len(raw), "sha256": digest}
        if self._policy.mentions_secret(raw) or not _is_plain(raw):
            return self._policy.redacted(raw)
        return Raw(raw)


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
