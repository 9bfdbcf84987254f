"""Where a worker's time goes: py-spy's samples while it works through a workload, added up by part and by function.

Only threads that hold the interpreter's lock are sampled: what waits, and what works without it (the kernel, parts
of the sockets), is not in the shares. The CPU time of each thread, which has all of it, stands above them.

`python -m bench.profiling [--requests N] [--out FILE]`
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from bench.arena import BENCH_PYTHON, ROOT, Arena, Dataset
from bench.revision import commit
from bench.verifier_run import JOIN_TIMEOUT_S, Worker, settled

PY_SPY = BENCH_PYTHON.parent / "py-spy"
RATE_PER_S = 200
ROWS = 45
ENDS_WITHIN_S = 60.0

# The first part with a frame in it, from the innermost frame outwards, has the sample.
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("tables (PostgreSQL)", ("adapters/postgres.py", "adapters/tables.py", "asyncpg/", "count_tables.py", "_tables.")),
    ("claims (Redis)", ("adapters/claims.py", "stream/contests.py", "redis/", "core/conflict")),
    ("journal and topics out (encode, produce)", (
        "adapters/kafka.py", "stream/appending.py", "stream/publishing.py", "stream/outputs.py", "aiokafka/producer",
    )),
    ("tables (fold)", ("stream/tables.py", "core/rollup.py", "core/counts.py", "stream/live_tables.py")),
    ("metrics", ("adapters/metrics", "prometheus_client/")),
    ("judge: compare, reconcile", ("core/verdict.py",)),
    ("decode", ("stream/codec.py", "stream/wire.py")),
    ("join", ("core/join.py", "core/requests.py")),
    ("engine, partition worker", ("core/engine.py", "stream/partition.py", "stream/care.py")),
    ("fetch (aiokafka, Faust)", ("aiokafka/", "faust/", "mode/", "stream/batching.py", "stream/worker.py")),
    ("REST", ("verifier/web/", "uvicorn/", "starlette/", "adapters/queries.py")),
    ("start (imports)", ("importlib", "<frozen")),
)  # fmt: skip


def part_of(frames: list[str]) -> str:
    """The part that a stack belongs to (outermost frame first)."""
    for frame in reversed(frames):
        for part, marks in PARTS:
            if any(mark in frame for mark in marks):
                return part
    return "event loop and other"


def digest(raw: str) -> str:
    """Sum up py-spy's raw stacks: share of each part, of each function itself and with what it calls."""
    parts, own, within = Counter[str](), Counter[str](), Counter[str]()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";")]
        samples = int(count)
        parts[part_of(frames)] += samples
        own[frames[-1]] += samples
        for frame in set(frames):
            within[frame] += samples
    total = sum(parts.values()) or 1
    lines = [f"{total} samples at {RATE_PER_S}/s", "", "by part"]
    lines += [f"{n / total:7.1%}  {part}" for part, n in parts.most_common()]
    lines += ["", "by function, itself"]
    lines += [f"{n / total:7.1%}  {frame}" for frame, n in own.most_common(ROWS)]
    lines += ["", "by function, with what it calls"]
    lines += [f"{n / total:7.1%}  {frame}" for frame, n in within.most_common(2 * ROWS)]
    return "\n".join(lines) + "\n"


def _short(frame: str) -> str:
    """A frame without this machine's folders and without the line."""
    name, _, place = frame.partition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    for mark in ("site-packages/", f"{ROOT}/", "lib/python3.11/"):
        path = path.rpartition(mark)[2] or path
    return f"{name} ({path})"


def profile(arena: Arena, dataset: Dataset) -> str:
    """Run a worker over the dataset with py-spy attached; returns the digest with the run's own figures."""
    name = arena.name("profile")
    folder = arena.run_folder(name)
    environment = arena.environment(name, dataset, VERIFIER_JOIN_TIMEOUT_S=str(JOIN_TIMEOUT_S))
    arena.init(environment)
    worker = Worker(arena, environment, folder)
    raw = folder / "stacks.txt"
    command = [str(PY_SPY), "record", "--pid", str(worker.measured.pid), "--rate", str(RATE_PER_S)]
    spying = subprocess.Popen(
        [*command, "--duration", "3600", "--format", "raw", "--gil", "--nonblocking", "--output", str(raw)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    threads = ""
    try:
        _, wrong = settled([worker], dataset, 1_800.0)
        threads = _threads(worker.measured.pid)
    finally:
        usage = worker.measured.stop()
        spying.wait(ENDS_WITHIN_S)
    records = dataset.truth.records_total
    head = (
        f"verifier worker, commit {commit()}, {platform.machine()}, Python {platform.python_version()}\n"
        f"{records} records, {usage.cpu_s:.1f} CPU-s ({usage.cpu_s / records * 1e6:.1f} a million, sampled), "
        f"{'exact' if not wrong else f'not exact: {wrong}'}\n"
    )
    return head + threads + digest(raw.read_text())


def _threads(pid: int) -> str:
    """CPU time of the threads of a process, those with any."""
    lines = ["CPU-s by thread:"]
    for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda path: int(path.name)):
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        user, system = (int(field) / os.sysconf("SC_CLK_TCK") for field in rest.split()[11:13])
        if user + system >= 0.05:
            lines.append(f" {name} {user + system:.1f} ({system:.1f} of it in the kernel);")
    return "".join(lines) + "\n"


def main() -> None:
    """Profile, and keep the digest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / f"profile-{stamp}.txt")
    given = parser.parse_args()
    with Arena(lambda line: print(line, file=sys.stderr)) as arena:
        text = profile(arena, arena.load(given.requests))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
