"""The verifier as a contestant: the installed `verifier worker`, every sink on, until its REST API says the truth."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from bench.arena import PROGRAM, Arena, Dataset
from bench.exactness import wrong_fields, wrong_summary
from bench.measure import Measured, RunFailed
from bench.result import Outcome
from bench.workload import ROUTES
from verifier.demo.stack.ports import free_port

LOOK_EVERY_S = 0.5
CLOSE_EVERY_S = 0.1
LISTENS_WITHIN_S = 60.0
QUIET_S = 60.0  # nothing read or judged for so long, and the run is over: longer than the join timeout
JOIN_TIMEOUT_S = 30
WITHIN_S = 1_800.0


class Worker:
    """One `verifier worker` of a deployment."""

    def __init__(
        self,
        arena: Arena,
        environment: dict[str, str],
        folder: Path,
        *,
        cores: Sequence[int] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.log_path = folder / f"worker-{self.port}.log"
        config = folder / "verifier.yaml"
        config.write_text(yaml.safe_dump({"routes": list(ROUTES)}))
        self.measured = Measured(
            [*command, str(PROGRAM), "worker"],
            log_path=self.log_path,
            env={**environment, "VERIFIER_HTTP_PORT": str(self.port), "VERIFIER_CONFIG": str(config)},
            cores=arena.cores if cores is None else cores,
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60.0)

    def get(self, path: str) -> Any:
        """The JSON of a GET; None while nobody answers or the answer is not 200."""
        try:
            answer = self._client.get(path)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def pages(self, path: str) -> list[Any]:
        """Every item of a list."""
        items: list[Any] = []
        cursor = ""
        while True:
            page = self.get(f"{path}?limit=1000{cursor}")
            if page is None:
                raise self.measured.failed(f"{path} gave no answer")
            items += page["items"]
            if not page["next_cursor"]:
                return items
            cursor = f"&cursor={page['next_cursor']}"

    def complaints(self) -> list[str]:
        """The last things its log warns of."""
        lines = [line for line in self.log_path.read_text().splitlines() if '"level":"info"' not in line]
        return [f"log: {line[:300]}" for line in lines[-5:]]

    def began_at(self) -> float:
        """When it had its partitions (Unix seconds), as its log says. Raises RunFailed if it never had."""
        for line in self.log_path.read_text().splitlines():
            said = json.loads(line)
            if said.get("event") == "partitions_assigned" and said.get("partitions"):
                return datetime.fromisoformat(said["ts"]).timestamp()
        raise self.measured.failed("it was never assigned a partition")


def settled(workers: Sequence[Worker], dataset: Dataset, within_s: float) -> tuple[float, list[str]]:
    """Wait until the summary is the truth; returns when that was (Unix seconds) and what is still wrong.

    Asks the first worker, which answers for all, once in a while, and more often when nearly all is judged.
    """
    truth, first = dataset.truth, workers[0]
    first.measured.wait_until(lambda: first.get("/v1/summary") is not None, LISTENS_WITHIN_S, "its REST API")
    give_up_at = time.monotonic() + within_s
    total, seen, changed_at, wrong = 0, -1, time.monotonic(), ["no summary"]
    while wrong:
        for worker in workers:
            if not worker.measured.running:
                raise worker.measured.failed("ended before every verdict was there")
        summary = first.get("/v1/summary")
        now = time.monotonic()
        if summary is not None:
            wrong = wrong_summary(truth, summary, dataset.topics)
            if not wrong:
                break
            if (read := sum(summary["records"].values()) + summary["requests"]["total"]) != seen:
                seen, changed_at, total = read, now, summary["requests"]["total"]
        if now > give_up_at or now - changed_at > QUIET_S:
            break
        nearly = total >= 0.95 * truth.requests_total
        time.sleep(CLOSE_EVERY_S if nearly else LOOK_EVERY_S)
    return time.time(), wrong


def run_verifier(
    arena: Arena, dataset: Dataset, *, within_s: float = WITHIN_S, command: Sequence[str] = (), **more: str
) -> Outcome:
    """Let one worker work through the dataset. `command` is put before it (a profiler), `more` are settings."""
    name = arena.name("verifier")
    folder = arena.run_folder(name)
    environment = arena.environment(name, dataset, VERIFIER_JOIN_TIMEOUT_S=str(JOIN_TIMEOUT_S), **more)
    arena.init(environment)
    worker = Worker(arena, environment, folder, command=command)
    try:
        ended_at, wrong = settled([worker], dataset, within_s)
        cpu_s = worker.measured.cpu_s()
        wrong += wrong_found(worker, dataset)
        if wrong:
            wrong += worker.complaints()
        began_at = worker.began_at()
    finally:
        usage = worker.measured.stop()
    if not usage.cpu_s:
        raise RunFailed("nothing was measured")
    return Outcome(
        name="verifier",
        records=dataset.truth.records_total,
        requests=dataset.truth.requests_total,
        usage=usage,
        busy_s=ended_at - began_at,
        wrong=tuple(wrong),
        more={"cpu_s_at_last_verdict": round(cpu_s, 3)},
    )


def wrong_found(worker: Worker, dataset: Dataset) -> list[str]:
    """What is wrong with the differences that the REST API tells."""
    rows = worker.pages("/v1/fields")
    return wrong_fields(
        dataset.truth,
        [[row["route"], row["kind"], row["field"], row["change"], row["count"]] for row in rows],
    )
