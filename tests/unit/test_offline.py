"""`verifier offline`: small recorded files in, the verdicts out, the same whatever the files look like."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from jsonschema import Draft202012Validator

from verifier.commands.offline import offline
from verifier.commands.offline_run import QUIET_S, Progress
from verifier.testing import TS, edge, response, write

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Draft202012Validator(
    json.loads((ROOT / "schemas" / "report.schema.json").read_text(encoding="utf-8"))
)
Records = list[dict[str, Any]]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Write records to a file, judge it, and return the JSON report with the exit code."""

    def judged(
        records: Iterable[dict[str, Any]] | None = None, *paths: Path, **options: Any
    ) -> dict[str, Any]:
        names = [str(path) for path in paths]
        if records is not None:
            file = tmp_path / "records.ndjson"
            file.write_bytes(ndjson(records))
            names.append(str(file))
        code = offline(names, form="json", environ=options.pop("environ", {}), **options)
        out, err = capsys.readouterr()
        report: dict[str, Any] = json.loads(out) if out else {}
        if report:
            SCHEMA.validate(report)
        return report | {"exit": code, "stderr": err}

    return judged


def ndjson(records: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def pair(request_id: str, *, ts: float = TS, main: Any = None, shadow: Any = None, **both: Any) -> Records:
    """A request with an edge line and a response of each side; `main` and `shadow` are fields of the responses."""
    post = {"method": "POST", "uri": "/api/v1/news/fetch"} if both.get("method") == "POST" else {}
    return [
        edge(request_id, "main", ts=ts, **post),
        edge(request_id, "shadow", ts=ts + 0.01, **post),
        response(request_id, "main", ts=ts + 0.001, **both, **(main or {})),
        response(request_id, "shadow", ts=ts + 0.011, **both, **(shadow or {})),
    ]


def writing(request_id: str, *, ts: float = TS, main: Any = None, shadow: Any = None) -> Records:
    """A mutating request with one write of each side; `main` and `shadow` are fields of the writes."""
    both = {"method": "POST", "path": "/api/v1/news/fetch", "writes": 1}
    return [
        *pair(request_id, ts=ts, **both),
        write(request_id, "main", **{"ts": ts + 0.001, "key": request_id, **(main or {})}),
        write(request_id, "shadow", **{"ts": ts + 0.011, "key": request_id, **(shadow or {})}),
    ]


def verdicts(report: dict[str, Any]) -> dict[str, int]:
    return {name: n for name, n in report["summary"]["requests"].items() if n and name != "total"}


def why(report: dict[str, Any]) -> set[tuple[str, str]]:
    return {(row["verdict"], row["why"]) for row in report["unverified"]}


def fields(report: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(row["kind"], row["field"], row["change"]) for row in report["fields"]}


# -- every verdict -------------------------------------------------------------------------------------------------


def test_a_pair_that_agrees(run: Run) -> None:
    report = run(pair("r1") + writing("r2"))
    assert report["exit"] == 0
    assert report["conclusion"] == "agrees"
    assert verdicts(report) == {"match": 2}
    assert report["summary"]["records"] == {
        "edge.requests": 4, "main.responses": 2, "shadow.responses": 2, "main.writes": 1, "shadow.writes": 1,
    }  # fmt: skip
    assert report["writes"]["main_rows"] == report["writes"]["shadow_rows"] == 1
    assert report["summary"]["pending"] == 0
    assert report["notes"] == []


@pytest.mark.parametrize(
    ("records", "field"),
    [
        (pair("r1", shadow={"status": 500}), ("status", "", "value")),
        (pair("r1", shadow={"body": {"items": [], "more": 1}}), ("body", "/more", "extra")),
        (
            pair("r1", main={"body": {"a": [{"b": 1}]}}, shadow={"body": {"a": [{"b": "1"}]}}),
            ("body", "/a/*/b", "type"),
        ),
        (
            pair("r1", main={"headers": {"x-a": "1", "content-type": "application/json"}}),
            ("header", "x-a", "missing"),
        ),
        (writing("r1", shadow={"data": {"title": "other"}}), ("write", "/news/*/title", "value")),
        (writing("r1", shadow={"status": "failed"}), ("write", "/news/*", "value")),
    ],
    ids=["status", "body", "type", "header", "written value", "failed write"],
)
def test_a_pair_that_differs(run: Run, records: Records, field: tuple[str, str, str]) -> None:
    report = run(records)
    assert report["exit"] == 1
    assert report["conclusion"] == "differs"
    assert verdicts(report) == {"divergence": 1}
    assert field in fields(report)
    found = next(row for row in report["fields"] if (row["kind"], row["field"], row["change"]) == field)
    assert found["example"]["request_id"] == "r1"
    assert found["example"]["main"] != found["example"]["shadow"]


@pytest.mark.parametrize(
    ("records", "missing"),
    [
        (pair("r1")[:3], "shadow.responses"),
        (pair("r1")[1:], "main.edge"),
        (writing("r1")[:-1], "shadow.writes"),
    ],
)
def test_a_request_of_which_a_part_is_missing(run: Run, records: Records, missing: str) -> None:
    report = run(records)
    assert report["exit"] == 1
    assert verdicts(report) == {"incomplete": 1}
    assert ("incomplete", missing) in why(report)
    assert report["unverified"][0]["example"] == "r1"


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (
            [edge("r1"), edge("r1", "shadow", shed=True, status="", upstream_status="-"), response("r1")],
            "shed",
        ),
        ([edge("r1", sampled=False), response("r1")], "not_sampled"),
        ([edge("r1", "canary"), response("r1", "canary")], "served_by_canary"),
        (
            pair(
                "r1",
                body_encoding="text",
                headers={},
                main={"body": "abc"},
                shadow={"body": "ab", "body_truncated": True},
            ),
            "body_truncated",
        ),
    ],
)
def test_a_request_that_could_not_be_compared_fairly(run: Run, records: Records, reason: str) -> None:
    report = run(records)
    assert verdicts(report) == {"incomparable": 1}
    assert ("incomparable", reason) in why(report)
    assert report["conclusion"] == "nothing_compared"
    assert report["exit"] == 0
    assert run(records, fail_on="incomparable")["exit"] == 1


