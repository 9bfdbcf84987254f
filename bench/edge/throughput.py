"""Requests a second that one worker does, and the CPU time of each, under `wrk`."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from bench.edge.scene import Contestant

CONNECTIONS = 32


class NoWrk(Exception):
    """wrk is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a run of wrk came to."""

    requests: int
    failed: int
    per_s: float
    cpu_us: float


def load(contestant: Contestant, seconds: int) -> Load:
    """Load one contestant for so many seconds. Raises NoWrk."""
    program = shutil.which("wrk")
    if program is None:
        raise NoWrk("wrk is not installed: apt-get install wrk")
    before = contestant.cpu_s()
    url = f"http://{contestant.address}/api/v1/items?page=1"
    command = [program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", url]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    requests = _number(r"(\d+) requests in", told)
    failed = _number(r"Non-2xx or 3xx responses: (\d+)", told)
    failed += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", told)))
    cpu_us = (contestant.cpu_s() - before) / max(1, requests) * 1e6
    per_s = float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])  # type: ignore[index]
    return Load(requests=requests, failed=failed, per_s=per_s, cpu_us=cpu_us)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
