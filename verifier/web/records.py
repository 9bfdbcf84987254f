"""Original records as people may see them: exact numbers, no secrets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

HIDDEN = "***"
DEPTH_MAX = 200
TEXT_CHARS_MAX = 16_384
DIGITS_MAX = 1000


class Secrets(Protocol):
    """Knows a secret by its name, or by its look inside a text (`adapters.redaction.Redactor`)."""

    def is_secret_name(self, name: str) -> bool: ...

    def text(self, text: str) -> str: ...


class RecordRedactor:
    """Hides secrets in a decoded record and changes nothing else: no width or number is cut.

    What lies deeper than 200 levels is replaced by `(too deep)`; texts over 16 KiB are cut by `Secrets.text`.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def __call__(self, value: Any) -> Any:
        return self._clean(value, 0)

    def _clean(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, (dict, list, tuple)):
            return value
        if depth >= DEPTH_MAX:
            return "(too deep)"
        if isinstance(value, dict):
            return {key: self._member(str(key), item, depth) for key, item in value.items()}
        return [self._clean(item, depth + 1) for item in value]

    def _member(self, name: str, value: Any, depth: int) -> Any:
        if value is not None and self._secrets.is_secret_name(name):
            return HIDDEN
        return self._clean(value, depth + 1)

    def _text(self, text: str) -> str:
        # Most texts cannot hold a secret's mark; a document inside a string can.
        if len(text) <= TEXT_CHARS_MAX and not any(mark in text for mark in "=:") and "earer " not in text:
            return text
        return self._secrets.text(text)


class _PairsWithRepeats:
    """Builds objects and remembers whether a key came twice: the record shown has the last value."""

    def __init__(self) -> None:
        self.repeated = False

    def __call__(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        self.repeated = self.repeated or len(result) < len(pairs)
        return result


def read_record(raw: bytes) -> tuple[Any, str | None]:
    """Return the record's JSON value with exact numbers, and a note when it is not the whole truth.

    Notes: `unreadable` (then the value is None), `repeated_keys`.
    """
    pairs = _PairsWithRepeats()
    try:
        value = json.loads(
            raw,
            parse_float=Decimal,
            parse_constant=_no_constant,
            object_pairs_hook=pairs,
            parse_int=_exact_int,
        )
    except (ValueError, RecursionError, InvalidOperation):
        return None, "unreadable"
    return value, "repeated_keys" if pairs.repeated else None


def _exact_int(text: str) -> int | str:
    # Thousands of digits cost quadratic time, and many readers of the answer refuse them.
    return int(text) if len(text) <= DIGITS_MAX else f"{text[:100]}… ({len(text)} digits)"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