ONE, KEYED = {"key": 1}, {"idempotency_key": "k"}
A1, A2 = {"data": {"a": 1}}, {"data": {"a": 2}}
CONFLICTS: dict[str, tuple[str, str, Records]] = {
    "duplicate": (
        "idempotency",
        "duplicate",
        writing("r1", main=KEYED | ONE, shadow=ONE) + writing("r2", ts=TS + 5, main=KEYED | ONE, shadow=ONE),
    ),
    "conflict": (
        "idempotency",
        "conflict",
        writing("r1", main=KEYED | A1, shadow=A1) + writing("r2", ts=TS + 5, main=KEYED | A2, shadow=A2),
    ),
    "order": (
        "main_shadow",
        "order",
        writing("r1", main=ONE, shadow=ONE | {"ts": TS + 9}) + writing("r2", ts=TS + 5, main=ONE, shadow=ONE),
    ),
    "canary": (
        "main_canary",
        "conflict",
        [
            *writing("r1", main=ONE | A1, shadow=ONE | A1),
            edge("r2", "canary", ts=TS + 5),
            response("r2", "canary", ts=TS + 5, writes=1),
            write("r2", "canary", ts=TS + 5, **ONE, **A2),
        ],
    ),
}


@pytest.mark.parametrize(("scope", "kind", "records"), CONFLICTS.values(), ids=CONFLICTS)
def test_conflicts_are_found_first_write_wins(run: Run, scope: str, kind: str, records: Records) -> None:
    for order in (records, records[::-1]):
        report = run(order)
        assert {(found["scope"], found["kind"]) for found in report["conflicts"]} == {(scope, kind)}
        assert report["conflict_kinds"] == [{"scope": scope, "kind": kind, "count": len(report["conflicts"])}]
        conflict = report["conflicts"][0]
        sides = [conflict[role]["request_id"] for role in ("winner", "loser")]
        assert sides == ["r1", "r2"]
        assert report["exit"] == 1
        assert report["conclusion"] == "differs"


