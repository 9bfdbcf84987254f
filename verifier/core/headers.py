"""Header fields compared by what they mean: names without case, lists as lists, media types as media types.

Sources: RFC 9110 (sections 5.1 to 5.6, 7.6.1, 8.3 to 8.5, 12.5.5, 14.1), RFC 8259 section 11
(`application/json` has no charset).
"""

from __future__ import annotations

import re
from collections import Counter

import msgspec
from msgspec import Raw, Struct, UnsetType

from verifier.core.canonical import Json, NotJson, Repeated, number, parse, plain_number
from verifier.core.difference import Change, Kind
from verifier.core.findings import ABSENT, Findings

Headers = dict[str, str | list[str]]

_decode = msgspec.json.Decoder(Headers).decode
_BLANKS = b" \t\r\n"
_LIST_NAMES = frozenset((
    "accept", "accept-charset", "accept-ch", "accept-encoding", "accept-language", "accept-patch", "accept-post",
    "accept-ranges", "access-control-allow-headers", "access-control-allow-methods", "access-control-expose-headers",
    "allow", "cache-control", "connection", "content-encoding", "content-language", "forwarded", "if-match",
    "if-none-match", "link", "pragma", "preference-applied", "server-timing", "te", "trailer", "transfer-encoding",
    "upgrade", "vary", "via", "warning", "x-forwarded-for",
))  # fmt: skip
# Lists of field names, codings, connection options, languages and units: in these, case says nothing.
_CASELESS_NAMES = frozenset((
    "accept-encoding", "accept-ranges", "access-control-allow-headers", "access-control-expose-headers", "connection",
    "content-encoding", "content-language", "te", "trailer", "transfer-encoding", "vary",
))  # fmt: skip
_HEADER = Kind.HEADER
_READ_NAMES = _LIST_NAMES | {"content-type"}
# One item of a list: quoted strings hold commas of their own, and so do URIs in angle brackets.
_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|<[^>]*>|[^,"<]|["<])+', re.DOTALL)
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
_NUMERIC_ACTIONS = ("tolerance", "time_tolerance")
_NUMERIC = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_MEDIA_CHARS_MAX = 1024
_LIST_CHARS_MAX = 4096
_JSON_TYPES = ("application/json", "text/json")


class Media(Struct, frozen=True):
    """A media type: `name` lower-case ("" if unknown), `charset` lower-case or "", other parameters sorted."""

    name: str = ""
    charset: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def is_json(self) -> bool:
        return self.name in _JSON_TYPES or self.name.endswith("+json")

    @property
    def is_form(self) -> bool:
        return self.name == "application/x-www-form-urlencoded"


def read_headers(raw: Raw | UnsetType) -> Headers | None:
    """Return header fields by lower-case name, repeated ones as a list; None if they cannot be read as such."""
    if isinstance(raw, UnsetType):
        return None
    data = bytes(raw)
    try:
        made = _decode(data)
        # A member named twice would be lost: there are as many names as members, with and without blanks before the
        # colons, or we look closer.
        names = len(made)
        if (
            data.count(b'":') == names
            and data.translate(None, _BLANKS).count(b'":') == names
            and "".join(made).islower()
        ):
            return made
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return _lifted(parse(data))
    except NotJson:
        return None


def _lifted(value: Json) -> Headers | None:
    if isinstance(value, list):
        pairs = [(item[0], item[1]) for item in value if isinstance(item, list) and len(item) == 2]
        if len(pairs) != len(value):
            return None
    elif isinstance(value, Repeated):
        pairs = [(name, each) for name, last in value.items() for each in value.repeats.get(name, [last])]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        return None
    made: dict[str, list[str]] = {}
    for name, member in pairs:
        texts = [_text(each) for each in (member if isinstance(member, list) else [member])]
        if not isinstance(name, str):
            return None
        made.setdefault(name.lower(), []).extend(text for text in texts if text is not None)
        if None in texts:
            return None
    return {name: texts[0] if len(texts) == 1 else texts for name, texts in made.items()}


def _text(value: Json) -> str | None:
    if isinstance(value, bytes):
        return plain_number(value)
    return value if isinstance(value, str) else None


def media_of(headers: Headers | None) -> Media:
    """Return the content type that headers tell."""
    given = "" if headers is None else headers.get("content-type", "")
    return read_media(given if isinstance(given, str) else given[0] if given else "")


def read_media(text: str) -> Media:
    """Read a content type (RFC 9110 section 8.3.1)."""
    if not text or len(text) > _MEDIA_CHARS_MAX:
        return Media(name=text.lower())
    name = text.partition(";")[0].strip().lower()
    charset = ""
    others: list[tuple[str, str]] = []
    for key, value in _PARAMETER.findall(text):
        stripped = value.strip()
        if stripped[:1] == '"':
            stripped = re.sub(r"\\(.)", r"\1", stripped[1:-1])
        if key.lower() == "charset":
            charset = stripped.lower()
        else:
            others.append((key.lower(), stripped))
    return Media(name, charset, tuple(sorted(others)))


