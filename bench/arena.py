"""Where a bench takes place: real Kafka, Redis and PostgreSQL on some of the cores, workloads on topics of their own.

On a machine with more than one core the servers have the first half of them and the measured programs the rest, so that
neither takes the other's. CPU time is what is compared; wall times hold for this machine only.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.measure import Measured
from bench.truth import Truth
from bench.workload import PARTITIONS, SOURCES, span_s
from verifier.demo.stack.stack import LocalStack

ROOT = Path(__file__).resolve().parents[1]
PRODUCT_PYTHON = Path(sys.executable)
PROGRAM = PRODUCT_PYTHON.parent / "verifier"
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
LOAD_WITHIN_S = 3_600.0
STALE_S = 20.0  # a workload's last event lies so long before it is loaded

Say = Callable[[str], None]

_KAFKA_SETTINGS = {
    "log.segment.bytes": str(256 << 20),
    # Kafka's own default, which the local stack shortens to nothing. Without it the first of two workers gets all
    # partitions and works alone for two to three seconds, until the group is rebalanced: in a small run most of the
    # work, so that it was not two halves that were compared with the whole (1.26 came of 4.1 and 2.3 CPU-s).
    "group.initial.rebalance.delay.ms": "3000",
}


class NotPrepared(Exception):
    """Something the bench needs is not there; the message says how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A workload as it lies on Kafka."""

    prefix: str
    truth: Truth

    @property
    def topics(self) -> list[str]:
        """The five topics, in the order of `SOURCES`."""
        return [self.prefix + source for source in SOURCES]


class Arena:
    """A context manager around the servers; `folder` holds logs and results of the programs."""

    def __init__(self, say: Say) -> None:
        self._say = say
        cores = sorted(os.sched_getaffinity(0))
        half = max(1, len(cores) // 2)
        self.server_cores, self.cores = cores[:half], cores[half:] or cores
        self._folder = Path(tempfile.mkdtemp(prefix="verifier-bench-"))
        self._folder.chmod(0o711)  # PostgreSQL's account has to pass through
        self._stack = LocalStack(
            self._folder / "servers", heap_mb=(512, 1024), kafka_settings=_KAFKA_SETTINGS, on_progress=say
        )
        self._runs = 0

    def __enter__(self) -> Self:
        if not BENCH_PYTHON.exists():
            raise NotPrepared(f"{BENCH_PYTHON} is missing: run `.ci/setup --bench`")
        # As a program that pip has installed. From an editable tree, and with PYTHONDONTWRITEBYTECODE set as some
        # environments have it, a worker compiled all its modules at each start: 0.4 s that no installed one takes.
        compileall.compile_dir(ROOT / "verifier", quiet=1)
        compileall.compile_dir(ROOT / "bench", quiet=1)
        os.sched_setaffinity(0, self.server_cores)  # for the servers, which inherit it, and for this process
        try:
            self._stack.__enter__()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.__exit__(None, None, None)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self._stack.kafka.bootstrap

    def name(self, what: str) -> str:
        """A name no run had before."""
        self._runs += 1
        return f"{what}{self._runs}"

    def run_folder(self, name: str) -> Path:
        """A folder of a run's own."""
        folder = self._folder / name
        folder.mkdir()
        return folder

    def environment(self, name: str, dataset: Dataset | None = None, **more: str) -> dict[str, str]:
        """The verifier's settings for a deployment of its own that reads the dataset's topics."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("VERIFIER_")}
        sources: dict[str, str] = {}
        if dataset is not None:
            names = ("EDGE_REQUESTS", "MAIN_RESPONSES", "SHADOW_RESPONSES", "MAIN_WRITES", "SHADOW_WRITES")
            sources = {f"VERIFIER_TOPIC_{n}": topic for n, topic in zip(names, dataset.topics, strict=True)}
        return {
            **inherited,
            "VERIFIER_KAFKA": self.bootstrap,
            "VERIFIER_REDIS": self._stack.redis.url(1),
            "VERIFIER_IDEMPOTENCY_PREFIX": f"{name}:",
            "VERIFIER_POSTGRES": self._stack.postgres.create_database(name),
            "VERIFIER_HTTP_HOST": "127.0.0.1",
            "VERIFIER_GROUP": name,
            "VERIFIER_TOPIC_PREFIX": f"{name}.",
            "VERIFIER_PARTITIONS": str(PARTITIONS),
            "VERIFIER_DATA_DIR": str(self._folder / f"{name}-data"),
            **sources,
            **more,
        }

    def init(self, environment: dict[str, str]) -> None:
        """`verifier init`: topics and tables. Raises CalledProcessError."""
        subprocess.run([PROGRAM, "init"], env=environment, check=True, stdout=subprocess.DEVNULL)

    def load(self, requests: int, *, seed: int = 7, dated: bool = False) -> Dataset:
        """Make a workload of so many requests and put it on topics of its own."""
        name = self.name("load")
        self.init(self.environment(name))
        began = time.monotonic()
        dataset = self.load_into(f"{name}.", requests, "--seed", str(seed), *(["--dated"] if dated else []))
        self._say(
            f"{dataset.truth.records_total:,} records of {requests:,} requests are on Kafka"
            f" after {time.monotonic() - began:.0f} s"
        )
        return dataset

    def load_into(self, prefix: str, requests: int, *options: str, ago_s: float = STALE_S) -> Dataset:
        """Put a workload on the topics with this prefix; its last event was `ago_s` before now."""
        folder = self.run_folder(self.name("loading"))
        began_at = time.time() - span_s(requests) - ago_s
        told = folder / "truth.json"
        command = [str(BENCH_PYTHON), "-m", "bench.load", "--bootstrap", self.bootstrap, "--truth", str(told)]
        command += [
            "--began-at",
            f"{began_at:.3f}",
            "--requests",
            str(requests),
            "--prefix",
            prefix,
            *options,
        ]
        loading = Measured(command, log_path=folder / "load.log", cwd=ROOT, cores=self.cores)
        loading.finish(LOAD_WITHIN_S)
        return Dataset(prefix=prefix, truth=Truth.from_json(told.read_text()))
