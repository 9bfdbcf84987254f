"""The report as text for people: as wide as the terminal, in colour only where asked.

Values come from other people's traffic. They are shown as JSON, cut, and without anything a terminal would obey.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from verifier.core.views import View
from verifier.report import AGREES, AGREES_IN_PART, DIFFERS, FieldFinding, Report, Section

_encode = msgspec.json.Encoder(decimal_format="number").encode
FIELDS_MAX = 10
IGNORED_MAX = 10
ROUTES_MAX = 30
REJECTED_MAX = 5
UNVERIFIED_MAX = 15
CONFLICTS_MAX = 8
VALUE_LINES_MAX = 8
VALUE_CHARS_MAX = 600
WIDTH_MIN = 60
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHOWN = {"status": "status", "header": "header", "body": "body", "write": "write"}
_COLOURS = {"match": "green", "divergence": "red", "incomplete": "yellow", "incomparable": "cyan"}
_MEANING = {
    "match": "both sides did the same",
    "divergence": "they differ",
    "incomplete": "a side is missing",
    "incomparable": "could not be told fairly",
}


def render_text(report: Report, *, width: int = 100, colour: bool = False) -> str:
    """Return the report as text at most `width` columns wide (at least 60)."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(width, WIDTH_MIN),
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in _parts(report):
        console.print(part)
    lines = (line.rstrip() for line in out.getvalue().splitlines())
    return "\n".join(lines) + "\n"


def _parts(report: Report) -> Iterable[RenderableType]:
    yield _headline(report)
    yield _verdicts(report)
    if report.unverified:
        yield _unverified(report.unverified)
    if report.fields:
        yield from _fields(report.fields)
    if report.conflicts:
        yield _conflicts(report)
    if report.routes:
        yield _routes(report.routes)
    if report.writes and report.writes["requests"]:
        yield _writes(report.writes, report.fields)
    if report.ignored:
        yield _ignored(report)
    if report.rejected and report.rejected["reasons"]:
        yield _rejected(report.rejected)
    for section in report.sections:
        yield _section(section)
    for note in report.notes:
        yield _text(f"! {note}", "yellow")


# -- parts -------------------------------------------------------------------------------------------------------


def _headline(report: Report) -> RenderableType:
    requests, conflicts = report.summary["requests"], report.summary["conflicts"]
    if report.conclusion == AGREES:
        said, colour = f"All {_n(requests['match'])} requests agree.", "green"
    elif report.conclusion == AGREES_IN_PART:
        compared = f"{_n(requests['match'])} of {_n(requests['total'])}"
        said, colour = f"No difference found; {compared} requests could be compared.", "yellow"
    elif report.conclusion == DIFFERS:
        found = [
            f"{_n(n)} {name}"
            for n, name in (
                (requests["divergence"], "divergent"),
                (requests["incomplete"], "incomplete"),
                (conflicts, "conflict" if conflicts == 1 else "conflicts"),
            )
            if n
        ]
        said, colour = f"The sides differ: {', '.join(found)}, of {_n(requests['total'])} requests.", "red"
    else:
        said, colour = "Nothing could be compared.", "yellow"
    return Panel(_text(said, f"bold {colour}"), box=box.ROUNDED, border_style=colour, expand=False)


def _verdicts(report: Report) -> RenderableType:
    requests, summary = report.summary["requests"], report.summary
    table = _table("Requests", ("verdict", "", 0), ("requests", ">", 0), ("share", ">", 0), ("", "", 1))
    for verdict, colour in _COLOURS.items():
        n = requests[verdict]
        style = colour if n else "dim"
        table.add_row(
            _text(verdict, style), _text(_n(n), style), _text(_share(n, requests["total"]), style),
            _text(_MEANING[verdict], "dim"),
        )  # fmt: skip
    facts = [f"{name} {_n(n)}" for name, n in summary["records"].items()]
    counted = [f"{name} {_n(summary[name])}" for name in ("rejected", "duplicate", "late") if summary[name]]
    lines = [f"records: {', '.join(facts) or 'none'}" + (f"; {', '.join(counted)}" if counted else "")]
    if summary["verified_through"]:
        lines.append(f"verified through {_moment(summary['verified_through'])}")
    if report.input is not None:
        settings = report.input.get("settings", {})
        lines.append(
            f"read {_n(report.input['lines'])} lines of {_n(len(report.input['files']))} file(s); expecting "
            f"{', '.join(settings.get('expect', ()))} within {settings.get('join_timeout_s', 0):g} s"
        )
    return Group(table, *(Padding(_text(line, "dim"), (0, 0, 0, 2)) for line in lines), Text())


