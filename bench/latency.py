"""How long it takes from a request's last record to its verdict being readable over REST, under a steady load."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from typing import Any

import httpx

from bench.arena import BENCH_PYTHON, ROOT, Arena, Dataset
from bench.measure import RunFailed
from bench.truth import Truth
from bench.verifier_run import Worker, settled

ASK_EVERY_S = 0.02
ANSWERS_WITHIN_S = 30.0
READY_WITHIN_S = 90.0
SETTLE_FIRST_S = 2.0  # samples of the first seconds are left out: caches fill, connections open


def latency(arena: Arena, *, requests_per_s: float, for_s: float) -> dict[str, Any]:
    """p50 and p99 in milliseconds, with how they were taken. Raises RunFailed."""
    name = arena.name("latency")
    folder = arena.run_folder(name)
    environment = arena.environment(name)
    arena.init(environment)
    worker = Worker(arena, environment, folder)
    try:
        worker.measured.wait_until(lambda: worker.get("/readyz") is not None, READY_WITHIN_S, "it was ready")
        truth_path = folder / "truth.json"
        command = [str(BENCH_PYTHON), "-m", "bench.live", "--bootstrap", arena.bootstrap]
        command += ["--prefix", f"{name}.", "--truth", str(truth_path)]
        command += ["--rate", f"{requests_per_s:.1f}", "--for-s", f"{for_s:.1f}"]
        taken = asyncio.run(_sample(command, worker.port))
        dataset = Dataset(prefix=f"{name}.", truth=Truth.from_json(truth_path.read_text()))
        _, wrong = settled([worker], dataset, 300.0)
    finally:
        worker.measured.stop()
    began = min(sent_at for sent_at, _ in taken)
    latencies = sorted(seen - sent for sent, seen in taken if sent - began >= SETTLE_FIRST_S)
    if len(latencies) < 10:
        raise RunFailed(f"only {len(latencies)} samples of the latency")
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return {
        "p50": round(cuts[49] * 1e3, 1),
        "p99": round(cuts[98] * 1e3, 1),
        "max": round(latencies[-1] * 1e3, 1),
        "samples": len(latencies),
        "unanswered_after_30_s": sum(value >= ANSWERS_WITHIN_S for value in latencies),
        "requests_per_s": round(requests_per_s),
        "records_per_s": round(dataset.truth.records_total / for_s),
        "for_s": for_s,
        "exact": not wrong,
        "void": wrong,
    }


async def _sample(command: list[str], port: int) -> list[tuple[float, float]]:
    """Run the traffic; returns when each sampled request was sent and when its verdict was read."""
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    asking: list[asyncio.Task[tuple[float, float]]] = []
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0, limits=limits) as client:
        async for line in process.stdout:
            request_id, sent_at = line.decode().split()
            asking.append(asyncio.create_task(_until_judged(client, request_id, float(sent_at))))
        taken = await asyncio.gather(*asking)
    if await process.wait():
        raise RunFailed(f"the traffic ended with status {process.returncode}")
    return taken


async def _until_judged(client: httpx.AsyncClient, request_id: str, sent_at: float) -> tuple[float, float]:
    """When it was sent, and when its verdict was read; what takes longer than the wait counts as that long."""
    give_up_at = time.monotonic() + ANSWERS_WITHIN_S
    while time.monotonic() < give_up_at:
        with contextlib.suppress(httpx.TimeoutException):
            answer = await client.get(f"/v1/requests/{request_id}")
            if answer.status_code == 200 and answer.json().get("verdict"):
                return sent_at, time.time()
        await asyncio.sleep(ASK_EVERY_S)
    return sent_at, sent_at + ANSWERS_WITHIN_S
