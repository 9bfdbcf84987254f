"""A worker's start imports what a worker needs, and nothing of the other commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys

# The command itself runs, settings and all; what it would start says instead what was imported for it.
_PROGRAM = """
import json, sys
import verifier.cli
assert "verifier.commands.worker" not in sys.modules
import verifier.commands.worker as worker

async def run_worker(settings):
    print(json.dumps(sorted(sys.modules)))

worker.run_worker = run_worker
sys.argv = ["verifier", "worker"]
verifier.cli.main()
"""
_OF_OTHERS = (
    "sqlite3",
    "verifier.adapters.archive",
    "verifier.adapters.spool",
    "verifier.adapters.sqlite",
    "verifier.capture",
    "verifier.commands.check",
    "verifier.commands.demo",
    "verifier.commands.init",
    "verifier.commands.offline",
    "verifier.demo",
    "verifier.report",
    "verifier.report_text",
    "verifier.testing",
)


def test_a_worker_imports_nothing_of_the_other_commands() -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VERIFIER_")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        capture_output=True, text=True, check=False, timeout=60,
        env={**inherited, "VERIFIER_KAFKA": "localhost:1", "VERIFIER_POSTGRES": "postgresql://localhost:1/none"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout))
    assert {"verifier.stream.worker", "verifier.adapters.postgres", "faust"} <= imported
    assert not imported & set(_OF_OTHERS)


def test_the_command_line_alone_imports_no_command() -> None:
    program = (
        "import sys, verifier.cli; print(*(name for name in sys.modules if name.startswith('verifier.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(done.stdout.split()) <= {
        "verifier.cli", "verifier.commands", "verifier.commands.fail_on", "verifier.core", "verifier.core.errors",
    }  # fmt: skip