def filler(until: float, records: int = 2500) -> Records:
    """Other requests, more than one step takes, between now and then."""
    made: Records = []
    for n in range(records // 4):
        made += pair(f"f{n}", ts=TS + 1 + n * (until - 2) / (records // 4))
    return made


@pytest.mark.parametrize("after_s", [40.0, 200.0])
def test_a_response_that_comes_after_the_verdict_revises_it(run: Run, after_s: float) -> None:
    records = pair("r1")
    records[3]["ts"] = TS + after_s
    report = run(records + filler(after_s))
    assert verdicts(report) == {"match": 1 + 2500 // 4}
    assert report["summary"]["late"] == 1
    assert report["rejected"]["reasons"] == [], "late is not rejected"


# -- the same, whatever the files look like ------------------------------------------------------------------------


def mixed() -> Records:
    """Some hundred requests of every kind."""
    records: Records = []
    for n in range(120):
        ts = TS + n * 0.7
        if n % 3:
            records += pair(f"r{n}", ts=ts, shadow={"status": 500} if n % 17 == 0 else {})
        else:
            key = f"k{n // 9}"
            records += writing(
                f"r{n}", ts=ts, main={"idempotency_key": key}, shadow={"data": {"title": str(n % 4)}}
            )
        if n % 13 == 0:
            records.pop()
    return records


def comparable(report: dict[str, Any]) -> dict[str, Any]:
    """The report without the names of the files and what is counted of copies."""
    summary = {k: v for k, v in report["summary"].items() if k not in {"records", "duplicate"}}
    parts = {k: v for k, v in report.items() if k not in {"input", "stderr"}}
    return parts | {"summary": summary}


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_files_and_lines_and_copies_change_nothing(run: Run, tmp_path: Path, seed: int) -> None:
    wanted = run(mixed())
    assert len(verdicts(wanted)) == 3
    pick, records = random.Random(seed), mixed()
    copies = pick.choices(records, k=60)
    pick.shuffle(records)
    records = [*records, *copies]
    folder = tmp_path / "split"
    folder.mkdir()
    files: list[Records] = [[] for _ in range(5)]
    for record in records:
        pick.choice(files).append(record)
    for number, part in enumerate(files):
        (folder / f"{number}.ndjson").write_bytes(ndjson(part))
    again = run(None, folder)
    assert comparable(again) == comparable(wanted)
    assert again["summary"]["duplicate"] == 60
    assert comparable(run(None, folder, partitions=3)) == comparable(wanted)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress])
def test_compression_and_wrappers_change_nothing(
    run: Run, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    wanted = run(mixed())
    plain, wrapped = tmp_path / "x.bin", tmp_path / "y.bin"
    plain.write_bytes(compress(ndjson(mixed())))
    topics = {True: {"uri": "edge.requests", "path": "main.responses", "entity": "main.writes"},
              False: {"uri": "edge.requests", "path": "shadow.responses", "entity": "shadow.writes"}}  # fmt: skip
    wrapped.write_bytes(
        compress(
            ndjson(
                {"topic": next(t for name, t in topics[r["side"] == "main"].items() if name in r), "partition": 0,
                 "offset": n, "timestamp": int(r["ts"] * 1000), "key": r["request_id"],
                 "value": r if n % 2 else json.dumps(r)}
                for n, r in enumerate(mixed())
            )
        )
    )  # fmt: skip
    assert comparable(run(None, plain)) == comparable(wanted)
    assert comparable(run(None, wrapped)) == comparable(wanted)


def test_standard_input_is_a_file_like_any_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ndjson(pair("r1")))))
    assert verdicts(run(None, Path("-"))) == {"match": 1}


def test_garbage_is_rejected_and_counted_and_harms_no_other(run: Run, tmp_path: Path) -> None:
    wanted = run(mixed())
    lines = ndjson(mixed()).splitlines()
    broken = [
        b"nonsense",
        b"{",
        b'"text"',
        b"\xff\xfe\xfd",
        b'{"hello":1}',
        b'{"path":"/","status":200,"side":"who"}',
    ]
    unread = [
        json.dumps(edge("r1") | {"ts": "yesterday"}).encode(),
        json.dumps(response("r 1")).encode(),
        b'{"uri":"/","request_id":"r1","side":"main","ts":1767225600,"method":"GET","status":"up"}',
    ]
    for place, line in enumerate([*broken, *unread]):
        lines.insert(place * 20, line)
    file = tmp_path / "garbage.ndjson"
    file.write_bytes(b"\n".join(lines))
    (tmp_path / "binary").write_bytes(b"\0\1\2")
    report = run(None, file, tmp_path / "binary")
    assert verdicts(report) == verdicts(wanted)
    assert report["fields"] == wanted["fields"]
    assert report["summary"]["rejected"] == len(unread)
    assert sum(each["count"] for each in report["rejected"]["reasons"]) == len(broken) + len(unread) + 1
    where = {(Path(each["file"]).name, each["line"]) for each in report["rejected"]["lines"]}
    assert where == {("garbage.ndjson", place * 20 + 1) for place in range(9)} | {("binary", 1)}
    assert all(each["reason"] and each["detail"] for each in report["rejected"]["lines"])
    assert run(None, file, fail_on="rejected")["exit"] == 1


