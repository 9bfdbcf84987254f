"""Which route a request belongs to: the method and a path template, out of configuration, the record, or the path.

The number of routes has a bound, for they are keys of tables and labels of metrics.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from urllib.parse import unquote

METHODS = frozenset(
    (
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "REPORT",
        "QUERY",
    )
)
OTHER = "(other)"
_SEGMENTS_MAX = 12
_SEGMENT_CHARS_MAX = 64
_GIVEN_CHARS_MAX = 256
_LOOKUPS_MAX = 16_384
_PATH_CHARS_MAX = 4_096
_OPAQUE_CHARS_MIN = 16

_PARAMETER = re.compile(r"^(?::[A-Za-z_]\w*|<[^<>/]+>|\{[^{}/]*\}|\*)$")
_LITERAL = re.compile(r"[A-Za-z0-9._~:@$!()*+,;='-]+")
# A number, UUID, long hex number, ULID, e-mail address or date: one pattern, for it is asked of nearly every request.
_NAMES_ONE = re.compile(
    r"-?[0-9]+(?:\.[0-9]+)?"
    r"|(?i:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"|(?i:(?=.*[0-9])(?:0x)?[0-9a-f]{8,})"
    r"|(?i:[0-7][0-9A-HJKMNP-TV-Z]{25})"
    r"|[^@/\s]+@[^@/\s]+\.[A-Za-z0-9-]+"
    r"|[0-9]{4}-[0-9]{2}(?:-[0-9]{2}(?:[T ][0-9:.]+(?:Z|[+-][0-9:]+)?)?)?|[0-9]{8}T[0-9]{6}Z?"
)
# Segments that are ids whatever stands around them, and need not be looked at one by one: digits and UUIDs.
_PLAIN_IDS = re.compile(
    r"(?<=/)(?:[0-9]+|[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12})(?=/|\Z)"
)
_AN_ID = "0"
_OPAQUE = re.compile(r"[A-Za-z0-9_~.+=-]+")
_WORD = re.compile(r"[A-Za-z]*|[A-Za-z]{0,3}[0-9]{1,4}|[A-Za-z]+[0-9]{1,2}")


class Router:
    """Names the route of a request.

    Templates such as `POST /api/v1/data-sources/{id}` come first (without a method, or with `*`, they hold for every
    method; of several that fit, the one with a literal segment where the others have a parameter). Then the route a
    record names itself, then one inferred from the path. Beyond `routes_max` different ones that are not configured, a
    request goes to `{METHOD} (other)`, and `overflowed` counts it.
    """

    def __init__(self, templates: Sequence[str], *, routes_max: int) -> None:
        self._by_length: dict[int, list[tuple[str, tuple[str, ...], str]]] = {}
        for template in templates:
            method, segments = _read_template(template)
            self._by_length.setdefault(len(segments), []).append((method, segments, _written(segments)))
        for candidates in self._by_length.values():
            # Stable: among equals the first configured wins; a named method is narrower than any method.
            candidates.sort(key=lambda each: ([part.startswith("{") for part in each[1]], each[0] == "*"))
        literals = {part for group in self._by_length.values() for _, parts, _ in group for part in parts}
        # Two paths that differ in such ids have one route, unless a template names one of them.
        self._ids_are_alike = not any(_PLAIN_IDS.fullmatch("/" + part, 1) for part in literals)
        self._routes_max = routes_max
        self._known: set[str] = set()
        self._resolve = lru_cache(_LOOKUPS_MAX)(self._find)
        self.overflowed = 0

    def route(self, method: str, path: str, given: str | None = None) -> str:
        """Return the route of a request for a path, which may have a query; `given` is what the record says."""
        path = path.partition("?")[0].partition("#")[0][:_PATH_CHARS_MAX]
        if self._ids_are_alike and "://" not in path:
            path = _PLAIN_IDS.sub(_AN_ID, path)
        found = self._resolve(method, path, given)
        if found.endswith(OTHER):
            self.overflowed += 1
        return found

    def _find(self, method: str, path: str, given: str | None) -> str:
        name = method.strip().upper()
        if name not in METHODS:
            name = "OTHER"
        segments = _segments(path)
        for wanted, template, written in self._by_length.get(len(segments), ()):
            if wanted in ("*", name) and _fits(template, segments):
                return f"{name} {written}"
        route = None if given is None else _normalised(given, name)
        return self._bounded(name, route or f"{name} {_inferred(segments)}")

    def _bounded(self, method: str, route: str) -> str:
        if route in self._known:
            return route
        if len(self._known) >= self._routes_max:
            return f"{method} {OTHER}"
        self._known.add(route)
        return route


def _read_template(template: str) -> tuple[str, tuple[str, ...]]:
    method, _, path = template.strip().rpartition(" ")
    method = method.strip().upper()
    return ("*" if method in ("", "ANY") else method), tuple(map(_parameter, _segments(path)))


def _segments(path: str) -> tuple[str, ...]:
    if "://" in path[:32]:  # absolute form (RFC 9112 section 3.2.2)
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    return tuple(filter(None, path.split("/")))


def _parameter(segment: str) -> str:
    """Return a template's segment with a parameter of any framework's style written as `{name}`."""
    if not _PARAMETER.match(segment):
        return segment
    name = (
        segment.strip(":<>{}*").rpartition(":")[2] if segment[0] != "{" else segment[1:-1].partition(":")[0]
    )
    return "{" + (name or "id") + "}"


def _written(segments: Sequence[str]) -> str:
    return "/" + "/".join(segments)


def _fits(template: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    return all(part == segment or part[0] == "{" for part, segment in zip(template, segments, strict=True))


def _normalised(given: str, method: str) -> str | None:
    """Return the route a record names, with the request's method; None if it is no route."""
    path = given.strip().rpartition(" ")[2].partition("?")[0]
    if not path.startswith("/") or len(path) > _GIVEN_CHARS_MAX or not path.isprintable():
        return None
    return f"{method} {_written([_parameter(segment) for segment in _segments(path)])}"


def _inferred(segments: tuple[str, ...]) -> str:
    parts = ["{id}" if is_id(segment) else segment for segment in segments[:_SEGMENTS_MAX]]
    if len(segments) > _SEGMENTS_MAX:
        parts.append("{rest}")
    return _written(parts)


def is_id(segment: str) -> bool:
    """Say whether a path's segment names one thing (a number, UUID, hash, date, address, key) rather than a kind."""
    return _short_is_id(segment) if len(segment) <= _SEGMENT_CHARS_MAX else _is_id(segment)


@lru_cache(_LOOKUPS_MAX)
def _short_is_id(segment: str) -> bool:
    return _is_id(segment)


def _is_id(segment: str) -> bool:
    text = unquote(segment)
    if len(text) > _SEGMENT_CHARS_MAX or not _LITERAL.fullmatch(text):
        return True
    if "," in text:
        return all(is_id(part) for part in text.split(",") if part)
    if _NAMES_ONE.fullmatch(text):
        return True
    return len(text) >= _OPAQUE_CHARS_MIN and _is_opaque(text)


def _is_opaque(text: str) -> bool:
    """Say whether a long token is random rather than words: digits inside a part, padding, or restless case."""
    if not _OPAQUE.fullmatch(text):
        return False
    if text.endswith("="):
        return True
    parts = [part for part in re.split(r"[-_.~+=]", text) if part]
    if not all(_WORD.fullmatch(part) for part in parts):
        return True
    turns = sum(1 for one, two in pairwise(text) if one.isupper() != two.isupper())
    return any(char.islower() for char in text) and turns > len(text) * 0.35
