"""Patterns of routes and fields, compiled to regular expressions that cannot run away.

In a pointer pattern `*` stands for any characters within one segment, so a lone `*` is any one segment; array indexes
and write keys are `*` in a field and are met by it. `**` stands for any number of segments; at the end for at least
one, as in gitignore: `/items/**` is everything below `/items`, not `/items` itself. `**` alone is everything.
"""

from __future__ import annotations

import re

PATTERN_CHARS_MAX = 512
_DEEP_MAX = 2  # matching costs length to the power of the number of `**`


class PatternError(ValueError):
    """The pattern cannot be used; the message says what is expected."""


def pointer_regex(pattern: str) -> str:
    """Translate a JSON Pointer pattern. Raises PatternError."""
    _check(pattern)
    if pattern == "**":
        return ".*"
    if pattern and not pattern.startswith("/"):
        raise PatternError("expected a JSON Pointer pattern such as /items/*/id, or ** for everything")
    segments = pattern.split("/")[1:]
    if segments.count("**") > _DEEP_MAX:
        raise PatternError(f"expected at most {_DEEP_MAX} times ** in a pattern")
    if re.search(r"~(?![01])", pattern):
        raise PatternError("expected ~0 for ~ and ~1 for / inside a name (RFC 6901)")
    last = len(segments) - 1
    return "".join(
        (r"(?:/[^/]*)+" if at == last else r"(?:/[^/]*)*")
        if segment == "**"
        else "/" + _glob(segment, "[^/]*")
        for at, segment in enumerate(segments)
    )


def name_regex(pattern: str) -> str:
    """Translate a header's name, which may hold `*`. Raises PatternError."""
    _check(pattern)
    if not pattern or "/" in pattern:
        raise PatternError("expected a header's name such as x-request-id or proxy-*")
    return _glob(pattern.lower(), ".*")


def route_regex(pattern: str) -> str:
    """Translate a route such as `GET /api/v1/items/{id}`, where `*` stands for any characters. Raises PatternError."""
    _check(pattern)
    return _glob(pattern, ".*")


def specificity(pattern: str) -> tuple[int, int]:
    """Rank a field pattern: without wildcards above `*` above `**`; then by its literal segments."""
    segments = pattern.split("/")
    literal = sum(1 for segment in segments if segment and "*" not in segment)
    return (1 if "**" in segments else 2 if "*" in pattern else 3), literal


def _check(pattern: str) -> None:
    if len(pattern) > PATTERN_CHARS_MAX:
        raise PatternError(f"expected at most {PATTERN_CHARS_MAX} characters")


def _glob(text: str, star: str) -> str:
    return star.join(re.escape(part) for part in re.split(r"\*+", text))
