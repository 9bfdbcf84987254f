"""Cursors of newest-first lists: opaque to the client, the last item's time and id to us."""

from __future__ import annotations

import base64
import binascii
import math

import msgspec

CURSOR_CHARS_MAX = 2048


def encode_cursor(ts: float, item_id: str) -> str:
    """Return the cursor after the item of that time and id: URL-safe text without padding."""
    return base64.urlsafe_b64encode(msgspec.json.encode((ts, item_id))).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> tuple[float, str]:
    """Return the time and id a cursor stands for. Raises ValueError for what `encode_cursor` did not make."""
    if len(cursor) <= CURSOR_CHARS_MAX:
        try:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            decoded = base64.b64decode(padded, altchars=b"-_", validate=True)
            ts, item_id = msgspec.json.decode(decoded, type=tuple[float, str])
        except (UnicodeEncodeError, binascii.Error, msgspec.MsgspecError, UnicodeDecodeError):
            pass
        else:
            if math.isfinite(ts) and "\0" not in item_id:
                return ts, item_id
    raise ValueError("the cursor is not one this service gave: leave it out to start at the newest item")
