"""The shapes REST answers with, made from counts and rows (the public contract's section 6).

Pure functions over plain values, so that the live tables and their in-memory twin answer alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from verifier.core.counts import LATENCY_BOUNDS_US, LATENCY_BUCKETS, FieldStat, RecordCount, SideStat
from verifier.core.difference import Difference
from verifier.core.outcome import Claimant, Conflict, Verdict

View = dict[str, Any]

EXEMPLARS_MAX = 5
FIELDS_MAX = 1000
ITEMS_MAX = 1000
_Z_95 = 1.959963984540054


class Progress(Struct, frozen=True):
    """How far one partition is; `seen` when it has read anything at all."""

    pending: int
    lag: int
    verified_through: float
    seen: bool


def wilson_interval(k: int, n: int, *, z: float = _Z_95) -> tuple[float, float]:
    """The Wilson score interval of a rate, `k` of `n` (Wilson 1927); 95 % by default.

    Raises ValueError for n < 1.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"no rate of {k} in {n}")
    p, zz = k / n, z * z
    centre = p + zz / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    scale = 1 + zz / n
    low = 0.0 if k == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if k == n else min(1.0, (centre + spread) / scale)
    return low, high


def quantile_s(buckets: Sequence[int], q: float) -> float | None:
    """Estimate a quantile in seconds from latency buckets, linear within a bucket; None without latencies.

    Above the last bound nothing is known but the bound, which is what is given then.
    """
    total = sum(buckets)
    if total <= 0:
        return None
    wanted, below = q * total, 0
    for place, n in enumerate(buckets):
        if n > 0 and below + n >= wanted:
            if place >= len(LATENCY_BOUNDS_US):
                break
            low = LATENCY_BOUNDS_US[place - 1] if place else 0
            share = (wanted - below) / n
            return (low + share * (LATENCY_BOUNDS_US[place] - low)) / 1e6
        below += n
    return LATENCY_BOUNDS_US[-1] / 1e6


def summary_view(
    verdicts: Mapping[str, int],
    records: Mapping[int, RecordCount],
    conflicts: int,
    partitions: Iterable[Progress],
) -> View:
    """The cluster's summary.

    `records` is keyed by source number; `verified_through` is None while nothing was read.
    """
    progress = list(partitions)
    by_verdict = {verdict.value: verdicts.get(verdict.value, 0) for verdict in Verdict}
    return {
        "requests": {"total": sum(by_verdict.values()), **by_verdict},
        "records": {source: records[source].records for source in sorted(records)},
        "rejected": sum(count.rejected for count in records.values()),
        "duplicate": sum(count.duplicate for count in records.values()),
        "late": sum(count.late for count in records.values()),
        "conflicts": conflicts,
        "pending": sum(p.pending for p in progress),
        "lag": sum(p.lag for p in progress),
        "verified_through": min((p.verified_through for p in progress if p.seen), default=None),
    }


def route_views(
    verdicts: Mapping[tuple[str, str], int], sides: Mapping[tuple[str, str, str], SideStat]
) -> list[View]:
    """One row a route, in order of route; counts are keyed as in `counts.Counts`."""
    answers: dict[str, dict[str, View]] = {}
    stats: dict[tuple[str, str], SideStat] = {}
    for (route, side, status), stat in sorted(sides.items()):
        if stat.n == 0:
            continue
        answers.setdefault(route, {}).setdefault(side, {"responses": 0, "status": {}})
        answers[route][side]["responses"] += stat.n
        answers[route][side]["status"][status] = stat.n
        total = stats.setdefault((route, side), SideStat(0, 0, [0] * LATENCY_BUCKETS))
        total.latency_sum_us += stat.latency_sum_us
        total.buckets = [a + b for a, b in zip(total.buckets, stat.buckets, strict=True)]
    for (route, side), total in stats.items():
        answer = answers[route][side]
        errors = answer["status"].get("5xx", 0)
        answer["error_rate"] = errors / answer["responses"]
        answer["latency_s"] = _latency_view(total)
    by_route: dict[str, dict[str, int]] = {}
    for (route, verdict), n in verdicts.items():
        if n:
            by_route.setdefault(route, {})[verdict] = n
    return [_route_view(route, by_route[route], answers.get(route, {})) for route in sorted(by_route)]


