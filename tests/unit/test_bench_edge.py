"""What the edge's bench counts as a lost request."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.edge.latency import quantile_ms
from bench.edge.log_check import Lines, lines
from bench.edge.scene import Contestant

WHOLE = {"main": 10, "shadow": 10, "shed": 2, "unanswered": 3, "main_responses": 10, "shadow_responses": 5}


@pytest.mark.parametrize(
    ("name", "changed", "lost"),
    [
        ("capture", {}, 0),
        ("plain", {"shadow": 0, "main_responses": 0, "shadow_responses": 0}, 0),
        ("mirror", {"main_responses": 0, "shadow_responses": 0}, 0),
        ("plain", {"main": 9}, 1),
        ("mirror", {"shadow": 9}, 1),
        ("capture", {"main_responses": 9}, 1),
        ("capture_hung", {"shadow_responses": 4}, 1),
        ("capture", {"main": 13, "shadow": 13, "main_responses": 13, "shadow_responses": 8}, 1),
    ],
)
def test_each_request_needs_its_lines_and_records(name: str, changed: dict[str, int], lost: int) -> None:
    assert len(Lines(**(WHOLE | changed)).lost(name, 10, in_flight=2)) == lost


def test_lines_are_counted_in_the_files(tmp_path: Path) -> None:
    log = tmp_path / "edge.log.json"
    log.write_text('{"side":"main"}\n{"side":"shadow","shed":true}\n{"side":"main"}\n')
    (tmp_path / "main.responses.json").write_text("{}\n{}\n")
    found = lines(Contestant(name="plain", address="127.0.0.1:1", worker=1, log_path=log), 2)
    assert (found.main, found.shadow, found.shed, found.main_responses) == (2, 1, 1, 2)


def test_quantiles_are_those_of_the_sample() -> None:
    seconds = [number / 1000 for number in range(100, 0, -1)]
    assert (quantile_ms(seconds, 0.5), quantile_ms(seconds, 0.99)) == (51.0, 100.0)
