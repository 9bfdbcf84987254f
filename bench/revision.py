"""Which state of the project, on which machine, with which versions a result is of."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.arena import ROOT

PRODUCT_PACKAGES = ("faust-streaming", "aiokafka", "msgspec", "uvloop", "asyncpg", "redis", "orjson")


def commit() -> str:
    """The commit checked out, with `+` if the product's or the bench's files differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", "verifier", "bench", "sql", "pyproject.toml"
    )
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)  # noqa: S607
    return ran.stdout.strip()


def machine() -> dict[str, object]:
    """The processor, how many of its cores there are, memory, system."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory_kb * 1024 / 1e9, 1),
        "system": platform.platform(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """The versions of what the verifier rests on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PRODUCT_PACKAGES}