def _latency_view(stat: SideStat) -> View:
    n = sum(stat.buckets)
    return {
        "count": n,
        "mean": stat.latency_sum_us / n / 1e6 if n else None,
        "p50": quantile_s(stat.buckets, 0.50),
        "p99": quantile_s(stat.buckets, 0.99),
    }


def _route_view(route: str, verdicts: Mapping[str, int], sides: View) -> View:
    by_verdict = {verdict.value: verdicts.get(verdict.value, 0) for verdict in Verdict}
    diverged = by_verdict["divergence"]
    compared = diverged + by_verdict["match"]
    interval = wilson_interval(diverged, compared) if compared else None
    return {
        "route": route,
        "total": sum(by_verdict.values()),
        **by_verdict,
        "compared": compared,
        "divergence_rate": diverged / compared if compared else None,
        "divergence_rate_interval": list(interval) if interval else None,
        "sides": sides,
    }


def field_views(
    fields: Mapping[tuple[str, str, str, str], FieldStat],
    verdicts: Mapping[tuple[str, str], int],
    exemplars: Mapping[tuple[str, str, str, str], Sequence[str]],
) -> list[View]:
    """One row a (route, kind, field, change), most frequent first, at most 1000.

    `share` is of the route's compared requests.
    """
    compared: dict[str, int] = {}
    for (route, verdict), n in verdicts.items():
        if verdict in {Verdict.MATCH, Verdict.DIVERGENCE}:
            compared[route] = compared.get(route, 0) + n
    seen = [(key, stat) for key, stat in fields.items() if stat.n or stat.ignored]
    seen.sort(key=lambda item: (-item[1].n, -item[1].ignored, item[0]))
    return [
        {
            "route": key[0],
            "kind": key[1],
            "field": key[2],
            "change": key[3],
            "count": stat.n,
            "ignored": stat.ignored,
            "share": stat.n / compared[key[0]] if compared.get(key[0]) else None,
            "first_seen": stat.first_ts if math.isfinite(stat.first_ts) else None,
            "last_seen": stat.last_ts if math.isfinite(stat.last_ts) else None,
            "noise": _noise_state(stat),
            "exemplars": list(exemplars.get(key, ())),
        }
        for key, stat in seen[:FIELDS_MAX]
    ]


def _noise_state(stat: FieldStat) -> str:
    """`none`: no rule explains it; `ignored`: rules explain every time it differed; `partly`: some."""
    if stat.ignored == 0:
        return "none"
    return "ignored" if stat.n == 0 else "partly"


def difference_view(difference: Difference) -> View:
    """A difference with all its parts, the absent side None."""
    view = {
        "kind": difference.kind,
        "path": difference.path,
        "field": difference.field,
        "change": difference.change,
        "main": difference.main,
        "shadow": difference.shadow,
    }
    if difference.rule is not None:
        view["rule"] = difference.rule
    return view


def claimant_view(claimant: Claimant) -> View:
    """The winner or loser of a conflict, as it is published and stored."""
    return {
        "side": claimant.side,
        "request_id": claimant.request_id,
        "ts": claimant.ts,
        "seq": claimant.seq,
        "operation": claimant.operation,
        "data": claimant.data,
    }


def conflict_view(conflict: Conflict) -> View:
    """A conflict as the public contract's section 4 gives it."""
    return {
        "id": conflict.id,
        "scope": conflict.scope,
        "key": conflict.key,
        "entity": conflict.entity,
        "kind": conflict.kind,
        "winner": claimant_view(conflict.winner),
        "loser": claimant_view(conflict.loser),
        "strategy": conflict.strategy,
        "ts": conflict.ts,
    }


def key_result_view(claimant: Claimant, rev: int) -> View:
    """What `idempotency_keys.result` holds; the digest as text, for it is a large number to JSON readers."""
    return {
        "side": claimant.side,
        "ts": claimant.ts,
        "seq": claimant.seq,
        "rev": rev,
        "digest": f"{claimant.digest:016x}",
        "data": claimant.data,
    }
