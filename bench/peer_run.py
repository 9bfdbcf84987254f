"""A peer as a contestant: a program that reads the dataset to its end, writes what it found, and ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.arena import BENCH_PYTHON, PRODUCT_PYTHON, ROOT, Arena, Dataset
from bench.exactness import wrong_bytes, wrong_fields, wrong_records, wrong_verdicts
from bench.measure import Measured
from bench.result import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How a peer is started: `command` is followed by bootstrap, result file, number of records, topics."""

    name: str
    command: tuple[str, ...]
    within_s: float = 1_800.0


CEILING = Peer(name="ceiling", command=(str(PRODUCT_PYTHON), "-m", "bench.peers.ceiling_aiokafka"))
STOCK_FAUST = Peer(name="stock_faust", command=(str(PRODUCT_PYTHON), "-m", "bench.peers.stock_faust"))
QUIX_STREAMS = Peer(name="quix_streams", command=(str(BENCH_PYTHON), "-m", "bench.peers.quix_streams"))
C_CEILING = Peer(name="c_ceiling", command=(str(BENCH_PYTHON), "-m", "bench.peers.ceiling_confluent"))


def run_peer(
    arena: Arena, peer: Peer, dataset: Dataset, environment: Mapping[str, str] | None = None
) -> Outcome:
    """Run it over the dataset and hold what it found against the truth."""
    name = arena.name(peer.name)
    folder = arena.run_folder(name)
    result = folder / "result.json"
    truth = dataset.truth
    arguments = [arena.bootstrap, str(result), str(truth.records_total), *dataset.topics]
    measured = Measured(
        [*peer.command, *arguments],
        log_path=folder / "peer.log",
        cwd=ROOT,
        env=None if environment is None else dict(environment),
        cores=arena.cores,
    )
    try:
        usage = measured.finish(peer.within_s)
    finally:
        measured.stop()
    told: dict[str, Any] = json.loads(result.read_text())
    return Outcome(
        name=peer.name,
        records=truth.records_total,
        requests=truth.requests_total,
        usage=usage,
        busy_s=told["last_at"] - told["first_at"],
        wrong=tuple(_wrong(dataset, told)),
        start_cpu_s=told.get("start_cpu_s", 0.0),
    )


def _wrong(dataset: Dataset, told: Mapping[str, Any]) -> Sequence[str]:
    truth = dataset.truth
    wrong = wrong_records(truth, told["records"])
    if "requests" in told:
        wrong += wrong_verdicts(truth, told["requests"])
        wrong += wrong_fields(truth, told["fields"])
    if "bytes" in told:
        wrong += wrong_bytes(truth, told["bytes"])
        if told["incomplete"] != truth.requests["incomplete"]:
            wrong.append(f"incomplete: {told['incomplete']}, expected {truth.requests['incomplete']}")
    return wrong
