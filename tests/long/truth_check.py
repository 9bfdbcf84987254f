"""The places where the truth must be found: REST, PostgreSQL, the fold of the journal, and three topics."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from tests.acceptance.cluster import SOURCES, VERDICTS, Cluster
from tests.long.traffic import READING, WRITING, Truth

SINGLE_REQUESTS = 10


def check_summary(summary: dict[str, Any], cluster: Cluster, truth: Truth) -> None:
    wanted = dict.fromkeys(VERDICTS, 0) | truth.by_verdict | {"total": len(truth.verdicts)}
    assert summary["requests"] == wanted
    records = {name.removeprefix(cluster.prefix): n for name, n in summary["records"].items()}
    assert records == {topic: truth.records[topic] for topic in SOURCES}
    assert (summary["duplicate"], summary["rejected"]) == (truth.duplicates, truth.rejected)
    assert summary["conflicts"] == len(truth.conflicts)
    assert (summary["pending"], summary["lag"]) == (0, 0)


def check_lists(cluster: Cluster, truth: Truth) -> None:
    """Hold what REST says of routes, fields, divergences and single requests against the truth."""
    routes: Counter[tuple[str, str]] = Counter()
    for row in cluster.paged("/v1/routes", 100):
        routes.update({(row["route"], verdict): row[verdict] for verdict in VERDICTS})
        assert row["total"] == sum(row[verdict] for verdict in VERDICTS)
    assert +routes == truth.routes
    fields = {
        (row["route"], row["kind"], row["field"], row["change"]): row["count"]
        for row in cluster.paged("/v1/fields", 100)
    }
    assert fields == {
        (READING, "status", "", "value"): truth.routes[READING, "divergence"],
        (WRITING, "write", "/articles/*/title", "value"): truth.routes[WRITING, "divergence"],
    }
    listed = [row["request_id"] for row in cluster.paged("/v1/divergences", 1_000)]
    assert len(listed) == len(set(listed))
    assert set(listed) == divergent(truth)
    ids = list(truth.verdicts)
    for request_id in ids[:: len(ids) // SINGLE_REQUESTS]:
        assert cluster.request(request_id)["verdict"] == truth.verdicts[request_id], request_id


def check_postgres(cluster: Cluster, truth: Truth) -> None:
    rows = cluster.sql("SELECT request_id, verdict, missing FROM requests")
    assert len(rows) == len(truth.verdicts)
    assert {row["request_id"]: row["verdict"] for row in rows} == truth.verdicts
    missing = {row["request_id"]: row["missing"] for row in rows if row["missing"]}
    assert missing == {request_id: [part] for request_id, part in truth.missing.items()}
    counted = cluster.sql("SELECT verdict, sum(n)::bigint AS n FROM verdict_counts GROUP BY verdict")
    assert {row["verdict"]: row["n"] for row in counted if row["n"]} == truth.by_verdict
    differing = {row["request_id"]: row["verdict"] for row in cluster.sql("SELECT * FROM divergences")}
    assert {each for each, verdict in differing.items() if verdict == "divergence"} == divergent(truth)
    assert {truth.verdicts[each] for each in differing} <= {"divergence", "incomplete"}
    assert len(cluster.sql("SELECT 1 FROM shadow_writes")) == truth.writes
    found = cluster.sql(
        "SELECT kind, winner->>'side' AS side, winner_request_id AS winner, loser_request_id AS loser"
        " FROM conflicts WHERE NOT retracted"
    )
    assert {(row["kind"], row["side"], row["winner"], row["loser"]) for row in found} == truth.conflicts
    assert len(found) == len(truth.conflicts)


def check_journal(cluster: Cluster, truth: Truth) -> int:
    """Fold the journal as a reader who knows only its one rule: the first entry with the next number counts."""
    next_n: defaultdict[int, int] = defaultdict(int)
    counts: Counter[str] = Counter()
    current: dict[str, str] = {}
    records: Counter[str] = Counter()
    duplicates = rejected = passed_over = 0
    for read in cluster.consume("verifier.journal"):
        entry = read.value
        if entry["n"] != next_n[read.partition]:
            passed_over += 1
            continue
        next_n[read.partition] += 1
        for source, start, end, n, reasons, duplicate, *_ in entry.get("counts", ()):
            assert end - start >= n
            records[SOURCES[source]] += n
            rejected += sum(reasons.values())
            duplicates += duplicate
        for resolved in entry.get("resolved", ()):
            outcome, was = resolved["outcome"], resolved.get("was")
            assert (was or {}).get("verdict") == current.get(outcome["request_id"]), (
                "it takes back another verdict"
            )
            counts[outcome["verdict"]] += 1
            if was is not None:
                counts[was["verdict"]] -= 1
            current[outcome["request_id"]] = outcome["verdict"]
    assert current == truth.verdicts
    assert {verdict: n for verdict, n in counts.items() if n} == truth.by_verdict
    assert records == truth.records
    assert (duplicates, rejected) == (truth.duplicates, truth.rejected)
    return passed_over


def check_topics(cluster: Cluster, truth: Truth) -> None:
    divergences = cluster.compacted("verifier.divergences")
    assert set(divergences) == divergent(truth)
    assert all(item["verdict"] == "divergence" and item["differences"] for item in divergences.values())
    conflicts = cluster.compacted("verifier.conflicts").values()
    found = {
        (c["kind"], c["winner"]["side"], c["winner"]["request_id"], c["loser"]["request_id"])
        for c in conflicts
    }
    assert found == truth.conflicts
    letters = cluster.compacted("verifier.rejected").values()
    assert sum(letter["reason"] != "late" for letter in letters) == truth.rejected


def divergent(truth: Truth) -> set[str]:
    return {request_id for request_id, verdict in truth.verdicts.items() if verdict == "divergence"}
