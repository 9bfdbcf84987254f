"""How the cost of a record grows: with the number of records, with the requests that wait, with a second worker.

Here the CPU time of a worker's start, measured with nothing to read, is taken off: what grows is the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from bench.arena import Arena, Dataset, Say
from bench.result import Outcome
from bench.verifier_run import JOIN_TIMEOUT_S, WITHIN_S, Worker, settled

READY_WITHIN_S = 120.0
LONG_TIMEOUT_S = 7_200
STANDING_AGO_S, FLOW_AGO_S = 3_000.0, 30.0
POLL_S = 0.5


def start_cpu_s(arena: Arena) -> float:
    """CPU time of a worker until it is ready, with empty topics."""
    name = arena.name("start")
    environment = arena.environment(name)
    arena.init(environment)
    worker = Worker(arena, environment, arena.run_folder(name))
    try:
        _wait_ready(worker)
        return worker.measured.cpu_s()
    finally:
        worker.measured.stop()


def _wait_ready(worker: Worker) -> None:
    worker.measured.wait_until(lambda: worker.get("/readyz") is not None, READY_WITHIN_S, "it was ready")


def cost_us(outcome: Outcome, start_s: float) -> float:
    """Microseconds of CPU a record, without the start."""
    return (float(outcome.more["cpu_s_at_last_verdict"]) - start_s) / outcome.records * 1e6


def volume(outcomes: Iterable[Outcome], start_s: float) -> list[dict[str, Any]]:
    """Cost of a record at several sizes, against the smallest."""
    by_size = sorted(outcomes, key=lambda outcome: outcome.records)
    smallest = cost_us(by_size[0], start_s)
    return [
        {
            "series": "records",
            "what": f"{outcome.records:,} records",
            "size": outcome.records,
            "cpu_us_per_record": round(cost_us(outcome, start_s), 3),
            "growth": round(cost_us(outcome, start_s) / smallest, 3),
            "peak_rss_mb": round(outcome.usage.peak_rss_mb, 1),
            "exact": outcome.exact,
        }
        for outcome in by_size
    ]


def pending(arena: Arena, sizes: list[int], flow_requests: int, say: Say) -> list[dict[str, Any]]:
    """Cost of a record while so many other requests wait, and what a waiting request takes of memory."""
    points: list[dict[str, Any]] = []
    for waiting in sizes:
        points.append(_with_waiting(arena, waiting, flow_requests))
        say(f"{waiting:,} requests waiting: {points[-1]['cpu_us_per_record']:.2f} us of CPU a record")
    for point in points:
        point["growth"] = round(point["cpu_us_per_record"] / points[0]["cpu_us_per_record"], 3)
    least, most = points[0], points[-1]
    more_bytes = (most["rss_mb"] - least["rss_mb"]) * 1e6 / (most["size"] - least["size"])
    most["bytes_per_pending"] = round(more_bytes)
    most["bytes_over_records"] = round(more_bytes - most["record_bytes_per_pending"])
    return points


def _with_waiting(arena: Arena, waiting: int, flow_requests: int) -> dict[str, Any]:
    name = arena.name("pending")
    environment = arena.environment(name, VERIFIER_JOIN_TIMEOUT_S=str(LONG_TIMEOUT_S))
    arena.init(environment)
    standing = arena.load_into(f"{name}.", waiting, "--whole", "--standing", ago_s=STANDING_AGO_S)
    worker = Worker(arena, environment, arena.run_folder(name))
    try:
        _wait_for_pending(worker, waiting, standing)
        rss_mb, before_s = worker.measured.rss_mb(), worker.measured.cpu_s()
        flow = arena.load_into(f"{name}.", flow_requests, "--whole", "--seed", "8", ago_s=FLOW_AGO_S)
        wrong = _flow_through(worker, flow, standing, waiting)
        spent_s = worker.measured.cpu_s() - before_s
    finally:
        worker.measured.stop()
    return {
        "series": "requests waiting",
        "what": f"{waiting:,} requests waiting",
        "size": waiting,
        "cpu_us_per_record": round(spent_s / flow.truth.records_total * 1e6, 3),
        "flow_records": flow.truth.records_total,
        "rss_mb": round(rss_mb, 1),
        "record_bytes_per_pending": round(standing.truth.value_bytes / waiting),
        "exact": not wrong,
        "void": wrong,
    }


def _wait_for_pending(worker: Worker, waiting: int, standing: Dataset) -> None:
    def waits() -> bool:
        time.sleep(POLL_S)
        summary = worker.get("/v1/summary")
        read = 0 if summary is None else sum(summary["records"].values())
        return summary is not None and summary["pending"] == waiting and read == standing.truth.records_total

    worker.measured.wait_until(waits, WITHIN_S, f"{waiting} requests wait")


def _flow_through(worker: Worker, flow: Dataset, standing: Dataset, waiting: int) -> list[str]:
    """Wait until the requests that flow past those waiting are judged; returns what is wrong."""
    expected = {verdict: flow.truth.requests[verdict] for verdict in ("match", "divergence", "incomplete")}
    records = flow.truth.records_total + standing.truth.records_total
    seen: dict[str, Any] = {}

    def judged() -> bool:
        nonlocal seen
        time.sleep(POLL_S)
        seen = worker.get("/v1/summary") or seen
        return bool(seen) and seen["requests"]["total"] >= flow.truth.requests_total and seen["lag"] == 0

    worker.measured.wait_until(judged, WITHIN_S, "the requests that flow are judged")
    wrong = [
        f"{verdict}: {seen['requests'][verdict]}, expected {count}"
        for verdict, count in expected.items()
        if seen["requests"][verdict] != count
    ]
    if seen["pending"] != waiting or sum(seen["records"].values()) != records:
        wrong.append(f"pending {seen['pending']} of {waiting}, records {seen['records']}, expected {records}")
    return wrong


def two_workers(arena: Arena, dataset: Dataset, one: Outcome, start_s: float) -> dict[str, Any]:
    """Two workers with a core each beside one: by the CPU time of the busier one, and by the wall clock."""
    name = arena.name("two")
    environment = arena.environment(name, dataset, VERIFIER_JOIN_TIMEOUT_S=str(JOIN_TIMEOUT_S))
    arena.init(environment)
    folder = arena.run_folder(name)
    cores = sorted({*arena.server_cores, *arena.cores})[-2:]
    workers = [Worker(arena, environment, folder, cores=[core]) for core in cores]
    try:
        ended_at, wrong = settled(workers, dataset, WITHIN_S)
        cpu_s = [worker.measured.cpu_s() - start_s for worker in workers]
        began_at = min(worker.began_at() for worker in workers)
    finally:
        for worker in workers:
            worker.measured.stop()
    alone = float(one.more["cpu_s_at_last_verdict"]) - start_s
    return {
        "series": "workers",
        "what": "two workers",
        "size": 2,
        "cpu_us_per_record": round(sum(cpu_s) / dataset.truth.records_total * 1e6, 3),
        "cpu_s_of_each": [round(value, 2) for value in cpu_s],
        "speedup_by_cpu": round(alone / max(cpu_s), 3),
        "speedup_by_wall": round(one.busy_s / (ended_at - began_at), 3),
        "exact": not wrong,
        "void": wrong,
    }


__all__ = ["cost_us", "pending", "start_cpu_s", "two_workers", "volume"]
