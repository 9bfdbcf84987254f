"""`verifier offline`: the verdicts on recorded files, without any server, as a report and as an SQLite file."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from verifier.adapters.archive import find_files
from verifier.adapters.logging import configure_logging
from verifier.adapters.settings import Settings, load_settings
from verifier.adapters.spool import Spool
from verifier.adapters.sqlite import SqliteStore, make_file
from verifier.assembly import policy_of
from verifier.commands.fail_on import FAIL_ON, FAIL_ON_ANY
from verifier.commands.offline_run import Intake, Progress, judge, read_files
from verifier.core.errors import VerifierError
from verifier.core.events import Source
from verifier.core.policy import Policy
from verifier.core.rules import RuleError, rule_from_dict
from verifier.report import Background, Report, failures, read_report, report_json
from verifier.report_text import render_text

FINE, DIFFERS, WRONG_USAGE, NO_DEPENDENCY = 0, 1, 2, 3
PARTITIONS_MAX = 64
REJECTED_LINES_SHOWN = 20


class WrongUsage(VerifierError):
    """An option or a file it names cannot be used."""


def offline(
    paths: Sequence[str],
    *,
    form: str = "text",
    sqlite: Path | None = None,
    rules: Path | None = None,
    config: Path | None = None,
    expect: str | None = None,
    join_timeout: str | None = None,
    fail_on: str = ",".join(FAIL_ON),
    partitions: int = 1,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Judge the records in `paths`, print the report to standard output, and return the exit code.

    0: nothing of what `fail_on` names; 1: something of it; 2: wrong usage or configuration, or nothing to judge; 3:
    the temporary files or the SQLite file cannot be written.
    """
    try:
        wanted = _fail_on(fail_on)
        if form not in ("text", "json"):
            raise WrongUsage(f"--format: expected text or json, got {form!r}")
        if not 1 <= partitions <= PARTITIONS_MAX:
            raise WrongUsage(f"--partitions: expected a number from 1 to {PARTITIONS_MAX}, got {partitions}")
        settings = _settings(os.environ if environ is None else environ, config, expect, join_timeout)
        policy = _policy(settings, rules)
        configure_logging(level="warning", fmt="console", redact=settings.redact)
        if sqlite is not None:
            make_file(sqlite)
        report = asyncio.run(_run(find_files(paths), settings, policy, sqlite, partitions))
    except VerifierError as error:
        typer.echo(str(error), err=True)
        return WRONG_USAGE
    except (sqlite3.Error, OSError) as error:
        typer.echo(f"cannot keep what is read: {error} (temporary files: {tempfile.gettempdir()})", err=True)
        return NO_DEPENDENCY
    _print(report, form)
    if not report.summary["requests"]["total"]:
        typer.echo("no request could be judged", err=True)
        return WRONG_USAGE
    return DIFFERS if failures(report, wanted) else FINE


async def _run(
    files: Sequence[str], settings: Settings, policy: Policy, sqlite: Path | None, partitions: int
) -> Report:
    progress = Progress(sys.stderr)
    with tempfile.TemporaryDirectory(prefix="verifier-offline-") as folder:
        made = (
            Path(folder) / "tables.sqlite" if sqlite is None else sqlite.with_name(sqlite.name + ".partial")
        )
        made.unlink(missing_ok=True)
        spool = Spool(Path(folder) / "spool.sqlite", partitions=partitions)
        store = SqliteStore(made, idempotency_ttl_s=settings.idempotency_ttl_s)
        try:
            intake = read_files(files, settings, spool, store, progress)
            records = intake.records.total()
            await judge(files, settings, policy, spool=spool, store=store, records=records, progress=progress)
            background = _background(files, settings, policy, store, intake)
            report = await read_report(store, dict(enumerate(settings.topics.sources)), background)
        except BaseException:
            await store.close()
            made.unlink(missing_ok=True)
            raise
        finally:
            spool.close()
        await store.close()
        if sqlite is not None:
            made.replace(sqlite)
    return report


def _background(
    files: Sequence[str], settings: Settings, policy: Policy, store: SqliteStore, intake: Intake
) -> Background:
    reasons, lines = store.rejected_lines(REJECTED_LINES_SHOWN)
    return Background(
        unverified=tuple(store.unverified()),
        writes=store.writes(),
        conflict_kinds=tuple(store.conflict_kinds()),
        rejected={"reasons": reasons, "lines": lines},
        input={
            "files": list(files),
            "lines": intake.lines,
            "records": intake.records.total(),
            "settings": {
                "expect": list(settings.expect),
                "join_timeout_s": settings.join_timeout_s,
                "write_settle_s": settings.write_settle_s,
                "conflict_timeout_s": settings.conflict_timeout_s,
                "idempotency_ttl_s": settings.idempotency_ttl_s,
                "rules": [rule["id"] for rule in policy.describe() if rule["origin"] == "configured"],
            },
        },
        notes=tuple(_hints(settings, intake)),
    )


def _hints(settings: Settings, intake: Intake) -> list[str]:
    """What explains at a glance why all requests are incomplete."""
    sources = [("edge", Source.EDGE, "edge lines")]
    sources += [
        ("responses", source, f"{side} responses")
        for side, source in (("main", Source.MAIN_RESPONSES), ("shadow", Source.SHADOW_RESPONSES))
    ]
    if not intake.records.total():
        return []
    return [
        f"no {name} were read, so every request misses them; if they were not recorded, leave {kind!r} out of --expect"
        for kind, source, name in sources
        if kind in settings.expect and not intake.records[source]
    ]


def _fail_on(given: str) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in FAIL_ON_ANY and name != "none"]
    if unknown or not names:
        raise WrongUsage(f"--fail-on: expected some of {', '.join(FAIL_ON_ANY)}, or none, got {given!r}")
    return [name for name in names if name != "none"]


def _settings(
    environ: Mapping[str, str], config: Path | None, expect: str | None, join_timeout: str | None
) -> Settings:
    given = {"VERIFIER_EXPECT": expect, "VERIFIER_JOIN_TIMEOUT_S": join_timeout}
    overridden = {**environ, **{name: value for name, value in given.items() if value is not None}}
    return load_settings(overridden, config_path=config, require=())


def _policy(settings: Settings, rules: Path | None) -> Policy:
    """The configured rules over the default ones; those of a rules file stand in for the configured ones."""
    if rules is None:
        return policy_of(settings)
    try:
        content: Any = yaml.safe_load(rules.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WrongUsage(f"{rules}: {error}") from None
    if isinstance(content, dict) and set(content) == {"rules"}:
        content = content["rules"]
    if not isinstance(content, list) or not all(isinstance(rule, dict) for rule in content):
        raise WrongUsage(f"{rules}: expected a list of rules, or one under the key rules")
    read, problems = [], []
    for place, rule in enumerate(content, start=1):
        try:
            read.append(rule_from_dict(rule))
        except RuleError as error:
            problems.append(f"{rules}: rule {place}: {error}")
    if problems:
        raise WrongUsage("\n".join(problems))
    return Policy.default(read, redact=settings.redact)


def _print(report: Report, form: str) -> None:
    out = sys.stdout
    if form == "json":
        text = report_json(report).decode(errors="replace") + "\n"
    else:
        colour = out.isatty() and "NO_COLOR" not in os.environ
        text = render_text(report, width=shutil.get_terminal_size((100, 24)).columns, colour=colour)
    encoding = out.encoding or "utf-8"
    try:
        out.write(text.encode(encoding, "replace").decode(encoding))
        out.flush()
    except BrokenPipeError:  # the reader has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - kept until the process ends
