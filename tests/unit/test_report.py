"""The report: what it concludes, which examples it picks, and how it looks on a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from verifier.core.difference import Difference
from verifier.core.journal import Entry, SourceCount
from verifier.core.outcome import Claimant, Conflict, Outcome, Resolved, SideFacts
from verifier.report import (
    AGREES,
    AGREES_IN_PART,
    DIFFERS,
    NOTHING_COMPARED,
    Background,
    Report,
    Section,
    conclusion_of,
    failures,
    read_report,
    report_json,
)
from verifier.report_text import render_text
from verifier.testing import TS, MemoryStore

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Draft202012Validator(
    json.loads((ROOT / "schemas" / "report.schema.json").read_text(encoding="utf-8"))
)
TOPICS = {0: "edge.requests", 1: "main.responses"}


def difference(field: str, main: Any, shadow: Any, **more: Any) -> Difference:
    values = {"kind": "body", "path": field, "field": field, "change": "value", **more}
    return Difference(main=main, shadow=shadow, **values)


def outcome(request_id: str, verdict: str, *differences: Difference, **more: Any) -> Outcome:
    sides = (SideFacts("main", 200, 0.012), SideFacts("shadow", 200, 0.034))
    fields = {"route": "GET /news", "ts": TS, "sides": sides, "differences": differences, **more}
    return Outcome(request_id=request_id, verdict=verdict, **fields)


async def report_of(*outcomes: Outcome, background: Background | None = None, **entry: Any) -> Report:
    store = MemoryStore()
    resolved = tuple(Resolved(outcome=each, events=()) for each in outcomes)
    counts = (SourceCount(0, 0, 9, 9), SourceCount(1, 0, 4, 4, {}, 2, 1))
    made = Entry(
        partition=0, n=0, worker="w", at=TS, counts=counts, resolved=resolved, verified_through=TS, **entry
    )
    await store.apply(0, [(0, made)])
    report = await read_report(store, TOPICS, background)
    SCHEMA.validate(json.loads(report_json(report)))
    return report


def summary(*, conflicts: int = 0, **requests: int) -> dict[str, Any]:
    none = dict.fromkeys(("match", "divergence", "incomplete", "incomparable"), 0)
    return {"requests": {**none, **requests}, "conflicts": conflicts}


@pytest.mark.parametrize(
    ("counted", "conclusion"),
    [
        (summary(match=3), AGREES),
        (summary(match=3, incomparable=1), AGREES_IN_PART),
        (summary(match=3, divergence=1), DIFFERS),
        (summary(match=3, incomplete=1), DIFFERS),
        (summary(match=3, conflicts=1), DIFFERS),
        (summary(incomparable=5), NOTHING_COMPARED),
        (summary(), NOTHING_COMPARED),
    ],
)
def test_only_a_match_of_every_request_is_full_agreement(counted: dict[str, Any], conclusion: str) -> None:
    assert conclusion_of(counted) == conclusion


async def test_fields_come_by_frequency_each_with_an_example_of_its_own(tmp_path: Path) -> None:
    report = await report_of(
        outcome("r1", "divergence", difference("/a", 1, 2)),
        outcome(
            "r2", "divergence", difference("/b", "x", "y", change="type"), difference("/a", 3, 4), ts=TS + 1
        ),
        outcome("r3", "match", ignored=(difference("/at", 1, 2, rule="clock"),)),
    )
    assert [(f.field, f.change, f.count) for f in report.fields] == [("/a", "value", 2), ("/b", "type", 1)]
    assert [f.example and (f.example.request_id, f.example.main, f.example.shadow) for f in report.fields] == [
        ("r2", 3, 4), ("r2", "x", "y"),
    ]  # fmt: skip
    assert report.fields[0].share == pytest.approx(2 / 3)
    assert [(f.field, f.ignored) for f in report.ignored] == [("/at", 1)]
    assert report.summary["records"] == {"edge.requests": 9, "main.responses": 4}
    assert [row["request_id"] for row in report.divergences] == ["r2", "r1"]


async def test_an_example_is_found_beyond_the_newest_divergences() -> None:
    old = outcome("old", "divergence", difference("/rare", 1, 2), ts=TS - 100)
    many = [outcome(f"n{n}", "divergence", difference("/common", 1, n), ts=TS + n) for n in range(150)]
    report = await report_of(old, *many)
    rare = next(found for found in report.fields if found.field == "/rare")
    assert rare.example is not None
    assert rare.example.request_id == "old"
    assert len(report.divergences) == 100


async def test_failures_are_only_what_is_asked_for_and_there() -> None:
    report = await report_of(
        outcome("r1", "divergence", difference("/a", 1, 2)), outcome("r2", "incomparable")
    )
    everything = ["divergence", "incomplete", "incomparable", "conflict", "rejected"]
    assert failures(report, everything) == ["divergence", "incomparable"]
    assert failures(report, ["incomplete"]) == []
    background = Background(rejected={"reasons": [{"reason": "not_json", "count": 2}], "lines": []})
    assert failures(await report_of(outcome("r", "match"), background=background), everything) == ["rejected"]


def conflict(n: int) -> Conflict:
    winner = Claimant(side="main", request_id=f"w{n}", ts=TS, data={"a": 1})
    loser = Claimant(side="main", request_id=f"l{n}", ts=TS + 1, data={"a": 2})
    return Conflict(
        id=f"c{n}", scope="idempotency", key=f"main:k{n}", entity="news", kind="conflict", winner=winner, loser=loser,
        strategy="first_write", ts=TS + n,
    )  # fmt: skip


REJECTED = [
    {"file": "x.ndjson", "line": n, "topic": None, "reason": "not_json", "detail": "d"} for n in range(1, 8)
]
FULL = Background(
    unverified=(
        {"verdict": "incomplete", "why": "shadow.responses", "count": 3, "example": "r7"},
        {"verdict": "incomparable", "why": "shed", "count": 1, "example": "r8"},
    ),
    writes={"requests": 2, "main_requests": 2, "shadow_requests": 1, "main_rows": 2, "shadow_rows": 1,
            "main_failed": 0, "shadow_failed": 0},
    conflict_kinds=({"scope": "idempotency", "kind": "conflict", "count": 30},),
    rejected={"reasons": [{"reason": "not_json", "count": 7}], "lines": REJECTED},
    input={"files": ["x.ndjson"], "lines": 1234, "records": 13, "settings": {"expect": ["edge"], "join_timeout_s": 30}},
    notes=("a note",),
    sections=(
        Section(title="Planted faults", columns=("fault", "found"), rows=(("lost write", "3 of 3"),), note="all found"),
    ),
)  # fmt: skip


async def full_report() -> Report:
    return await report_of(
        outcome("r1", "divergence", difference("/items/*/title", "old", "new", path="/items/0/title")),
        outcome("r2", "divergence", difference("/gone", {"a": [1, 2]}, None, change="missing")),
        outcome("r3", "divergence", difference("/more", None, 5, change="extra")),
        outcome("r4", "match", ignored=(difference("/at", 1, 2, rule="clock"),)),
        outcome("r7", "incomplete", missing=("shadow.responses",)),
        background=FULL,
        conflicts=tuple(conflict(n) for n in range(30)),
    )


@pytest.mark.parametrize("width", [20, 60, 75, 100, 160])
async def test_the_text_keeps_to_its_width(width: int) -> None:
    text = render_text(await full_report(), width=width)
    assert max(map(len, text.splitlines())) <= max(width, 60)


@pytest.mark.parametrize("width", [80, 100, 160])
async def test_the_text_says_it_all(width: int) -> None:
    text = render_text(await full_report(), width=width)
    flat = " ".join(text.replace("│", " ").split())
    for said in (
        "3 divergent, 1 incomplete, 30 conflicts", "missing shadow.responses", "shed", "/items/*/title",
        "in r1 at /items/0/title",
        '"old"', '"new"', "(not there)", "Planted faults", "lost write", "all found", "a note", "Conflicts", "22 more",
        "x.ndjson:1", "and 2 more", "duplicate 2", "late 1", "read 1,234 lines", "Differs, and rules explain it",
        "2026-01-01 00:00:00.000",
    ):  # fmt: skip
        assert said in flat, said


async def test_both_sides_stand_side_by_side() -> None:
    lines = render_text(await full_report(), width=100).splitlines()
    row = next(line for line in lines if '"old"' in line)
    assert row.index('"new"') > row.index('"old"') + 20
    missing = next(n for n, line in enumerate(lines) if "/gone" in line)
    values = "\n".join(lines[missing : missing + 10])
    assert values.index('"a"') < values.index("in r2")
    assert "(not there)" in values


async def test_there_is_colour_only_where_asked() -> None:
    report = await full_report()
    assert "\x1b[" not in render_text(report)
    assert "\x1b[" in render_text(report, colour=True)


EVIL = "\x1b[2J\x1b]0;title\x07[red]bold[/red]\r\x9b1m\u202egnp\u2066 :smile: \ud800"


async def test_nothing_from_the_traffic_is_obeyed_by_the_terminal_or_the_renderer() -> None:
    evil = json.loads(json.dumps(EVIL.replace("\ud800", "")))
    background = Background(
        unverified=({"verdict": "incomparable", "why": EVIL, "count": 1, "example": EVIL},),
        rejected={"reasons": [{"reason": EVIL, "count": 1}],
                  "lines": [{"file": EVIL, "line": 1, "topic": None, "reason": EVIL, "detail": EVIL}]},
        notes=(EVIL,),
        sections=(Section(title=EVIL, columns=(EVIL,), rows=((EVIL,),), note=EVIL),),
    )  # fmt: skip
    differences = (difference(f"/{evil}", evil, {evil: [evil]}, path=f"/{evil}"),)
    report = await report_of(outcome("r1", "divergence", *differences, route=f"GET /{evil}"))
    shown = msgspec.structs.replace(
        report, unverified=background.unverified, rejected=background.rejected, notes=background.notes,
        sections=background.sections,
    )  # fmt: skip
    text = render_text(shown, width=120)
    assert {char for char in text if ord(char) < 32 or 127 <= ord(char) < 160} == {"\n"}
    assert not set("\u202e\u2066\ud800") & set(text)
    assert "[red]" in text, "markup is text like any other"
    assert ":smile:" in text
    text.encode()


async def test_long_values_and_long_lists_are_cut() -> None:
    long = [
        outcome(request_id, "divergence", difference("/a", "x" * 100_000, list(range(10_000))))
        for request_id in ("r1", "r2")
    ]
    many = [outcome(f"m{n}", "divergence", difference(f"/f{n}", 1, 2), route=f"GET /{n}") for n in range(60)]
    text = render_text(await report_of(*long, *many), width=100)
    assert len(text.splitlines()) < 200
    assert "..." in text
    assert "51 more fields" in text
    assert "31 more" in text


async def test_an_empty_report_is_short_and_says_so() -> None:
    text = render_text(await report_of())
    assert "Nothing could be compared." in text
    assert "What differs" not in text
    assert "Conflicts" not in text
