"""What a run came to, as one value: made from what the tables say, rendered elsewhere (`verifier.report_text`, JSON).

The offline command and the demo make their reports here; `schemas/report.schema.json` is its JSON form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from verifier.core.views import View

_encode = msgspec.json.Encoder(decimal_format="number").encode
EXAMPLES_MAX = 20
CONFLICTS_MAX = 20
DIVERGENCES_MAX = 100

DIFFERS, AGREES, AGREES_IN_PART, NOTHING_COMPARED = "differs", "agrees", "agrees_in_part", "nothing_compared"


class Reads(Protocol):
    """The tables, as `adapters.queries.PostgresReads` and its twins give them."""

    async def summary(self) -> View: ...
    async def routes(self) -> Sequence[View]: ...
    async def fields(self, route: str | None = None) -> Sequence[View]: ...
    async def divergences(self, *, limit: int = 100) -> View: ...
    async def conflicts(self, *, limit: int = 100) -> View: ...


class Example(Struct, frozen=True, kw_only=True):
    """One place where a field differed: both values, in one request."""

    request_id: str
    path: str
    main: Any
    shadow: Any


class FieldFinding(Struct, frozen=True, kw_only=True):
    """A field that differs: how often, of the route's compared requests (None: none were), and one example."""

    route: str
    kind: str
    field: str
    change: str
    count: int
    share: float | None
    exemplars: tuple[str, ...]
    example: Example | None = None


class IgnoredField(Struct, frozen=True, kw_only=True):
    """A field whose differences rules explain, and in how many requests."""

    route: str
    kind: str
    field: str
    change: str
    ignored: int


class Section(Struct, frozen=True, kw_only=True):
    """A table of somebody else's, shown as it is; `note` stands under it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = ()
    note: str | None = None


class Background(Struct, frozen=True, kw_only=True):
    """What the tables do not say, where it is known.

    `unverified` are `{verdict, why, count, example}`, `writes` the numbers of requests and rows written by side,
    `conflict_kinds` are `{scope, kind, count}`, `rejected` has `reasons` and the first `lines`, `input` says what was
    read and how.
    """

    unverified: tuple[View, ...] = ()
    writes: View | None = None
    conflict_kinds: tuple[View, ...] = ()
    rejected: View | None = None
    input: View | None = None
    notes: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()


class Report(Struct, frozen=True, kw_only=True):
    """The report. `conclusion` is `differs`, `agrees`, `agrees_in_part` or `nothing_compared`."""

    v: int = 1
    conclusion: str
    summary: View
    unverified: tuple[View, ...]
    fields: tuple[FieldFinding, ...]
    ignored: tuple[IgnoredField, ...]
    conflict_kinds: tuple[View, ...]
    conflicts: tuple[View, ...]
    divergences: tuple[View, ...]
    routes: tuple[View, ...]
    writes: View | None
    rejected: View | None
    input: View | None
    notes: tuple[str, ...]
    sections: tuple[Section, ...]


async def read_report(
    reads: Reads, topics: Mapping[int, str], background: Background | None = None
) -> Report:
    """Read the tables and make the report. `topics` are the names of the sources by number."""
    conflicts = await reads.conflicts(limit=CONFLICTS_MAX)
    divergences = await reads.divergences(limit=DIVERGENCES_MAX)
    fields = await reads.fields()
    known = {item["request_id"]: item for item in divergences["items"]}
    request = getattr(reads, "request", None)
    for field in [field for field in fields if field["count"]][:EXAMPLES_MAX]:
        for request_id in field["exemplars"][:1]:
            if request_id not in known and request is not None:
                found = await request(request_id)
                if found is not None:
                    known[request_id] = found
    return build_report(
        summary=await reads.summary(),
        topics=topics,
        routes=await reads.routes(),
        fields=fields,
        divergences=divergences["items"],
        conflicts=conflicts["items"],
        requests=known,
        background=background or Background(),
    )


def build_report(
    *,
    summary: View,
    topics: Mapping[int, str],
    routes: Sequence[View],
    fields: Sequence[View],
    divergences: Sequence[View],
    conflicts: Sequence[View],
    requests: Mapping[str, View],
    background: Background,
) -> Report:
    """Make the report of what the tables gave; `requests` are those whose differences serve as examples."""
    records = {topics.get(source, str(source)): n for source, n in summary["records"].items()}
    return Report(
        conclusion=conclusion_of(summary),
        summary={**summary, "records": records},
        unverified=background.unverified,
        fields=tuple(_finding(field, requests) for field in fields if field["count"]),
        ignored=tuple(
            msgspec.convert(field, IgnoredField, strict=False)
            for field in sorted(fields, key=lambda field: -field["ignored"])
            if field["ignored"]
        ),
        conflict_kinds=background.conflict_kinds,
        conflicts=tuple(conflicts),
        divergences=tuple(divergences),
        routes=tuple(routes),
        writes=background.writes,
        rejected=background.rejected,
        input=background.input,
        notes=background.notes,
        sections=background.sections,
    )


def conclusion_of(summary: View) -> str:
    """One word for it all. What could not be compared is never agreement."""
    requests = summary["requests"]
    if requests["divergence"] or requests["incomplete"] or summary["conflicts"]:
        return DIFFERS
    if not requests["match"]:
        return NOTHING_COMPARED
    return AGREES_IN_PART if requests["incomparable"] else AGREES


def failures(report: Report, fail_on: Iterable[str]) -> list[str]:
    """Which of `divergence`, `incomplete`, `incomparable`, `conflict` and `rejected` there are, of those asked for."""
    requests = report.summary["requests"]
    lines = sum(each["count"] for each in report.rejected["reasons"]) if report.rejected else 0
    there = {
        "divergence": requests["divergence"],
        "incomplete": requests["incomplete"],
        "incomparable": requests["incomparable"],
        "conflict": report.summary["conflicts"],
        "rejected": max(report.summary["rejected"], lines),
    }
    wanted = set(fail_on)
    return [name for name, n in there.items() if name in wanted and n]


def report_json(report: Report) -> bytes:
    """The report as one JSON document."""
    return msgspec.json.format(_encode(report), indent=2)


def _finding(field: View, requests: Mapping[str, View]) -> FieldFinding:
    return FieldFinding(
        route=field["route"],
        kind=field["kind"],
        field=field["field"],
        change=field["change"],
        count=field["count"],
        share=field["share"],
        exemplars=tuple(field["exemplars"]),
        example=_example(field, requests),
    )


def _example(field: View, requests: Mapping[str, View]) -> Example | None:
    for request_id in field["exemplars"]:
        for difference in (requests.get(request_id) or {}).get("differences") or ():
            if all(difference[name] == field[name] for name in ("kind", "field", "change")):
                return Example(
                    request_id=request_id,
                    path=difference["path"],
                    main=difference["main"],
                    shadow=difference["shadow"],
                )
    return None