def test_nginx_logs_are_read_as_they_are(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text(
        '{"v":1,"request_id":"r1","side":"main","ts":1767225600.123,"method":"GET","uri":"/a?b=1","status":200,'
        '"upstream_status":"502, 200","upstream_addr":"10.0.0.1:80, 10.0.0.2:80","upstream_time_s":"0.001, 0.020",'
        '"request_time_s":0.021,"bytes_sent":120,"host":"h","user_id":"","idempotency_key":"","sampled":true}\n'
        '{"v":1,"request_id":"r1","side":"shadow","ts":1767225600.150,"method":"GET","uri":"/a?b=1","status":200,'
        '"upstream_status":"200","upstream_addr":"10.0.0.3:80","upstream_time_s":"0.009","request_time_s":0.010,'
        '"bytes_sent":"-","host":"h","user_id":"-","idempotency_key":""}\n'
        '{"v":1,"request_id":"r2","side":"main","ts":1767225601.000,"method":"GET","uri":"/b","status":404,'
        '"upstream_status":"404","sampled":true}\n'
        '{"v":1,"request_id":"r2","side":"shadow","ts":1767225601.100,"method":"GET","uri":"/b","status":200}\n'
        '{"v":1,"request_id":"r3","side":"shadow","ts":1767225602.000,"method":"GET","uri":"/c","shed":true}\n'
    )  # fmt: skip
    report = run(None, log, expect="edge")
    assert verdicts(report) == {"match": 1, "divergence": 1, "incomparable": 1}
    assert fields(report) == {("status", "", "value")}
    (route,) = [row for row in report["routes"] if row["route"] == "GET /a"]
    assert route["sides"]["main"]["latency_s"]["count"] == 1


# -- options -------------------------------------------------------------------------------------------------------


def test_rules_of_a_file_stand_in_for_the_configured_ones(run: Run, tmp_path: Path) -> None:
    records = pair("r1", main={"body": {"at": 1, "n": 1}}, shadow={"body": {"at": 2, "n": 2}})
    config, rules = tmp_path / "config.yaml", tmp_path / "rules.yaml"
    config.write_text("rules:\n- {id: n, kind: body, field: /n, action: ignore}\n")
    rules.write_text("- {id: at, kind: body, field: /at, action: ignore, reason: a clock}\n")
    assert fields(run(records, config=config)) == {("body", "/at", "value")}
    report = run(records, config=config, rules=rules)
    assert fields(report) == {("body", "/n", "value")}
    assert [(row["field"], row["ignored"]) for row in report["ignored"]] == [("/at", 1)]
    assert report["input"]["settings"]["rules"] == ["at"]
    rules.write_text(
        "rules:\n- {kind: body, field: /at, action: ignore}\n- {kind: body, field: /n, action: ignore}\n"
    )
    assert run(records, rules=rules)["exit"] == 0


def test_what_a_request_needs_and_how_long_it_waits_can_be_said(run: Run) -> None:
    responses = [record for record in pair("r1") if "path" in record]
    report = run(responses)
    assert verdicts(report) == {"incomplete": 1}
    assert any("no edge lines were read" in note for note in report["notes"])
    report = run(responses, expect="responses", join_timeout="5s")
    assert verdicts(report) == {"match": 1}
    assert report["input"]["settings"]["join_timeout_s"] == 5
    assert report["input"]["settings"]["expect"] == ["responses"]


@pytest.mark.parametrize(
    ("fail_on", "code"),
    [
        ("divergence", 1),
        ("incomplete", 0),
        ("divergence,conflict", 1),
        ("conflict, incomparable", 0),
        ("none", 0),
    ],
)
def test_what_makes_it_fail_can_be_chosen(run: Run, fail_on: str, code: int) -> None:
    assert run(pair("r1", shadow={"status": 500}), fail_on=fail_on)["exit"] == code


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"form": "xml"}, "--format"),
        ({"fail_on": "everything"}, "--fail-on"),
        ({"fail_on": ","}, "--fail-on"),
        ({"partitions": 0}, "--partitions"),
        ({"expect": "nothing"}, "VERIFIER_EXPECT"),
        ({"join_timeout": "-1"}, "VERIFIER_JOIN_TIMEOUT_S"),
        ({"rules": Path("no/such/rules.yaml")}, "no/such/rules.yaml"),
        ({"config": Path("no/such/config.yaml")}, "no/such/config.yaml"),
    ],
)
def test_wrong_usage_is_code_2_and_says_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], said: str
) -> None:
    file = tmp_path / "x.ndjson"
    file.write_bytes(ndjson(pair("r1")))
    assert offline([str(file)], **{"environ": {}, **options}) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_wrong_rules_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("- {kind: body, action: explode}\n- {kind: nose, action: ignore}\n")
    assert offline([str(tmp_path)], rules=rules, environ={}) == 2
    err = capsys.readouterr().err
    assert "rule 1: rule 'body:**:explode': action: expected" in err
    assert "rule 2: rule 'nose:**:ignore': kind: expected" in err
    for content in ("just text", "- 5", "{a: 1}", "[", "\x00"):
        rules.write_text(content)
        assert offline([str(tmp_path)], rules=rules, environ={}) == 2
        assert str(rules) in capsys.readouterr().err


