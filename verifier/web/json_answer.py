"""JSON out: numbers stay exact numbers, and no text from somebody's traffic can break an answer."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec
from starlette.responses import Response

_encode = msgspec.json.Encoder(decimal_format="number").encode
_SURROGATE = re.compile("[\ud800-\udfff]")


def encode_json(value: Any) -> bytes:
    """Return `value` as UTF-8 JSON; decimals as numbers, lone surrogates (not UTF-8) as U+FFFD."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_without_surrogates(msgspec.to_builtins(value, builtin_types=(Decimal,))))


def answer(value: Any, status: int = 200) -> Response:
    """A JSON answer. It holds users' data, so no cache keeps it."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(encode_json(value), status_code=status, headers=headers, media_type="application/json")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(item) for item in value]
    return value