def content_codings(headers: Headers | None) -> tuple[str, ...]:
    """Return the content codings that headers tell, in the order they were applied."""
    given = [] if headers is None else _values(headers.get("content-encoding", ""))
    return tuple(item.lower() for item in _items(given) if item.lower() != "identity")


def compare_headers(main: Headers, other: Headers, findings: Findings) -> None:
    """Note each header field that differs. `path` and `field` are its name.

    Values of one name are compared in order; a list of values equals the same values joined with commas, other than
    for `set-cookie`. Content types are compared as RFC 9110 reads them, and `charset=utf-8` says nothing on JSON.
    """
    tracking = findings.tracks_ids(_HEADER)
    for name, mine in main.items():
        theirs = other.get(name)
        if mine == theirs:
            if tracking and isinstance(mine, str):
                findings.equal(_HEADER, name, name, mine)
        elif theirs is None:
            findings.structure(_HEADER, name, name, Change.MISSING, _shown(mine), ABSENT)
        elif type(mine) is str and type(theirs) is str and name not in _READ_NAMES:
            stripped, stripped_other = mine.strip(), theirs.strip()
            if stripped != stripped_other:
                _texts_differ(name, stripped, stripped_other, findings)
            elif tracking:
                findings.equal(_HEADER, name, name, mine)
        elif not _same(name, mine, theirs):
            _differ(name, mine, theirs, findings)
        elif tracking and isinstance(mine, str):
            findings.equal(_HEADER, name, name, mine)
    if main.keys() != other.keys():
        for name, theirs in other.items():
            if name not in main:
                findings.structure(_HEADER, name, name, Change.EXTRA, ABSENT, _shown(theirs))


def _same(name: str, main: str | list[str], other: str | list[str]) -> bool:
    mine, theirs = _values(main), _values(other)
    if name == "content-type":
        return len(mine) == len(theirs) == 1 and _meaning(read_media(mine[0])) == _meaning(
            read_media(theirs[0])
        )
    if name in _LIST_NAMES:
        return _tokens(name, mine) == _tokens(name, theirs)
    if name == "set-cookie":
        return mine == theirs
    return ", ".join(mine) == ", ".join(theirs)


def _meaning(media: Media) -> Media:
    if media.is_json and media.charset in ("utf-8", "utf8"):
        return msgspec.structs.replace(media, charset="")
    return media


def _differ(name: str, main: str | list[str], other: str | list[str], findings: Findings) -> None:
    if isinstance(main, str) and isinstance(other, str):
        if name in _LIST_NAMES and _is_reordered(_tokens(name, _values(main)), _tokens(name, _values(other))):
            findings.structure(_HEADER, name, name, Change.ORDER, main, other)
            return
        _texts_differ(name, main.strip(), other.strip(), findings)
        return
    mine, theirs = _values(main), _values(other)
    listed = name in _LIST_NAMES
    if _is_reordered(*((_tokens(name, mine), _tokens(name, theirs)) if listed else (mine, theirs))):
        findings.structure(_HEADER, name, name, Change.ORDER, _shown(main), _shown(other))
    else:
        findings.value(_HEADER, name, name, [*mine], [*theirs])


def _texts_differ(name: str, main: str, other: str, findings: Findings) -> None:
    found = findings.rule_at(_HEADER, name)
    if found is not None and found.action in _NUMERIC_ACTIONS:
        findings.value(_HEADER, name, name, _numeric(main), _numeric(other))
    else:
        findings.value(_HEADER, name, name, main, other)


def _is_reordered(main: list[str], other: list[str]) -> bool:
    return len(main) > 1 and len(main) == len(other) and Counter(main) == Counter(other)


def _numeric(text: str) -> Json:
    return number(text) if _NUMERIC.fullmatch(text) else text


def _values(value: str | list[str]) -> list[str]:
    return [value.strip()] if isinstance(value, str) else [each.strip() for each in value]


def _tokens(name: str, values: list[str]) -> list[str]:
    """Return the items of a list as they are to be compared."""
    items = _items(values)
    return [item.lower() for item in items] if name in _CASELESS_NAMES else items


def _items(values: list[str]) -> list[str]:
    if sum(map(len, values)) > _LIST_CHARS_MAX:  # beyond it, taking lists apart might take quadratic time
        return values
    return [item.strip() for value in values for item in _ITEM.findall(value) if item.strip()]


def _shown(value: str | list[str]) -> Json:
    return value if isinstance(value, str) else [*value]