def test_nothing_to_judge_is_no_success(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert offline([str(tmp_path / "none")], environ={}) == 2
    assert "none" in capsys.readouterr().err
    report = run([])
    assert report["exit"] == 2
    assert report["conclusion"] == "nothing_compared"
    assert "no request could be judged" in report["stderr"]


def test_an_unwritable_place_is_code_3(run: Run, tmp_path: Path) -> None:
    report = run(pair("r1"), sqlite=tmp_path / "no" / "such" / "folder.sqlite")
    assert report["exit"] == 3
    assert "cannot keep" in report["stderr"]


# -- the SQLite file -----------------------------------------------------------------------------------------------


def test_the_tables_are_left_in_a_file_and_only_there(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "out.sqlite"
    records = writing("r1", shadow={"data": {"title": "other"}}) + pair("r2") + [{"nonsense": 1}]
    run(records, sqlite=file)
    report = run(records, sqlite=file)
    db = sqlite3.connect(file)
    requests = dict(db.execute("SELECT request_id, verdict FROM requests"))
    writes = db.execute("SELECT main_request_id, main_status, created_at FROM shadow_writes").fetchall()
    rejected = db.execute("SELECT file, line, reason, value FROM rejected_lines").fetchall()
    db.close()
    assert requests == {"r1": "divergence", "r2": "match"}
    assert writes == [("r1", 200, "2026-01-01 00:00:00.000+00:00")]
    assert rejected == [(str(tmp_path / "records.ndjson"), 11, "unknown_shape", b'{"nonsense": 1}')]
    assert report["summary"]["requests"]["total"] == 2, "a second run starts anew"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.sqlite", "records.ndjson"]


def test_no_other_file_is_overwritten(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("precious")
    report = run(pair("r1"), sqlite=file)
    assert report["exit"] == 2
    assert file.read_text() == "precious"


# -- as a program --------------------------------------------------------------------------------------------------


def test_progress_is_told_only_of_long_runs() -> None:
    now, out = [0.0], io.StringIO()
    progress = Progress(out, lambda: now[0])
    for at in (0.5, QUIET_S - 0.1, QUIET_S + 0.1, QUIET_S + 0.2, QUIET_S + 20):
        now[0] = at
        progress.tell(lambda at=at: f"at {at}")  # type: ignore[misc]
    assert out.getvalue().splitlines() == [f"at {QUIET_S + 0.1}", f"at {QUIET_S + 20}"]
    Progress(None, lambda: 1e9).tell(lambda: "never")


def test_as_a_program_it_prints_text_without_colour_into_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "x.ndjson").write_bytes(ndjson(pair("r1", shadow={"status": 500})))
    done = subprocess.run(
        [sys.executable, "-m", "verifier", "offline", str(tmp_path / "x.ndjson")],
        capture_output=True, text=True, check=False, timeout=60,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("VERIFIER_")}, "COLUMNS": "90"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "1 divergent" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 90
    assert done.stderr == ""


@pytest.mark.timeout(300)
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    def peak_kib(lines: int) -> int:
        file = tmp_path / f"{lines}.ndjson"
        with file.open("wb") as out:
            for n in range(lines // 2):
                out.write(ndjson(pair(f"r{n}", ts=TS + n * 0.02)[:2]))
        code = (
            "import resource, sys\nfrom verifier.commands.offline import offline\n"
            f"assert offline([{str(file)!r}], form='json', expect='edge', environ={{}}) == 0\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280
        )
        report = json.loads(done.stdout)
        assert verdicts(report) == {"match": lines // 2}
        assert report["input"]["lines"] == lines
        return int(done.stderr.splitlines()[-1])

    assert resource.getpagesize()
    small, large = peak_kib(20_000), peak_kib(200_000)
    assert large - small < 60 * 1024, f"{small} KiB for 20,000 lines, {large} KiB for 200,000"
