"""docs/metrics.md lists the metrics there are, with their labels."""

from __future__ import annotations

import re
from pathlib import Path

from verifier.adapters.metrics import Metrics

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(verifier_[a-z_]+)` \|([^|]*)\|[^|]+\|$", re.MULTILINE)


def test_the_document_lists_every_metric_with_its_labels_and_no_other() -> None:
    listed = {
        name: set(re.findall(r"`([a-z_]+)`", labels))
        for name, labels in ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    }
    assert listed == {family.name: set(family.labels) for family in Metrics().families()}