def _unverified(rows: Sequence[View]) -> RenderableType:
    table = _table(
        "Not verified, and why", ("verdict", "", 0), ("why", "", 1), ("requests", ">", 0), ("example", "", 1)
    )
    for row in rows[:UNVERIFIED_MAX]:
        why = f"missing {row['why']}" if row["verdict"] == "incomplete" else row["why"]
        colour = _COLOURS.get(row["verdict"], "")
        table.add_row(
            _text(row["verdict"], colour), _text(why), _text(_n(row["count"])), _text(row["example"], "dim")
        )
    return _and_more(table, len(rows) - UNVERIFIED_MAX)


def _fields(fields: Sequence[FieldFinding]) -> Iterable[RenderableType]:
    yield _title("What differs, most frequent first")
    for place, found in enumerate(fields[:FIELDS_MAX], start=1):
        head = Text()
        head.append(f"{place}. ", style="dim")
        head.append(_safe(found.route), style="bold")
        head.append(f"  {_SHOWN.get(found.kind, found.kind)} {_safe(found.field)}".rstrip(), style="cyan")
        head.append(f"  {found.change}", style="red")
        share = "" if found.share is None else f", {_percent(found.share)} of those compared"
        head.append(f"  {_n(found.count)} request{'s' if found.count != 1 else ''}{share}", style="dim")
        yield head
        if found.example is not None:
            table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), show_edge=False)
            table.add_column("main", ratio=1, overflow="fold")
            table.add_column("shadow", ratio=1, overflow="fold")
            missing, extra = found.change == "missing", found.change == "extra"
            table.add_row(
                _absent() if extra else _value(found.example.main),
                _absent() if missing else _value(found.example.shadow),
            )
            where = f"in {found.example.request_id}" + (
                f" at {found.example.path}" if found.example.path else ""
            )
            yield Padding(Group(table, _text(where, "dim")), (0, 0, 1, 3))
    if len(fields) > FIELDS_MAX:
        yield _text(f"   and {_n(len(fields) - FIELDS_MAX)} more fields\n", "dim")


def _conflicts(report: Report) -> RenderableType:
    total = report.summary["conflicts"]
    kinds = ", ".join(f"{_n(kind['count'])} {kind['scope']} {kind['kind']}" for kind in report.conflict_kinds)
    columns = (("scope", "", 0), ("kind", "", 0), ("key", "", 2), ("first write", "", 2), ("too late", "", 2))
    table = _table(f"Conflicts: {kinds or _n(total)}", *columns)
    for conflict in report.conflicts[:CONFLICTS_MAX]:
        winner, loser = conflict["winner"], conflict["loser"]
        table.add_row(
            _text(conflict["scope"]), _text(conflict["kind"], "red"), _text(conflict["key"]), _claimant(winner),
            _claimant(loser),
        )  # fmt: skip
    return _and_more(table, total - min(len(report.conflicts), CONFLICTS_MAX))


def _claimant(claimant: View) -> Text:
    data = _short(claimant["data"], 120)
    return Text.assemble((f"{claimant['side']} ", "bold"), _safe(claimant["request_id"]), "\n", (data, "dim"))


def _routes(routes: Sequence[View]) -> RenderableType:
    columns = [("route", "", 1), ("total", ">", 0), ("match", ">", 0), ("div.", ">", 0), ("inc.", ">", 0)]
    columns += [("n/c", ">", 0), ("rate (95 %)", ">", 0), ("p50 main/new", ">", 0)]
    table = _table("Routes", *columns)
    ordered = sorted(routes, key=lambda route: (-route["divergence"], -route["incomplete"], route["route"]))
    for route in ordered[:ROUTES_MAX]:
        interval = route["divergence_rate_interval"]
        rate = "-" if interval is None else f"{_percent(interval[0])}..{_percent(interval[1])}"
        numbers = [
            _text(_n(route[name]), _COLOURS.get(name, "") if route[name] and name != "match" else "")
            for name in ("total", "match", "divergence", "incomplete", "incomparable")
        ]
        table.add_row(_text(route["route"]), *numbers, _text(rate), _text(_latencies(route["sides"])))
    return _and_more(table, len(routes) - ROUTES_MAX)


def _latencies(sides: View) -> str:
    def of(*names: str) -> str:
        latency = next((sides[name]["latency_s"] for name in names if name in sides), None)
        return "-" if latency is None or latency["p50"] is None else f"{latency['p50'] * 1000:.3g}"

    main, other = of("main"), of("shadow", "canary")
    return "-" if main == other == "-" else f"{main}/{other} ms"


