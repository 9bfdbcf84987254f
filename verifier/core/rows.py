"""The images of a request's rows: as they are stored, and as they are compared. Each distinct text is read once.

Both sides mostly write the same rows, and a row's image is needed for what is stored and for each claim.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Raw, UnsetType

from verifier.core.canonical import NotJson, canonical, parse
from verifier.core.limits import Limits
from verifier.core.policy import Policy

WRITE_ROWS_MAX = 200
_PLAIN_BRACKETS_MAX = 64


class RowTexts:
    """The rows of one request."""

    __slots__ = ("_contents", "_images", "_limits", "_policy")

    def __init__(self, policy: Policy, limits: Limits) -> None:
        self._policy = policy
        self._limits = limits
        self._images: dict[bytes, Any] = {}
        self._contents: dict[bytes, str] = {}

    def image(self, data: Raw | UnsetType) -> Any:
        """The row's image for storing: bounded, with the values of redacted fields replaced."""
        if isinstance(data, UnsetType):
            return None
        raw = bytes(data)
        try:
            return self._images[raw]
        except KeyError:
            image = self._images[raw] = self._image(raw)
            return image

    def _image(self, raw: bytes) -> Any:
        if len(raw) > self._limits.row_bytes:
            digest = hashlib.sha256(raw).hexdigest()
            return {"$cut": True, "bytes": len(raw), "sha256": digest}
        if self._policy.mentions_secret(raw) or not _is_plain(raw):
            return self._policy.redacted(raw)
        return Raw(raw)

    def content(self, data: Raw | UnsetType) -> str | None:
        """The row's image as canonical JSON: equal for equal rows however they are written down."""
        if isinstance(data, UnsetType):
            return None
        raw = bytes(data)
        found = self._contents.get(raw)
        if found is None:
            found = self._contents[raw] = _content(raw)
        return found


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
