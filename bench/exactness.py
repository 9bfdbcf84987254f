"""Whether what a run says is the truth, to the last count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench.truth import VERDICTS, Truth


def wrong_records(truth: Truth, records: Sequence[int]) -> list[str]:
    """What is wrong with the records read of each topic."""
    expected = [truth.records[source] for source in range(5)]
    return [] if list(records) == expected else [f"records read: {list(records)}, expected {expected}"]


def wrong_verdicts(truth: Truth, requests: Mapping[str, int]) -> list[str]:
    """What is wrong with the counts by verdict."""
    expected = {verdict: truth.requests[verdict] for verdict in VERDICTS}
    told = {verdict: requests.get(verdict, 0) for verdict in VERDICTS}
    return [] if told == expected else [f"verdicts: {told}, expected {expected}"]


def wrong_fields(truth: Truth, fields: Sequence[Sequence[Any]]) -> list[str]:
    """What is wrong with the counts by (route, kind, field, change); each is a row with its count at the end."""
    told = Counter[tuple[str, str, str, str]]()
    for route, kind, field, change, count in fields:
        told[str(route), str(kind), str(field), str(change)] += int(count)
    places = sorted(set(told) | set(truth.fields))
    off = [place for place in places if told[place] != truth.fields[place]]
    return [f"{place}: {told[place]}, expected {truth.fields[place]}" for place in off[:10]]


def wrong_bytes(truth: Truth, told: Sequence[int]) -> list[str]:
    """What is wrong with a comparison of bodies as bytes: same, different, one of two missing."""
    expected = [truth.bytes_same, truth.bytes_differ, truth.bytes_missing]
    return [] if list(told) == expected else [f"bodies: {list(told)}, expected {expected}"]


def wrong_summary(truth: Truth, summary: Mapping[str, Any], topics: Sequence[str]) -> list[str]:
    """What is wrong with `/v1/summary`."""
    records = [summary["records"].get(topic, 0) for topic in topics]
    wrong = wrong_records(truth, records) + wrong_verdicts(truth, summary["requests"])
    zeros = ("rejected", "duplicate", "late", "pending", "lag")
    wrong += [f"{name}: {summary[name]}, expected 0" for name in zeros if summary[name] != 0]
    if summary["conflicts"] != truth.conflicts:
        wrong.append(f"conflicts: {summary['conflicts']}, expected {truth.conflicts}")
    return wrong
