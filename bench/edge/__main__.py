"""`python -m bench.edge`: plain proxy, mirror, mirror with a hung shadow, with bodies captured; side by side."""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.edge.latency import latencies, quantile_ms
from bench.edge.log_check import forget, lines
from bench.edge.scene import SCENARIOS, Contestant, scene
from bench.edge.throughput import CONNECTIONS, Load, NoWrk, load
from bench.revision import commit, machine

RESULT = Path(__file__).parents[1] / "results" / "edge.json"
GOAL_P99_ADDED_MS = 1.0
ROUNDS_PER_S = 100.0
PRIORITY = 10


def main() -> int:
    """Run and write the result file; 1 when a request was lost from a log or the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.edge", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5000, help="requests to each, one at a time")
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--repeat", type=int, default=5, help="runs of wrk for each; the median counts")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="measure latency at real-time priority (as root), where the machine has other work",
    )
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args()
    console = Console()
    results: dict[str, Any] = {
        "command": " ".join(["python -m bench.edge", *sys.argv[1:]]),
        "began_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "load_before": os.getloadavg(),
        "versions": _versions(),
        "latency": {
            "rounds": given.rounds,
            "rounds_per_s": ROUNDS_PER_S,
            "scheduler": f"SCHED_FIFO {PRIORITY}" if given.realtime else "SCHED_OTHER",
        },
        "throughput": {
            "seconds": given.seconds,
            "repeat": given.repeat,
            "connections": CONNECTIONS,
            "workers": 1,
        },
        "scenarios": {name: {"title": title} for name, title in SCENARIOS.items()},
        "lost": [],
    }
    try:
        with tempfile.TemporaryDirectory(prefix="bench-edge-") as folder:
            Path(folder).chmod(0o711)
            if given.realtime:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
            with scene(Path(folder)) as contestants:
                _latency(contestants, given.rounds, results)
                _usual_priority(os.getpid())
                _throughput(contestants, given.seconds, given.repeat, results)
    except NoWrk as error:
        console.print(str(error))
        return 2
    results["load_after"] = os.getloadavg()
    results["goals"] = _goals(results)
    _show(results, console)
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"written to {given.output}")
    return 0 if all(goal["reached"] for goal in results["goals"]) else 1


def _latency(contestants: dict[str, Contestant], rounds: int, results: dict[str, Any]) -> None:
    users = latencies(contestants, rounds, ROUNDS_PER_S)
    plain = users["plain"].seconds
    for name, user in users.items():
        row = results["scenarios"][name]
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            value = quantile_ms(user.seconds, share)
            row[f"{label}_ms"] = round(value, 3)
            row[f"{label}_added_ms"] = round(value - quantile_ms(plain, share), 3)
        found = lines(contestants[name], user.asked)
        row["lines_paced"] = found.as_json()
        results["lost"] += [f"{name}, paced: {fault}" for fault in found.lost(name, user.asked)]


def _usual_priority(pid: int) -> None:
    """Give a process and its descendants back to the usual scheduler: a load at real-time priority stops a machine."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))
        for child in (task / "children").read_text().split():
            _usual_priority(int(child))


def _throughput(
    contestants: dict[str, Contestant], seconds: int, repeat: int, results: dict[str, Any]
) -> None:
    runs: dict[str, list[Load]] = {name: [] for name in contestants}
    for _ in range(repeat):
        for name, contestant in contestants.items():
            forget(contestant)
            run = load(contestant, seconds)
            runs[name].append(run)
            found = lines(contestant, run.requests, in_flight=CONNECTIONS)
            results["scenarios"][name]["lines_loaded"] = found.as_json()
            faults = found.lost(name, run.requests, in_flight=CONNECTIONS)
            faults += [f"{run.failed} users were failed"] if run.failed else []
            results["lost"] += [f"{name}, loaded: {fault}" for fault in faults]
    for name, each in runs.items():
        row = results["scenarios"][name]
        row["requests_per_s"] = round(statistics.median(run.per_s for run in each))
        row["worker_cpu_us_per_request"] = round(statistics.median(run.cpu_us for run in each), 1)


def _goals(results: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name in ("mirror_hung", "capture_hung"):
        value = results["scenarios"][name]["p99_added_ms"]
        reached = value < GOAL_P99_ADDED_MS
        goal = f"p99 added, {SCENARIOS[name]}, ms"
        found.append({"goal": goal, "value": value, "limit": GOAL_P99_ADDED_MS, "reached": reached})
    lost = len(results["lost"])
    found.append(
        {"goal": "runs with a request lost from a log", "value": lost, "limit": 0, "reached": lost == 0}
    )
    return found


def _versions() -> dict[str, str]:
    def told(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    packages = told(
        "dpkg-query", "-W", "-f", "${Package} ${Version}\n", "nginx", "libnginx-mod-http-js", "wrk"
    )
    found = dict(line.split(" ", 1) for line in packages.splitlines() if re.match(r"[a-z0-9-]+ \d", line))
    return found | {"kernel": os.uname().release}


def _show(results: dict[str, Any], console: Console) -> None:
    table = Table(title="NGINX, one worker, a JSON answer of 1 KB")
    for column in ("", "p50 ms", "added", "p99 ms", "added", "requests/s", "CPU µs each"):
        table.add_column(column, justify="left" if not column else "right")
    for row in results["scenarios"].values():
        latency = [f"{row[name]:.3f}" for name in ("p50_ms", "p50_added_ms", "p99_ms", "p99_added_ms")]
        table.add_row(
            row["title"], *latency, f"{row['requests_per_s']:,}", f"{row['worker_cpu_us_per_request']:.1f}"
        )
    console.print(table)
    for goal in results["goals"]:
        mark = "reached" if goal["reached"] else "MISSED"
        console.print(f"{mark}: {goal['goal']}: {goal['value']} (limit {goal['limit']})")
    for fault in results["lost"]:
        console.print(f"lost: {fault}")


if __name__ == "__main__":
    sys.exit(main())
