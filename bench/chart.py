"""Draws a result file as PNG: `python -m bench.chart RESULT.json CHART.png` (in the bench's own environment)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

VERIFIER, OTHERS, VOID = "#1f6f8b", "#b8c4c9", "#d98880"


def draw(told: dict[str, Any], path: Path) -> None:
    """CPU for a million records of every contestant (logarithmic), and how the cost grows."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), gridspec_kw={"width_ratios": (3, 2)})
    contestants = dict(sorted(told["contestants"].items(), key=lambda item: -item[1]["cpu_s_per_million"]))
    names = list(contestants)
    costs = [contestants[name]["cpu_s_per_million"] for name in names]
    colours = [
        VOID if not contestants[name]["exact"] else VERIFIER if name == "verifier" else OTHERS
        for name in names
    ]
    bars = left.barh([name.replace("_", " ") for name in names], costs, color=colours)
    left.bar_label(bars, [f" {cost:.1f}" for cost in costs])
    left.set_xscale("log")
    left.set_xlim(right=max(costs, default=1) * 2)
    left.set_xlabel("CPU-seconds for a million records (user + system, whole process; log scale)")
    left.set_title(f"{told['records']:,} records, commit {told['commit']}")
    points = [point for point in told["scaling"] if "growth" in point]
    for what in dict.fromkeys(point["series"] for point in points):
        series = [point for point in points if point["series"] == what]
        right.plot([p["size"] for p in series], [p["growth"] for p in series], marker="o", label=what)
    right.axhline(1.1, color="#888888", linewidth=0.8, linestyle="--")
    right.set_xscale("log")
    right.set_ylim(bottom=0)
    right.set_title("CPU a record, against the smallest")
    if points:
        right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw."""
    result, chart = map(Path, sys.argv[1:])
    draw(json.loads(result.read_text()), chart)


if __name__ == "__main__":
    main()
