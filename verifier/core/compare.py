"""Two answers to one request, compared: status, headers, body. The order is main first, then the other side."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from verifier.core.bodies import read_content
from verifier.core.body_compare import body_doubt, compare_bodies
from verifier.core.canonical import number
from verifier.core.difference import NOTHING, Comparison, Kind
from verifier.core.events import Response
from verifier.core.findings import Findings
from verifier.core.headers import Headers, compare_headers, content_codings, media_of, read_headers
from verifier.core.limits import Limits
from verifier.core.mapping import IdMapping
from verifier.core.policy import Policy
from verifier.core.unread import compare_unread

__all__ = ["Limits", "compare_responses", "compare_status"]

_LIMITS = Limits()
_AS_JSON = (None, "", "json", "text")  # a document captured as text is one, too, if it stands there as JSON


def compare_responses(
    main: Response,
    other: Response,
    *,
    route: str,
    policy: Policy,
    limits: Limits = _LIMITS,
    mapping: IdMapping | None = None,
) -> Comparison:
    """Compare two responses to one request. Never raises, whatever the records hold.

    Headers that one side's record does not have at all were not captured there and are not compared; an absent body
    equals an empty one, unless the side says that it dropped something (`capture_gap`): then the body is not compared
    and there is a doubt. `mapping` holds the generated ids of the request, across its response and writes.
    """
    same_headers = main.headers == other.headers
    same_body = main.body == other.body and (main.body_encoding or "json") == (other.body_encoding or "json")
    doubtful = main.capture_gap or other.capture_gap or main.body_truncated or other.body_truncated
    track_header, track_body = policy.tracks_ids(route, Kind.HEADER), policy.tracks_ids(route, Kind.BODY)
    if (
        same_body
        and same_headers
        and main.status == other.status
        and not (doubtful or track_header or track_body)
    ):
        return NOTHING
    findings = Findings(route, policy, limits, mapping)
    if main.status != other.status:
        _status(main.status, other.status, findings)
    mine = theirs = None
    if main.headers is not UNSET and other.headers is not UNSET and (not same_headers or track_header):
        mine, theirs = read_headers(main.headers), read_headers(other.headers)
        _headers(mine, theirs, findings, same=same_headers)
    for side in (main, other):
        if side.capture_gap:
            findings.doubt(f"capture_gap:{side.side}.{side.capture_gap}"[:80])
    if same_body and not (main.body_truncated or other.body_truncated or track_body):
        return findings.result()
    if not _documents(main, other, findings):
        if mine is None or theirs is None:
            mine, theirs = read_headers(main.headers), read_headers(other.headers)
        _bodies(main, other, mine, theirs, findings)
    return findings.result()


def compare_status(
    main: int, other: int, *, route: str = "", policy: Policy | None = None, limits: Limits = _LIMITS
) -> Comparison:
    """Compare two statuses alone, when the edge is all that told of the answers."""
    if main == other:
        return NOTHING
    findings = Findings(route, policy or Policy.default(), limits, None)
    _status(main, other, findings)
    return findings.result()


def _status(main: int, other: int, findings: Findings) -> None:
    findings.value(Kind.STATUS, "", "", number(str(main)), number(str(other)))


def _headers(main: Headers | None, other: Headers | None, findings: Findings, *, same: bool) -> None:
    if main is not None and other is not None:
        compare_headers(main, other, findings)
    elif not same:
        findings.doubt("headers_unreadable")


def _documents(main: Response, other: Response, findings: Findings) -> bool:
    """Compare the bodies if both are plainly whole JSON documents, whatever the headers say; else return False."""
    if isinstance(main.body, UnsetType) or isinstance(other.body, UnsetType):
        return False
    if main.body_truncated or other.body_truncated:
        return False
    if main.body_encoding not in _AS_JSON or other.body_encoding not in _AS_JSON:
        return False
    return compare_unread(bytes(main.body), bytes(other.body), findings, kind=Kind.BODY)


def _bodies(
    main: Response,
    other: Response,
    headers: Headers | None,
    other_headers: Headers | None,
    findings: Findings,
) -> None:
    if any(side.capture_gap and side.body is UNSET for side in (main, other)):
        return
    if main.body is UNSET and other.body is UNSET and (main.body_truncated or other.body_truncated):
        body_doubt("body_truncated", findings)
        return
    mine = read_content(main, media_of(headers), content_codings(headers), findings.limits)
    theirs = read_content(other, media_of(other_headers), content_codings(other_headers), findings.limits)
    compare_bodies(mine, theirs, findings)
