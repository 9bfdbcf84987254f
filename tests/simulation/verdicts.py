"""Holding what the product says at the end against the oracle's answer, in every place where it says it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.simulation.cluster import TOPICS
from tests.simulation.faults import Setup
from tests.simulation.invariants import Watch, must
from tests.simulation.links import Servers, run_now
from tests.simulation.oracle import Answer, Conflict, Truth
from tests.simulation.traffic import Produced
from verifier.core.outcome import Outcome


def compare(
    answer: Answer, setup: Setup, servers: Servers, watch: Watch, produced: dict[str, Produced]
) -> None:
    """Raise Violated at the first place where journal, tables or topics do not say what is true."""
    final = _final_outcomes(watch)
    must(
        final.keys() == answer.requests.keys(), f"verdicts on {_apart(final.keys(), answer.requests.keys())}"
    )
    for request_id, truth in answer.requests.items():
        _verdict(request_id, truth, final[request_id], bounded=setup.faults.bound)
    _tables(answer, final, servers)
    _divergences(final, servers)
    _conflicts(answer, servers)
    _rejected(servers, produced)


def _apart(said: Any, true: Any) -> str:
    return f"{sorted(said - true)} that should not be; none on {sorted(true - said)}"


def _final_outcomes(watch: Watch) -> dict[str, Outcome]:
    final: dict[str, Outcome] = {}
    revs: dict[str, int] = {}
    for chain in watch.chains.values():
        for _, entry in chain:
            for resolved in entry.resolved:
                outcome = resolved.outcome
                must(
                    resolved.rev == revs.get(outcome.request_id, -1) + 1,
                    f"{outcome.request_id}: revision {resolved.rev} after {revs.get(outcome.request_id)}",
                )
                revs[outcome.request_id] = resolved.rev
                must(
                    resolved.was == final.get(outcome.request_id),
                    f"{outcome.request_id}: revision {resolved.rev} takes back what was not there",
                )
                final[outcome.request_id] = outcome
    return final


def _verdict(request_id: str, truth: Truth, outcome: Outcome, *, bounded: bool) -> None:
    if bounded and truth.verdict == "incomplete" and outcome.verdict == "incomparable":
        must(outcome.reasons[:1] == ("pending_bound",), f"{request_id}: incomparable for {outcome.reasons}")
    else:
        must(outcome.verdict == truth.verdict, f"{request_id}: {outcome.verdict}, in truth {truth.verdict}")
        must(outcome.reasons == truth.reasons, f"{request_id}: {outcome.reasons}, in truth {truth.reasons}")
    must(outcome.missing == truth.missing, f"{request_id}: lacks {outcome.missing}, in truth {truth.missing}")
    must(outcome.ts == truth.ts, f"{request_id}: began at {outcome.ts}, in truth {truth.ts}")
    found = sorted(repr(_plain(d)) for d in outcome.differences)
    true = sorted(map(repr, truth.differences))
    must(found == true, f"{request_id}: differs in {found}, in truth in {true}")
    must(not outcome.ignored and not outcome.dropped, f"{request_id}: ignores or drops differences")


def _plain(d: Any) -> tuple[Any, ...]:
    return (d.kind, d.path, d.field, d.change, _number(d.main), _number(d.shadow))


def _number(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _tables(answer: Answer, final: dict[str, Outcome], servers: Servers) -> None:
    store = servers.store
    summary = run_now(store.summary())
    verdicts = Counter(outcome.verdict for outcome in final.values())
    said = {name: n for name, n in summary["requests"].items() if n and name != "total"}
    must(said == dict(verdicts), f"the tables count {said}, in truth {dict(verdicts)}")
    must(summary["requests"]["total"] == len(answer.requests), "the tables' total is wrong")
    must(
        summary["records"] == dict(sorted(answer.records.items())),
        f"records {summary['records']}, in truth {answer.records}",
    )
    must(
        summary["rejected"] == answer.rejected, f"{summary['rejected']} rejected, in truth {answer.rejected}"
    )
    must(
        summary["duplicate"] == answer.duplicates,
        f"{summary['duplicate']} duplicates, in truth {answer.duplicates}",
    )
    taken = sum(answer.records.values()) - answer.rejected - answer.duplicates
    must(0 <= summary["late"] <= taken, f"{summary['late']} late of {taken}")
    must(summary["pending"] == 0, f"{summary['pending']} pending")
    for request_id, truth in answer.requests.items():
        row = run_now(store.request(request_id))
        must(row is not None, f"{request_id} has no row")
        assert row is not None
        must(row["verdict"] == final[request_id].verdict, f"{request_id}: the table says {row['verdict']}")
        writes = row["writes"]
        shown = None if writes is None else {name: writes[name] for name in truth.writes or ()}
        must(shown == truth.writes, f"{request_id}: shadow_writes {shown}, in truth {truth.writes}")
    differing = Counter(
        key for o in final.values() for key in {(o.route, d.kind, d.field, d.change) for d in o.differences}
    )
    counted: Counter[tuple[str, ...]] = Counter()
    for stat in run_now(store.fields()):
        counted[stat["route"], stat["kind"], stat["field"], stat["change"]] += stat["count"]
    must(+counted == +differing, f"fields counted {dict(counted)}, in truth {dict(differing)}")
    for stat in run_now(store.routes()):
        for side, facts in stat["sides"].items():
            true = sum(
                o.route == stat["route"] and any(f.side == side for f in o.sides) for o in final.values()
            )
            must(
                facts["responses"] == true,
                f"{stat['route']} {side}: {facts['responses']} answers, in truth {true}",
            )


def _divergences(final: dict[str, Outcome], servers: Servers) -> None:
    topic = servers.publisher.compacted(TOPICS.divergences)
    true = {i: o for i, o in final.items() if o.verdict == "divergence"}
    must(topic.keys() == true.keys(), f"the divergences topic: {_apart(topic.keys(), true.keys())}")
    for request_id, outcome in true.items():
        said = sorted(repr((d["kind"], d["path"], d["change"])) for d in topic[request_id]["differences"])
        must(
            said == sorted(repr((d.kind, d.path, d.change)) for d in outcome.differences),
            f"the divergences topic says of {request_id}: {said}",
        )


def _conflicts(answer: Answer, servers: Servers) -> None:
    table = [_told(view) for view in run_now(servers.store.conflicts(limit=1000))["items"]]
    must(len(table) == len(set(table)), "a conflict is in the table twice")
    _same_conflicts("table", set(table), answer.conflicts)
    n = run_now(servers.store.summary())["conflicts"]
    must(n == len(table), f"the summary counts {n} conflicts, there are {len(table)}")
    topic = [_told(view) for view in servers.publisher.compacted(TOPICS.conflicts).values()]
    must(len(topic) == len(set(topic)), "a conflict is in the topic twice")
    _same_conflicts("topic", set(topic), answer.conflicts)


def _same_conflicts(where: str, said: set[Conflict], true: set[Conflict]) -> None:
    must(said == true, f"conflicts in the {where}: wrong {sorted(said - true)}, absent {sorted(true - said)}")


def _told(view: dict[str, Any]) -> Conflict:
    winner, loser = view["winner"], view["loser"]
    return (
        view["scope"],
        view["key"],
        view["entity"],
        view["kind"],
        (winner["side"], winner["request_id"], winner["ts"], repr(winner["data"])),
        (loser["side"], loser["request_id"], loser["ts"], repr(loser["data"])),
    )


def _rejected(servers: Servers, produced: dict[str, Produced]) -> None:
    letters = servers.publisher.compacted(TOPICS.rejected)
    bad = {place for place, letter in letters.items() if letter["reason"] != "late"}
    true = {place for place, record in produced.items() if record.truth is None}
    must(bad == true, f"the rejected topic: {_apart(bad, true)}")
