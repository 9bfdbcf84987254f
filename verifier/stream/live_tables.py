"""Faust tables with changelogs: what is current, for those who consume it as streams.

Each is a fold of the journal, bounded for each partition. A value carries the number of the entry it stands at, so that
an entry folded twice, after a crash between journal and changelog, counts once.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Container
from typing import Any

import faust

from verifier.core.journal import Entry
from verifier.core.outcome import Verdict
from verifier.stream.outputs import divergence_item

ROWS_MAX = 10_000


class LiveTables:
    """The tables `divergences`, `routes` and `conflicts` of one Faust application."""

    def __init__(self, app: faust.App, *, partitions: int, rows_max: int = ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._tables: dict[str, Any] = {
            name: app.Table(
                name, default=None, partitions=partitions, use_partitioner=True, key_type=str, help=about
            )
            for name, about in (
                ("divergences", "newest divergent requests by request id"),
                ("routes", "verdicts by partition and route"),
                ("conflicts", "newest conflicts by conflict id"),
            )
        }
        self._order: defaultdict[tuple[str, int], deque[str]] = defaultdict(deque)
        self._unsaid: dict[tuple[int, str], None] = {}

    def flush(self, owned: Container[int]) -> None:
        """Send the counts that have changed since the last time (with every entry some do), of the partitions owned."""
        unsaid, self._unsaid = self._unsaid, {}
        for partition, key in unsaid:
            if partition not in owned:
                continue
            self._tables["routes"].send_changelog(partition, key, self._tables["routes"].data[key])

    def fold(self, entry: Entry) -> None:
        """Fold an entry in, once, whatever how often it is given."""
        partition = entry.partition
        shares: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for resolved in entry.resolved:
            outcome = resolved.outcome
            share = shares[outcome.route]
            share[outcome.verdict] = share.get(outcome.verdict, 0) + 1
            if resolved.was is not None:
                before = shares[resolved.was.route]
                before[resolved.was.verdict] = before.get(resolved.was.verdict, 0) - 1
            if outcome.verdict == Verdict.DIVERGENCE:
                self._put("divergences", partition, outcome.request_id, divergence_item(outcome))
            elif resolved.was is not None and resolved.was.verdict == Verdict.DIVERGENCE:
                self._drop("divergences", partition, outcome.request_id)
        for route, share in shares.items():
            self._add(partition, route, entry.n, share)
        for conflict in entry.conflicts:
            value = {"scope": conflict.scope, "kind": conflict.kind, "key": conflict.key, "ts": conflict.ts}
            self._put("conflicts", partition, conflict.id, value)
        for conflict_id in entry.retracted:
            self._drop("conflicts", partition, conflict_id)

    def _add(self, partition: int, route: str, n: int, share: dict[str, int]) -> None:
        key = f"{partition}|{route}"
        known = self._tables["routes"].data.get(key) or {"n": -1}
        if known["n"] >= n:
            return
        value = {verdict: known.get(verdict, 0) + share.get(verdict, 0) for verdict in map(str, Verdict)}
        self._keep("routes", partition, key, {"n": n, "route": route, **value})
        self._unsaid[partition, key] = None

    def _put(self, name: str, partition: int, key: str, value: dict[str, Any]) -> None:
        self._tables[name].send_changelog(partition, key, value)
        self._keep(name, partition, key, value)

    def _keep(self, name: str, partition: int, key: str, value: dict[str, Any]) -> None:
        table, order = self._tables[name], self._order[name, partition]
        if key not in table.data:
            order.append(key)
            if len(order) > self._rows_max:
                self._drop(name, partition, order.popleft())
        table.data[key] = value

    def _drop(self, name: str, partition: int, key: str) -> None:
        table = self._tables[name]
        if key in table.data:
            table.send_changelog(partition, key, None)
            del table.data[key]
            self._unsaid.pop((partition, key), None)
