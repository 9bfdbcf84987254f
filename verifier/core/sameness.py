"""Whether two JSON texts certainly hold the same value, told without building what a comparison needs.

Both are decoded by the quick decoder and compared by `==`, which is not yet JSON's equality: to Python, `True` is `1`,
and the decoder forgets that a name was given twice. So what is equal is written again: in the one way it can be
written, texts tell all values apart, and fewer names come out than went in if one was repeated.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import Raw

from verifier.core.canonical import NotJson, number

_LITERALS_MAX = 16_384
_LITERAL_CHARS_MAX = 40
_WHOLE_ZEROS_MAX = 18
# How a quote or a colon may be spelt inside a text so that it looks otherwise when it is written again.
_HIDING = (b'\\"', b"\\u0022", b"\\u003a", b"\\u003A")


def surely_same(main: bytes, other: bytes) -> bool:
    """Say whether two texts are JSON and hold equal values; False also where that is not so plain to see."""
    try:
        mine, theirs = _decode(main), _decode(other)
        if mine != theirs:
            return False
        text = _encode(mine)
        if text != _encode(theirs):
            return False
    except (ValueError, RecursionError):
        return False
    names = text.count(b'":')
    return _names(main) == names and _names(other) == names


def _names(text: bytes) -> int | None:
    """Count a quote before a colon: once for each member, and as often again in texts as when they are written anew."""
    if b"\\" in text and any(map(text.__contains__, _HIDING)):
        return None
    # A blank before a colon would hide a member. To look for one character is much quicker than to look for two.
    if b" :" in text or b"\t" in text or b"\n" in text or b"\r" in text:
        return None
    return text.count(b'":')


def _real(literal: str) -> int | Raw:
    if len(literal) > _LITERAL_CHARS_MAX:
        raise NotJson("a literal too long to be remembered")
    return _short_real(literal)


@lru_cache(maxsize=_LITERALS_MAX)
def _short_real(literal: str) -> int | Raw:
    """Return a number with a fraction or an exponent as its one text; as an integer if it is one and not too long."""
    text = number(literal)
    digits, _, exponent = text.partition(b"e")
    if not exponent:
        return int(digits)
    if len(exponent) < 3 and 0 < int(exponent) <= _WHOLE_ZEROS_MAX:
        return int(digits + b"0" * int(exponent))
    return Raw(text)


_decode = msgspec.json.Decoder(float_hook=_real).decode
_encode = msgspec.json.Encoder(order="deterministic").encode
