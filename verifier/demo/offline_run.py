"""The demo without Kafka: the same systems and edge, their records in files, judged by `verifier offline`."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import yaml

from verifier.demo import faults
from verifier.demo.database import prepare
from verifier.demo.findings import Findings
from verifier.demo.legacy import ROUTE_TEMPLATES
from verifier.demo.plan import Plan
from verifier.demo.run import DemoOptions, Say, backend, latency_faults, program, send_through
from verifier.demo.score import Score, score
from verifier.demo.scored import planted_sections
from verifier.demo.stack.nginx import EdgeParams, Nginx
from verifier.demo.stack.ports import LOOPBACK
from verifier.demo.stack.postgres import Postgres
from verifier.report import Report

OFFLINE_WITHIN_S = 300.0


def run_offline(options: DemoOptions, say: Say) -> tuple[Report, Score]:
    """Run the demo with files in place of topics."""
    with tempfile.TemporaryDirectory(prefix="verifier-demo-") as folder:
        data_dir = Path(folder)
        logs = _record(options, data_dir, say)
        say("judging the records with `verifier offline`")
        report, database = _judge(data_dir, logs)
        found = _findings(database, latency_faults(options))
        truth = Plan(options.seed).truth(options.requests) if options.faults else []
        scored = score(truth, found.verdicts, found.conflicts, latencies=found.latencies(truth))
        sections = planted_sections(scored, faults=options.faults)
        return msgspec.structs.replace(report, sections=sections), scored


def _record(options: DemoOptions, data_dir: Path, say: Say) -> list[Path]:
    """Send the traffic; afterwards the writes lie in `data_dir/records`, the rest in the edge's logs returned."""
    records = data_dir / "records"
    with ExitStack() as stack:
        say("starting PostgreSQL, the legacy API and its successor, and NGINX")
        postgres = Postgres(data_dir / "postgres")
        postgres.start()
        stack.callback(postgres.close)
        addresses: dict[str, str] = {}
        for name, database in (("legacy", "market_intel"), ("successor", "market_intel_shadow")):
            dsn = postgres.create_database(database)
            asyncio.run(prepare(dsn))
            address, process = backend(name, dsn, ["--records", str(records)], options, data_dir)
            addresses[name] = address
            stack.enter_context(process)
            process.wait_ready()
        params = EdgeParams(
            main=addresses["legacy"],
            shadow=addresses["successor"],
            shadow_rate_per_s=10_000,
            shadow_burst=10_000,
        )
        edge = stack.enter_context(Nginx(data_dir / "edge", params))
        say(f"sending {options.requests} requests to {LOOPBACK}")
        asyncio.run(send_through(edge.url, addresses["successor"], options, lambda _: None))
    return [edge.log_path, edge.main_responses_path, edge.shadow_responses_path]


def _judge(data_dir: Path, logs: list[Path]) -> tuple[Report, Path]:
    config, database = data_dir / "verifier.yaml", data_dir / "tables.sqlite"
    config.write_text(yaml.safe_dump({"rules": faults.demo_rules(), "routes": list(ROUTE_TEMPLATES)}))
    arguments = ["offline", str(data_dir / "records"), *map(str, logs), "--config", str(config)]
    arguments += ["--sqlite", str(database), "--format", "json", "--fail-on", "none"]
    done = subprocess.run(
        program(*arguments),
        capture_output=True,
        timeout=OFFLINE_WITHIN_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stderr.decode(errors="replace"))
        raise RuntimeError(f"verifier offline ended with {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Report), database


def _findings(database: Path, look_at: list[str]) -> Findings:
    """What the SQLite tables say, as the REST API would."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        verdicts = [
            {
                **dict(row),
                "missing": json.loads(row["missing"]),
                "differences": json.loads(row["differences"] or "[]"),
            }
            for row in connection.execute(
                "SELECT r.request_id, r.verdict, r.missing, d.differences FROM requests r"
                " LEFT JOIN divergences d USING (request_id) WHERE r.verdict <> 'match'"
            )
        ]
        conflicts: list[dict[str, Any]] = [
            {**dict(row), "winner": json.loads(row["winner"]), "loser": json.loads(row["loser"])}
            for row in connection.execute(
                "SELECT scope, kind, winner, loser FROM conflicts WHERE NOT retracted"
            )
        ]
        marks = ",".join("?" * len(look_at))
        details = {
            row["request_id"]: {"sides": _sides(json.loads(row["counted"]))}
            for row in connection.execute(
                f"SELECT request_id, counted FROM requests WHERE request_id IN ({marks})",
                look_at,
            )
        }
    return Findings(verdicts=verdicts, conflicts=conflicts, details=details)


def _sides(counted: list[Any]) -> list[dict[str, Any]]:
    """The sides of a request from its share in the counts: (side, status class, microseconds)."""
    return [
        {"side": side, "latency_s": None if latency_us is None else latency_us / 1e6}
        for side, _, latency_us in counted[0]
    ]
