"""What a bench leaves behind: the file others read, and the goals it is held against."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.growth import volume
from bench.measure import Measured, RunFailed, Usage
from bench.profiling import digest, part_of
from bench.report import Results, goals, keep
from bench.result import Outcome, middle
from tests.tidy.source_files import ROOT


def outcome(name: str, cpu_s: float, wrong: tuple[str, ...] = ()) -> Outcome:
    usage = Usage(user_s=cpu_s, system_s=0.0, wall_s=cpu_s, peak_rss_mb=100.0)
    return Outcome(name=name, records=1_000_000, requests=200_000, usage=usage, busy_s=10.0, wrong=wrong)


def results(*outcomes: Outcome) -> Results:
    return Results(
        command="test", records=1_000_000, requests=200_000, commit="0", machine={},
        contestants={each.name: each for each in outcomes}, latency={"p50": 80.0, "p99": 400.0},
    )  # fmt: skip


def test_the_file_has_the_shape_that_others_read() -> None:
    told = results(outcome("ceiling", 3.0), outcome("verifier", 5.0)).as_json()
    assert {"commit", "machine", "records", "contestants", "latency_ms", "scaling"} <= set(told)
    for contestant in told["contestants"].values():
        assert {"cpu_s_per_million", "records_per_s", "peak_rss_mb", "exact"} <= set(contestant)
    assert told["contestants"]["verifier"]["cpu_s_per_million"] == 5.0
    assert told["contestants"]["verifier"]["records_per_s"] == 100_000
    assert {"p50", "p99"} <= set(told["latency_ms"])


def test_goals_are_held_against_exact_runs_alone() -> None:
    reached = {
        g["goal"]: g["reached"] for g in goals(results(outcome("ceiling", 3.0), outcome("verifier", 5.0)))
    }
    assert reached == {"CPU of the verifier / ceiling": True, "p99 to the verdict over REST, ms": True}
    void = outcome("verifier", 5.0, wrong=("one verdict is off",))
    assert [g["goal"] for g in goals(results(outcome("ceiling", 3.0), void))] == [
        "p99 to the verdict over REST, ms"
    ]
    assert not void.as_json()["exact"]


@pytest.mark.parametrize(
    ("costs", "stands_for_all"),
    [((5.0,), 5.0), ((9.0, 5.0), 5.0), ((9.0, 5.0, 6.0), 6.0), ((1.0, 7.0, 6.0, 8.0), 6.0)],
)
def test_the_middle_of_several_runs_stands_for_all(costs: tuple[float, ...], stands_for_all: float) -> None:
    kept = results()
    for cost in costs:
        kept.add("verifier", outcome("verifier", cost))
    told = kept.as_json()["contestants"]["verifier"]
    assert told["cpu_s_per_million"] == stands_for_all
    assert told["runs_cpu_s_per_million"] == list(costs)


def test_one_void_run_voids_them_all() -> None:
    runs = [
        outcome("verifier", 4.0),
        outcome("verifier", 6.0, wrong=("one verdict is off",)),
        outcome("verifier", 5.0),
    ]
    assert middle(runs).wrong == ("one verdict is off",)
    assert middle(runs).cpu_s_per_million == 5.0


def test_growth_is_held_against_the_smallest_without_the_start() -> None:
    def of(records: int, cpu_s: float) -> Outcome:
        usage = Usage(user_s=cpu_s, system_s=0.0, wall_s=cpu_s, peak_rss_mb=100.0)
        more = {"cpu_s_at_last_verdict": cpu_s}
        return Outcome(name="verifier", records=records, requests=1, usage=usage, busy_s=1.0, more=more)

    points = volume([of(1_000_000, 62.0), of(100_000, 7.0)], start_s=2.0)
    assert [(point["size"], point["cpu_us_per_record"], point["growth"]) for point in points] == [
        (100_000, 50.0, 1.0),
        (1_000_000, 60.0, 1.2),
    ]


def test_the_newest_full_result_is_also_the_latest(tmp_path: Path) -> None:
    path = keep(results(outcome("ceiling", 3.0)), quick=False, folder=tmp_path)
    assert json.loads((tmp_path / "latest.json").read_text()) == json.loads(path.read_text())
    quick = keep(results(outcome("ceiling", 4.0)), quick=True, folder=tmp_path)
    assert quick.name == "quick.json"
    assert json.loads((tmp_path / "latest.json").read_text()) == json.loads(path.read_text())


def test_kept_results_are_whole() -> None:
    for path in (ROOT / "bench" / "results").glob("*.json"):
        told = json.loads(path.read_text())
        if "contestants" in told:
            assert {"commit", "machine", "records", "latency_ms", "scaling"} <= set(told), path
            assert {"ceiling", "verifier"} <= set(told["contestants"]), path


def test_a_program_is_measured_whole(tmp_path: Path) -> None:
    busy = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    measured = Measured(["python3", "-c", busy + "x = bytearray(60_000_000)"], log_path=tmp_path / "log")
    usage = measured.finish(60.0)
    assert 0.25 < usage.cpu_s < 5.0
    assert usage.wall_s >= 0.2


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    measured = Measured(["python3", "-c", "raise SystemExit('no broker')"], log_path=tmp_path / "log")
    with pytest.raises(RunFailed, match="no broker"):
        measured.finish(60.0)


def test_samples_are_added_up_by_part() -> None:
    frames = ["run (uvloop/__init__.py)", "Engine.conclude (verifier/core/engine.py)"]
    assert part_of([*frames, "Judge.judge (verifier/core/verdict.py)"]) == "judge: compare, reconcile"
    assert part_of([*frames, "Judge.judge (verifier/core/verdict.py)", "dumps (json/__init__.py)"]) == (
        "judge: compare, reconcile"
    )
    assert part_of(frames) == "engine, partition worker"
    text = digest("main (a.py:1);step (verifier/core/join.py:9) 3\nmain (a.py:1) 1\n")
    assert "75.0%  join" in text
    assert "25.0%  event loop and other" in text
