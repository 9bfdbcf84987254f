"""A waiting request's records folded into one JSON text, and back.

A decoded record is a dozen objects, which take more memory than its bytes where thousands of requests wait. The text
says the same: what is unfolded equals what was folded, raw fields byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from verifier.core.events import Seen

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Seen]).decode


def fold(records: Sequence[Seen]) -> bytes:
    """The text of records."""
    text = _encode(records)
    return bytes(memoryview(text))  # of its size: the encoder's own has room to grow


def unfold(text: bytes) -> list[Seen]:
    """The records of a text that `fold` made. Their raw fields are parts of it."""
    return _decode(text)
