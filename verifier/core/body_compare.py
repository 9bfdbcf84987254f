"""Two bodies compared on their content: as JSON where a side means JSON and both are, as a form, as text, as bytes."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import parse_qsl

from verifier.core.bodies import BODY_TOO_DEEP, Content, document_of
from verifier.core.canonical import Json, NotJson, TooDeep
from verifier.core.difference import Change, Kind
from verifier.core.documents import compare_documents, unwrapped
from verifier.core.findings import ABSENT, Findings
from verifier.core.rules import IGNORE
from verifier.core.unread import compare_unread
from verifier.core.witness import bytes_witness, text_witnesses

_BODY = Kind.BODY
_OPENING = ("{", "[")
_JSON_BLANKS = " \t\n\r"
_SNIFFED = ("{", "[", '"')


def compare_bodies(main: Content, other: Content, findings: Findings) -> None:
    """Note how two bodies differ, or why it cannot be told."""
    if "unreadable" in (main.form, other.form):
        body_doubt(main.reason or other.reason, findings)
    elif main.truncated or other.truncated:
        _compare_kept(main, other, findings)
    elif "coded" in (main.form, other.form):
        if main.form != other.form or main.data != other.data:
            body_doubt("body_unreadable", findings)
    elif main.form == "empty" or other.form == "empty":
        if main.form != other.form:
            _only_one(main, other, findings)
    else:
        _compare_whole(main, other, findings)


def body_doubt(reason: str, findings: Findings) -> None:
    """Note that bodies could not be compared, unless a rule ignores the whole body anyway."""
    found = findings.rule_at(_BODY, "")
    if found is None or found.action != IGNORE:
        findings.doubt(reason)


def _only_one(main: Content, other: Content, findings: Findings) -> None:
    there = other if main.form == "empty" else main
    shown: Json = there.document if there.form == "value" else there.text
    if shown is None and there.form == "bytes":
        shown = {"$bytes": {"length": str(len(there.data or b"")).encode()}}
    elif there.form == "text" and there.text is not None:
        shown = _shown_text(there.text, findings)
        if there.media.is_json:
            with suppress(NotJson):
                shown = document_of(there)
    if main.form == "empty":
        findings.structure(_BODY, "", "", Change.EXTRA, ABSENT, shown)
    else:
        findings.structure(_BODY, "", "", Change.MISSING, shown, ABSENT)


def _shown_text(text: str, findings: Findings) -> Json:
    secret = findings.policy.mentions_secret(text.encode(errors="surrogatepass"))
    return "[redacted]" if secret else text


def _compare_whole(main: Content, other: Content, findings: Findings) -> None:
    if _as_documents(main, other, findings) or _as_forms(main, other, findings):
        return
    if main.text is not None and other.text is not None:
        if main.text != other.text:
            _texts_differ(main.text, other.text, findings)
        return
    mine, theirs = _octets(main), _octets(other)
    if mine != theirs:
        _bytes_differ(mine, theirs, findings)


def _as_documents(main: Content, other: Content, findings: Findings) -> bool:
    """Compare as JSON, if a side says it is and both are; or if neither says what it is, and both look like it."""
    if not (main.says_json or other.says_json or (_looks_like_json(main) and _looks_like_json(other))):
        return False
    if main.form == other.form == "text" and _as_unread(main.text or "", other.text or "", findings):
        return True
    try:
        mine, theirs = document_of(main), document_of(other)
    except TooDeep:
        body_doubt(BODY_TOO_DEEP, findings)
        return True
    except NotJson:
        return False
    if main.media.is_json or other.media.is_json:
        mine, theirs = unwrapped(mine, theirs)
    compare_documents(mine, theirs, findings, kind=_BODY)
    return True


def _as_unread(main: str, other: str, findings: Findings) -> bool:
    try:
        mine, theirs = (text.strip(_JSON_BLANKS).encode() for text in (main, other))
    except UnicodeEncodeError:
        return False
    return compare_unread(mine, theirs, findings, kind=_BODY)


def _as_forms(main: Content, other: Content, findings: Findings) -> bool:
    """Compare as forms, field by field, if both sides say so, or one does and the other says nothing."""
    if not (main.media.is_form or other.media.is_form) or main.text is None or other.text is None:
        return False
    if any(content.media.name and not content.media.is_form for content in (main, other)):
        return False
    try:
        mine = _form(main.text, findings.limits.form_fields_max)
        theirs = _form(other.text, findings.limits.form_fields_max)
    except ValueError:
        return False
    compare_documents(_like(mine, theirs), _like(theirs, mine), findings, kind=_BODY)
    return True


def _form(text: str, fields_max: int) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(
        text, keep_blank_values=True, errors="surrogateescape", max_num_fields=fields_max
    ):
        fields.setdefault(name, []).append(value)
    return fields


def _like(fields: dict[str, list[str]], others: dict[str, list[str]]) -> Json:
    """Return a form as an object; a field that has one value on each side that has it is that value."""
    return {
        name: [*values] if len(values) > 1 or len(others.get(name, ())) > 1 else values[0]
        for name, values in fields.items()
    }


def _texts_differ(main: str, other: str, findings: Findings) -> None:
    policy = findings.policy
    secret = any(policy.mentions_secret(text.encode(errors="surrogatepass")) for text in (main, other))
    findings.value(
        _BODY, "", "", main, other,
        lambda: text_witnesses(main, other, findings.limits.value_bytes, secret=secret),
    )  # fmt: skip


def _bytes_differ(main: bytes, other: bytes, findings: Findings) -> None:
    # The values are never equal ids nor tolerable: lists of one text each say "bytes" to the rules.
    mine, theirs = bytes_witness(main), bytes_witness(other)
    findings.value(_BODY, "", "", [str(mine)], [str(theirs)], lambda: (mine, theirs))


def _octets(content: Content) -> bytes:
    if content.data is not None:
        return content.data
    return (content.text or "").encode(errors="surrogatepass")


def _compare_kept(main: Content, other: Content, findings: Findings) -> None:
    """Compare what was kept of truncated bodies: a difference in it is one, otherwise nobody can tell.

    Documents and forms are compared only if both are whole: members may stand in any order, so a beginning proves
    nothing.
    """
    if any(content.form == "empty" and not content.truncated for content in (main, other)):
        if main.form != other.form and "coded" not in (main.form, other.form):
            _only_one(main, other, findings)
        else:
            body_doubt("body_truncated", findings)
        return
    if _looks_structured(main) or _looks_structured(other):
        if _as_whole_documents(main, other):
            _as_documents(main, other, findings)
        body_doubt("body_truncated", findings)
        return
    if "coded" in (main.form, other.form):
        body_doubt("body_truncated", findings)
        return
    if main.text is not None and other.text is not None:
        mine, theirs = _kept(main), _kept(other)
        if _parted(mine, theirs, main, other):
            _texts_differ(mine, theirs, findings)
            return
    elif main.data is not None and other.data is not None and _parted(main.data, other.data, main, other):
        _bytes_differ(main.data, other.data, findings)
        return
    body_doubt("body_truncated", findings)


def _looks_structured(content: Content) -> bool:
    if content.says_json or content.media.is_form:
        return True
    return not content.media.name and (content.text or "").lstrip()[:1] in _SNIFFED


def _looks_like_json(content: Content) -> bool:
    """Say whether a text of no known type begins as an object or array does."""
    return not content.media.name and (content.text or "").lstrip()[:1] in _OPENING


def _as_whole_documents(main: Content, other: Content) -> bool:
    """Say whether both are arrays or objects that end: then nothing of them was cut."""
    try:
        return all(isinstance(document_of(content), list | dict) for content in (main, other))
    except NotJson:
        return False


def _kept(content: Content) -> str:
    """Return a text without the broken character that cutting may have left at its end."""
    text = content.text or ""
    return text.rstrip("�") if content.truncated else text


def _parted(main: str | bytes, other: str | bytes, first: Content, second: Content) -> bool:
    """Say whether two beginnings cannot belong to equal wholes."""
    shorter = min(len(main), len(other))
    if main[:shorter] != other[:shorter]:
        return True
    if len(main) == shorter and not first.truncated:
        return len(other) > shorter
    return len(other) == shorter and not second.truncated and len(main) > shorter
