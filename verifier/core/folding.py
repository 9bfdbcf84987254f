"""A waiting request's records folded into one JSON text, and back; and so a closed one's conclusion.

A decoded record is a dozen objects, which take more memory than its bytes where thousands of requests wait. The text
says the same: what is unfolded equals what was folded, raw fields byte for byte. It may be packed: JSON repeats itself,
and one side's records the other's. A conclusion is three dozen objects, kept for long and looked at only if something
comes late; its text is what the journal says of it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from verifier.core.events import Seen
from verifier.core.outcome import EventRef, Resolved


class Packing(NamedTuple):
    """How a text is made smaller, and read again: `unpack(pack(text))` is the text."""

    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]


class _Events(msgspec.Struct):
    """What a conclusion rests on, without the conclusion."""

    events: tuple[EventRef, ...]


_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder(list[Seen]).decode
_decode_resolved = msgspec.json.Decoder(Resolved).decode
_decode_events = msgspec.json.Decoder(_Events).decode


def _sized(text: bytes) -> bytes:
    """The text without the room that the encoder left for it to grow."""
    return bytes(memoryview(text))


UNPACKED = Packing(_sized, bytes)


def fold(records: Sequence[Seen], packing: Packing = UNPACKED) -> bytes:
    """The text of records, packed."""
    return packing.pack(_encode(records))


def unfold(text: bytes, packing: Packing = UNPACKED) -> list[Seen]:
    """The records of a text that `fold` made. Their raw fields are parts of what was packed."""
    return _decode(packing.unpack(text))


def fold_resolved(resolved: Resolved) -> bytes:
    """The text of a conclusion."""
    return _sized(_encode(resolved))


def unfold_resolved(text: bytes) -> Resolved:
    """The conclusion of a text that `fold_resolved` made."""
    return _decode_resolved(text)


def events_of(text: bytes) -> tuple[EventRef, ...]:
    """The records that the conclusion of a text that `fold_resolved` made rests on."""
    return _decode_events(text).events
