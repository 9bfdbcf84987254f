"""The result file, the table on the terminal, and the chart."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.arena import BENCH_PYTHON, ROOT
from bench.result import Outcome, middle
from bench.revision import commit, machine, versions

RESULTS = ROOT / "bench" / "results"
TITLES = {
    "ceiling": "ceiling: aiokafka getmany + decode",
    "c_ceiling": "C ceiling: confluent-kafka consume",
    "verifier": "verifier: everything on",
    "stock_faust": "stock Faust, same core",
    "quix_streams": "Quix Streams, same core",
    "kafka_streams": "Kafka Streams (Java), bodies as bytes",
}


@dataclass(slots=True, kw_only=True)
class Results:
    """What a bench came to, grown while it runs."""

    command: str
    records: int = 0
    requests: int = 0
    contestants: dict[str, Outcome] = field(default_factory=dict)
    runs: dict[str, list[Outcome]] = field(default_factory=dict)
    latency: dict[str, Any] = field(default_factory=dict)
    scaling: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commit: str = field(default_factory=commit)
    machine: dict[str, Any] = field(default_factory=machine)
    began_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def add(self, name: str, run: Outcome) -> None:
        """Add a contestant's run: the middle one of them stands for it."""
        self.runs.setdefault(name, []).append(run)
        self.contestants[name] = middle(self.runs[name])

    def as_json(self) -> dict[str, Any]:
        """The result file."""
        return {
            "commit": self.commit,
            "machine": self.machine,
            "versions": versions(),
            "command": self.command,
            "began_at": self.began_at,
            "records": self.records,
            "requests": self.requests,
            "contestants": {name: outcome.as_json() for name, outcome in self.contestants.items()},
            "latency_ms": self.latency or {"p50": None, "p99": None},
            "scaling": self.scaling,
            "goals": goals(self),
            "notes": self.notes,
        }


def goals(results: Results) -> list[dict[str, Any]]:
    """Each goal that was measured: what is wanted, what it came to, whether it is reached."""
    cost = {name: outcome.cpu_s_per_million for name, outcome in results.contestants.items() if outcome.exact}
    found: list[dict[str, Any]] = []

    def add(goal: str, value: float, limit: float, *, at_most: bool) -> None:
        reached = value <= limit if at_most else value >= limit
        found.append({"goal": goal, "value": round(value, 3), "limit": limit, "reached": reached})

    ours = cost.get("verifier")
    if ours is not None:
        if "ceiling" in cost:
            add("CPU of the verifier / ceiling", ours / cost["ceiling"], 2.0, at_most=True)
        if "stock_faust" in cost:
            add("CPU of stock Faust / verifier", cost["stock_faust"] / ours, 10.0, at_most=False)
        if "quix_streams" in cost:
            add("CPU of Quix Streams / verifier", cost["quix_streams"] / ours, 5.0, at_most=False)
        if "kafka_streams" in cost:
            add("CPU of the verifier / Kafka Streams", ours / cost["kafka_streams"], 1.0, at_most=True)
    if results.latency.get("p99") is not None:
        add("p99 to the verdict over REST, ms", results.latency["p99"], 500.0, at_most=True)
    for point in results.scaling:
        if "growth" in point and point.get("exact", False):
            add(f"CPU a record, {point['what']}, against the smallest", point["growth"], 1.10, at_most=True)
        if "speedup_by_cpu" in point and point.get("exact", False):
            add("two workers / one, by CPU time", point["speedup_by_cpu"], 1.8, at_most=False)
        if "bytes_over_records" in point:
            add(
                "bytes of a pending request beyond its records",
                point["bytes_over_records"],
                1024,
                at_most=True,
            )
    return found


def show(results: Results, console: Console) -> None:
    """Print the tables."""
    table = Table(
        title=f"{results.records:,} records of {results.requests:,} requests, commit {results.commit}"
    )
    for column in ("", "CPU-s / 1 M records", "x ceiling", "records/s", "verdicts/s", "peak MB", "exact"):
        table.add_column(column, justify="left" if not column else "right")
    ceiling = results.contestants.get("ceiling")
    for name, outcome in results.contestants.items():
        told = outcome.as_json()
        ratio = f"{outcome.cpu_s_per_million / ceiling.cpu_s_per_million:.1f}" if ceiling else ""
        verdicts = "" if name.endswith("ceiling") else f"{told['requests_per_s']:,}"
        table.add_row(
            TITLES.get(name, name), f"{outcome.cpu_s_per_million:.2f}", ratio, f"{told['records_per_s']:,}",
            verdicts, f"{outcome.usage.peak_rss_mb:.0f}", "yes" if outcome.exact else "VOID",
        )  # fmt: skip
    console.print(table)
    for outcome in results.contestants.values():
        if outcome.records < outcome.of_records:
            console.print(
                f"{outcome.name} ran on {outcome.records:,} records, its start spread over as many as the rest"
            )
        if len(costs := outcome.more.get("runs_cpu_s_per_million", ())) > 1:
            console.print(
                f"{outcome.name}: the middle one of the runs {', '.join(f'{cost:.2f}' for cost in costs)}"
            )
        for wrong in outcome.wrong:
            console.print(f"[red]{outcome.name} is void[/]: {wrong}")
    if results.latency:
        console.print(f"latency: {json.dumps(results.latency)}")
    for point in results.scaling:
        console.print(f"scaling: {json.dumps(point)}")
    for goal in goals(results):
        mark = "reached" if goal["reached"] else "[red]not reached[/]"
        console.print(f"{goal['goal']}: {goal['value']} (goal {goal['limit']}): {mark}")
    for note in results.notes:
        console.print(f"note: {note}")


def keep(results: Results, *, quick: bool, folder: Path = RESULTS) -> Path:
    """Write the result file; the newest is also `latest.json`, a quick one is `quick.json` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = results.began_at.replace("-", "").replace(":", "")
    path = folder / ("quick.json" if quick else f"bench-{stamp}.json")
    path.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    if not quick:
        shutil.copyfile(path, folder / "latest.json")
    return path


def keep_chart(result: Path, *, quick: bool) -> None:
    """Draw the chart of a result file beside it. Raises CalledProcessError."""
    chart = result.with_suffix(".png")
    draw(result, chart)
    if not quick:
        shutil.copyfile(chart, result.with_name("latest.png"))


def draw(result: Path, chart: Path) -> None:
    """Draw the chart of a result file. Raises CalledProcessError."""
    command: Sequence[str] = [str(BENCH_PYTHON), "-m", "bench.chart", str(result), str(chart)]
    subprocess.run(command, cwd=ROOT, check=True)


def outcome_row(told: Mapping[str, Any]) -> str:
    """One line about a contestant, while the bench runs."""
    exact = "exact" if told["exact"] else "VOID"
    return (
        f"{told['cpu_s_per_million']:.2f} CPU-s a million records, {told['records_per_s']:,} records/s,"
        f" {told['peak_rss_mb']:.0f} MB, {exact}"
    )
