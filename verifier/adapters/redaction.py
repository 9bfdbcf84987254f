"""Keeping secrets out of everything people may read: log lines, error messages, `describe()`.

Two ways, both needed: a value is hidden because of the *name* it stands under (`password`, `cookie`), or because
of what it *looks like* inside a longer text (`postgresql://user:…@host`, `Bearer …`). Work is bounded: deep,
long or wide values are cut and say so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

HIDDEN = "***"

DEPTH_MAX = 8
ITEMS_MAX = 200
TEXT_CHARS_MAX = 16_384

_SECRET_NAMES = (
    "authorization",
    "proxy_authorization",
    "cookie",
    "set_cookie",
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "private_key",
    "credentials",
)
_SECRET_ENDINGS = (
    "_password",
    "_passwd",
    "_secret",
    "_token",
    "_api_key",
    "_apikey",
    "_cookie",
    "_private_key",
)

# `scheme://user:password@`. A password with an unescaped "/" or "@" in it is wrong but common, so everything up to
# the last "@" goes; a purely numeric part before "/" is a port, and then the "@" belongs to the path or query.
# Word by word and with one search for the "@": a pattern for the whole would take quadratic time on hostile text.
_WORD = re.compile(r"""[^\s"'<>]+""")
_URL_LOGIN = re.compile(r"://[^/:@?#]*:(?!\d+(?:[/?#]|$))")
_BEARER = re.compile(r"\b(Bearer|Basic|Digest)(\s+)[A-Za-z0-9._~+/=:-]{4,}", re.IGNORECASE)
_COOKIE_LINE = re.compile(
    r"""\b((?:proxy-)?authorization|(?:set-)?cookie)(["']?\s*[:=]\s*)(?!\*\*\*)("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\r\n"',}]+)""",
    re.IGNORECASE,
)


def normalise_name(name: str) -> str:
    """`Set-Cookie`, `set_cookie` and `SET-COOKIE` are one name."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


class Redactor:
    """Hides secrets in text and in nested values. Stateless after construction, safe to share.

    `names` are further field or header names whose values are always hidden, in any spelling of case, `-` and `_`.
    """

    __slots__ = ("_assignment", "_names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        extra = tuple(normalise_name(name) for name in names if name.strip())
        self._names = frozenset(_SECRET_NAMES + extra)
        words = sorted(
            {*_SECRET_NAMES, *extra, "sslpassword", "access_token", "refresh_token"}, key=len, reverse=True
        )
        pattern = "|".join(re.escape(word).replace("_", "[_-]") for word in words)
        # name=value and "name": "value" inside a text: query strings, libpq DSNs, printed dictionaries.
        self._assignment = re.compile(
            rf"""(?<![A-Za-z0-9])({pattern})(["']?\s*[=:]\s*)"""
            r"""(?!//)("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s&;,"'}\])]+)""",
            re.IGNORECASE,
        )

    def is_secret_name(self, name: str) -> bool:
        """Whether whatever stands under this name is hidden."""
        plain = normalise_name(name)
        return plain in self._names or plain.endswith(_SECRET_ENDINGS)

    def text(self, text: str) -> str:
        """`text` without passwords of URLs and DSNs, tokens, cookies and authorization values; cut at 16 KiB."""
        if len(text) > TEXT_CHARS_MAX:
            # Scrubbed before it is cut, over a margin, so that the cut cannot split a secret from what marks it.
            kept = self._scrub(text[: TEXT_CHARS_MAX * 2])[:TEXT_CHARS_MAX]
            return f"{kept}… (+{len(text) - TEXT_CHARS_MAX} characters)"
        return self._scrub(text)

    def _scrub(self, text: str) -> str:
        if "://" in text:
            text = _WORD.sub(_hide_url_password, text)
        if "=" in text or ":" in text:
            text = _COOKIE_LINE.sub(rf"\1\2{HIDDEN}", text)
            text = self._assignment.sub(rf"\1\2{HIDDEN}", text)
        return _BEARER.sub(rf"\1\2{HIDDEN}", text)

    def value(self, value: object, depth: int = 0) -> object:
        """A copy of `value` made of JSON types alone, without secrets, at most 8 deep and 200 items wide."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if -(2**63) <= value < 2**64 else str(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.text(bytes(value[: TEXT_CHARS_MAX * 2]).decode("utf-8", "backslashreplace"))
        if isinstance(value, (Mapping, Sequence, AbstractSet)) and depth >= DEPTH_MAX:
            return "(too deep)"
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, (Sequence, AbstractSet)):
            return self._items(value, depth)
        return self.text(str(value))

    def _mapping(self, value: Mapping[object, object], depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        for count, (key, item) in enumerate(value.items()):
            if count == ITEMS_MAX:
                result["…"] = f"+{len(value) - ITEMS_MAX} items"
                break
            name = _name_text(key)
            result[name] = (
                HIDDEN if self.is_secret_name(name) and item is not None else self.value(item, depth + 1)
            )
        return result

    def _items(self, value: Sequence[object] | AbstractSet[object], depth: int) -> list[object]:
        items = list(value)[:ITEMS_MAX]
        if (
            len(items) == 2
            and isinstance(items[0], (str, bytes))
            and self.is_secret_name(_name_text(items[0]))
        ):
            return [_name_text(items[0]), HIDDEN]  # one header of a list of pairs
        result = [self.value(item, depth + 1) for item in items]
        if len(value) > ITEMS_MAX:
            result.append(f"… (+{len(value) - ITEMS_MAX} items)")
        return result


def _hide_url_password(word: re.Match[str]) -> str:
    text = word.group()
    login = _URL_LOGIN.search(text)
    end = text.rfind("@")
    return text if login is None or end < login.end() else f"{text[: login.end()]}{HIDDEN}{text[end:]}"


def _name_text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
