"""The workload's truth is the truth: a naive reader and the verifier's core both come to it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.exactness import wrong_bytes, wrong_fields, wrong_records, wrong_summary, wrong_verdicts
from bench.peers.core_join import CoreJoin
from bench.truth import Truth
from bench.workload import DIVERGENCES, PARTITIONS, ROUTES, SOURCES, Line, Workload
from tests.bench.naive import verdicts
from verifier.core.events import Source
from verifier.core.partitioner import murmur2_partition

BEGAN_AT = 1_790_000_000.0


class Stored:
    """A record as a consumer hands it over."""

    def __init__(self, line: Line, offset: int) -> None:
        self.offset = offset
        self.key: bytes | None = line.key
        self.value: bytes | None = line.value
        self.timestamp = line.ts_ms
        self.headers = ()


def made(requests: int, seed: int = 3) -> tuple[Workload, list[Line]]:
    workload = Workload(seed, requests, began_at=BEGAN_AT)
    return workload, list(workload)


def test_a_naive_reader_comes_to_the_same_verdicts() -> None:
    workload, lines = made(4_000)
    counts, bodies = verdicts(lines)
    assert wrong_verdicts(workload.truth, counts) == []
    assert wrong_bytes(workload.truth, bodies) == []


def test_the_core_comes_to_the_same_verdicts_and_differences(tmp_path: Path) -> None:
    workload, lines = made(3_000)
    core, partition_of = CoreJoin(PARTITIONS, ROUTES), murmur2_partition(PARTITIONS)
    ends = Counter[tuple[int, int]]()
    for line in lines:
        partition = partition_of(line.key.decode())
        core.feed(Source(line.source), partition, Stored(line, ends[line.source, partition]))
        ends[line.source, partition] += 1
    core.tell(str(tmp_path / "result.json"), 0.0, 0.0)
    told = json.loads((tmp_path / "result.json").read_text())
    assert wrong_records(workload.truth, told["records"]) == []
    assert wrong_verdicts(workload.truth, told["requests"]) == []
    assert wrong_fields(workload.truth, told["fields"]) == []


def test_the_mix_is_as_it_is_said_to_be() -> None:
    workload, lines = made(20_000)
    truth = workload.truth
    assert truth.requests_total == 20_000
    assert truth.records_total == len(lines)
    assert truth.requests["divergence"] / 20_000 == pytest.approx(0.02, abs=0.004)
    assert truth.requests["incomplete"] / 20_000 == pytest.approx(0.005, abs=0.002)
    writing = {line.key for line in lines if line.source == 3}
    assert len(writing) / 20_000 == pytest.approx(0.3, abs=0.02)
    assert len(lines) / 20_000 == pytest.approx(4.7, abs=0.1)
    assert {change for _, kind, field, change in truth.fields} == {
        "value",
        "type",
        "missing",
        "extra",
        "order",
    }
    assert len({(kind, field.split("/")[1:2] == [""], change) for _, kind, field, change in truth.fields}) > 6
    assert len(DIVERGENCES) == 11
    assert truth.conflicts > 0


def test_bodies_are_of_the_sizes_asked_for() -> None:
    _, lines = made(2_000)
    sizes = [
        len(line.value[line.value.index(b'"body":') + 7 : line.value.rindex(b',"duration_ms":')])
        for line in lines
        if line.source in (1, 2)
    ]
    assert min(sizes) >= 190  # a diverging one may have lost a field
    assert max(sizes) <= 4_000
    assert max(sizes) > 3_000


def test_a_seed_gives_the_same_records_again() -> None:
    assert made(500, seed=5)[1] == made(500, seed=5)[1]
    assert made(500, seed=5)[1] != made(500, seed=6)[1]


def test_event_time_alone_closes_what_is_incomplete() -> None:
    workload, lines = made(4_000)
    there = Counter(line.key for line in lines if line.source <= 2)
    incomplete = [line.ts_ms for line in lines if there[line.key] < 4]
    assert incomplete
    assert max(incomplete) / 1_000 < BEGAN_AT + workload.span_s - 45


def test_the_truth_outlives_its_process() -> None:
    truth = made(1_000)[0].truth
    again = Truth.from_json(truth.as_json())
    assert again.as_json() == truth.as_json()
    assert again.records_total == truth.records_total


@pytest.mark.parametrize("name", ["rejected", "duplicate", "late", "pending", "lag", "conflicts"])
def test_a_summary_that_is_off_by_one_is_void(name: str) -> None:
    truth = made(500)[0].truth
    summary: dict[str, Any] = {
        "requests": {"total": 500, **truth.requests},
        "records": {source: truth.records[number] for number, source in enumerate(SOURCES)},
        "rejected": 0, "duplicate": 0, "late": 0, "pending": 0, "lag": 0, "conflicts": truth.conflicts,
    }  # fmt: skip
    assert wrong_summary(truth, summary, SOURCES) == []
    assert wrong_summary(truth, {**summary, name: summary[name] + 1}, SOURCES) != []
    summary["requests"]["match"] -= 1
    assert wrong_summary(truth, summary, SOURCES) != []