def _writes(writes: View, fields: Sequence[FieldFinding]) -> RenderableType:
    table = _table("Writes", ("side", "", 0), ("requests", ">", 0), ("rows", ">", 0), ("failed", ">", 0))
    for side, name in (("main", "main"), ("shadow", "new system")):
        counts = [_text(_n(writes[f"{side}_{what}"])) for what in ("requests", "rows", "failed")]
        table.add_row(_text(name), *counts)
    differing = sum(found.count for found in fields if found.kind == "write")
    said = (
        f"{_n(differing)} request fields differ in what was written"
        if differing
        else "no written field differs"
    )
    return Group(table, Padding(_text(said, "dim"), (0, 0, 1, 2)))


def _ignored(report: Report) -> RenderableType:
    columns = (("route", "", 1), ("kind", "", 0), ("field", "", 1), ("change", "", 0), ("requests", ">", 0))
    table = _table("Differs, and rules explain it", *columns)
    for found in report.ignored[:IGNORED_MAX]:
        texts = (found.route, found.kind, found.field, found.change, _n(found.ignored))
        table.add_row(*(_text(text, "dim") for text in texts))
    return _and_more(table, len(report.ignored) - IGNORED_MAX)


def _rejected(rejected: View) -> RenderableType:
    reasons = ", ".join(f"{_n(each['count'])} {each['reason']}" for each in rejected["reasons"])
    table = _table(f"Rejected: {reasons}", ("where", "", 1), ("reason", "", 0), ("detail", "", 2))
    for line in rejected["lines"][:REJECTED_MAX]:
        where = f"{line['file']}:{line['line']}"
        table.add_row(_text(where), _text(line["reason"], "yellow"), _text(line["detail"], "dim"))
    return _and_more(table, sum(each["count"] for each in rejected["reasons"]) - REJECTED_MAX)


def _section(section: Section) -> RenderableType:
    table = _table(section.title, *((column, "", 0) for column in section.columns))
    for row in section.rows:
        table.add_row(*(_text(cell) for cell in row))
    return Group(table, *([_text(section.note, "dim")] if section.note else []), Text())


# -- pieces ------------------------------------------------------------------------------------------------------


def _table(title: str, *columns: tuple[str, str, int]) -> Table:
    """A table; a column is its name, `>` for numbers, and its share of the room left (0: as wide as it needs)."""
    table = Table(
        title=_title(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False,
        header_style="dim", expand=any(ratio for _, _, ratio in columns),
    )  # fmt: skip
    for name, align, ratio in columns:
        table.add_column(
            _safe(name), justify="right" if align else "left", ratio=ratio or None, overflow="fold",
            no_wrap=not ratio and bool(align),
        )  # fmt: skip
    return table


def _title(text: str) -> Text:
    return Text(_safe(text), style="bold underline")


def _and_more(table: Table, more: int) -> RenderableType:
    return Group(table, *([_text(f"  and {_n(more)} more", "dim")] if more > 0 else []), Text())


def _text(text: object, style: str = "") -> Text:
    return Text(_safe(str(text)), style=style)


def _safe(text: str) -> str:
    """Replace what would move a cursor, ring, hide or turn text round, by its escape."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _absent() -> Text:
    return Text("(not there)", style="dim italic")


def _value(value: Any) -> Text:
    text = msgspec.json.format(_json(value), indent=2)
    cut = len(text) > VALUE_CHARS_MAX
    lines = text[:VALUE_CHARS_MAX].split("\n")
    if cut or len(lines) > VALUE_LINES_MAX:
        lines = [*lines[:VALUE_LINES_MAX], "..."]
    return Text(_safe("\n".join(lines)))


def _short(value: Any, chars_max: int) -> str:
    text = _safe(_json(value))
    return text if len(text) <= chars_max else text[:chars_max] + "..."


def _json(value: Any) -> str:
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:  # lone surrogates
        return json.dumps(value, default=str)


def _n(number: int) -> str:
    return f"{number:,}"


def _share(n: int, total: int) -> str:
    return _percent(n / total) if total else "-"


def _percent(share: float) -> str:
    percent = share * 100
    if 0 < percent < 0.1:
        return "<0.1 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def _moment(ts: float) -> str:
    try:
        return datetime.fromtimestamp(ts, UTC).isoformat(sep=" ", timespec="milliseconds")
    except (OverflowError, OSError, ValueError):
        return str(ts)
