"""The verdict on one request: a pure function of the set of its records.

Each pair is first judged for whether it *can* be compared, then compared. Order of precedence: served by the canary,
excused (shed, not sampled), something missing, a difference, a doubt, match. A difference needs its witness in
what was read; "could not tell" never becomes "equal".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from verifier.core.claiming import claims_of
from verifier.core.compare import compare_responses, compare_status
from verifier.core.difference import NOTHING, Change, Comparison, Difference, Kind
from verifier.core.events import Edge, InOrder, Response, Seen, in_order
from verifier.core.evidence import Evidence
from verifier.core.mapping import IdMapping
from verifier.core.outcome import Claim, Outcome, Verdict, WriteSet
from verifier.core.plain_pair import PlainPair, facts_of, plain_pair
from verifier.core.policy import Limits, Policy
from verifier.core.reconcile import compare_writes
from verifier.core.routes import Router
from verifier.core.rows import WRITE_ROWS_MAX, RowTexts

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_MATCH = Verdict.MATCH.value
_ROUTE_SIDES = ("main", "canary", "shadow", "reference")
PENDING_BOUND = "pending_bound"
NOISE_RULE = "noise:reference"


class JudgeConfig(Struct, frozen=True, kw_only=True):
    """Which parts a side must show, and the names whose values never leave the verifier."""

    expect_edge: bool = True
    expect_responses: bool = True
    redact: frozenset[str] = frozenset(("authorization", "cookie", "set-cookie"))


class Judge:
    """Judges requests under one policy, one set of routes and one configuration."""

    def __init__(
        self, policy: Policy, router: Router, config: JudgeConfig, limits: Limits | None = None
    ) -> None:
        self._policy = policy
        self._router = router
        self._config = config
        self._limits = limits or Limits()

    def judge(
        self, request_id: str, seen: Sequence[Seen], *, bound_hit: bool = False
    ) -> tuple[Outcome, list[Claim]]:
        """Conclude from all records of a request what is to be said of it, and which conflict keys it claims.

        `bound_hit` says that the request had to be closed early to keep within a bound: if it is not whole then, that
        is our doing and it is incomparable, not incomplete.
        """
        ordered = in_order(seen)
        pair = plain_pair(ordered)
        agreed = None if pair is None else self._agreed(request_id, pair, ordered[0].event.ts)
        return self._judge_any(request_id, ordered, bound_hit=bound_hit) if agreed is None else (agreed, [])

    def _agreed(self, request_id: str, pair: PlainPair, ts: float) -> Outcome | None:
        """The outcome of a plain pair, unless more is asked of its request than of others."""
        main = pair.main
        method = main.method.upper()
        if method not in _SAFE_METHODS:
            return None
        given = user_id = idempotency_key = None
        for event in pair.firsts:
            if given is None:
                given = event.route
            if user_id is None:
                user_id = event.user_id
            if idempotency_key is None:
                idempotency_key = event.idempotency_key
        route = self._router.route(method, main.path, given)
        policy = self._policy
        if policy.tracks_ids(route, Kind.HEADER) or policy.tracks_ids(route, Kind.BODY):
            return None
        return Outcome(
            request_id=request_id,
            ts=ts,
            route=route,
            verdict=_MATCH,
            sides=(facts_of(pair.edge, main), facts_of(pair.shadow_edge, pair.shadow)),
            user_id=user_id,
            idempotency_key=idempotency_key,
        )

    def _judge_any(self, request_id: str, seen: InOrder, *, bound_hit: bool) -> tuple[Outcome, list[Claim]]:
        evidence = Evidence(seen)
        method, route = self._route(evidence)
        shadow_side = "canary" if evidence.has("canary") else "shadow"
        rows = RowTexts(self._policy, self._limits)
        verdict, reasons, missing, comparison = self._decide(evidence, route)
        if bound_hit and verdict is Verdict.INCOMPLETE:
            verdict, reasons = Verdict.INCOMPARABLE, (PENDING_BOUND, *reasons)
        facts = [evidence.facts(side) for side in ("main", shadow_side, "reference") if evidence.has(side)]
        writes = None
        if evidence.writes or method not in _SAFE_METHODS:
            writes = _write_set(evidence, rows, route, shadow_side)
        outcome = Outcome(
            request_id=request_id,
            ts=evidence.seen[0].event.ts,
            route=route,
            verdict=verdict.value,
            reasons=reasons,
            missing=missing,
            differences=comparison.differences,
            ignored=comparison.ignored,
            dropped=comparison.dropped,
            sides=tuple(facts),
            user_id=evidence.user_id,
            idempotency_key=evidence.idempotency_key,
            writes=writes,
        )
        return outcome, claims_of(evidence, rows, route) if evidence.writes else []

    # -- the decision --------------------------------------------------------------------------------------

    def _decide(
        self, evidence: Evidence, route: str
    ) -> tuple[Verdict, tuple[str, ...], tuple[str, ...], Comparison]:
        if evidence.has("canary"):
            return Verdict.INCOMPARABLE, ("served_by_canary",), (), NOTHING
        for edge in evidence.edges.values():
            if edge.shed or not edge.sampled:
                return Verdict.INCOMPARABLE, _excuse(edge), (), NOTHING
        missing, gaps = self._missing(evidence)
        comparison = self._compare(evidence, route, gaps)
        doubts = tuple(dict.fromkeys((*gaps, *comparison.doubts)))
        if missing:
            return Verdict.INCOMPLETE, doubts, missing, comparison
        if comparison.differences or comparison.dropped:
            return Verdict.DIVERGENCE, doubts, (), comparison
        if doubts:
            return Verdict.INCOMPARABLE, doubts, (), comparison
        return Verdict.MATCH, (), (), comparison

    def _missing(self, evidence: Evidence) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Say which expected parts are absent, and which of them their capturing side owns up to have dropped."""
        missing: list[str] = []
        gaps: list[str] = []
        config = self._config
        for side in ("main", "shadow"):
            if config.expect_edge and side not in evidence.edges:
                missing.append(f"{side}.edge")
            response = evidence.responses.get(side)
            if response is None:
                if config.expect_responses:
                    missing.append(f"{side}.responses")
                continue
            if side in evidence.gaps:
                gaps.append(f"capture_gap:{side}.{evidence.gaps[side]}"[:80])
            elif (response.writes or 0) > len(evidence.writes.get(side, ())):
                missing.append(f"{side}.writes")
        return tuple(missing), tuple(gaps)

    def _compare(self, evidence: Evidence, route: str, gaps: tuple[str, ...]) -> Comparison:
        mapping = IdMapping()
        main, shadow = evidence.responses.get("main"), evidence.responses.get("shadow")
        parts: list[Comparison] = []
        if main is not None and shadow is not None:
            answers = self._answers(main, shadow, route, mapping)
            reference = evidence.responses.get("reference")
            if reference is not None and answers.differences:
                noise = self._answers(main, reference, route, IdMapping())
                answers = _without_noise(answers, noise, structure=reference.status == main.status)
            parts.append(answers)
        else:
            statuses = evidence.status("main"), evidence.status("shadow")
            if statuses[0] is not None and statuses[1] is not None:
                parts.append(compare_status(statuses[0], statuses[1], route=route, policy=self._policy))
        if evidence.writes and not gaps and self._writes_are_whole(evidence):
            written = self._written(evidence, "shadow", route, mapping)
            if "reference" in evidence.writes and written.differences:
                noise = self._written(evidence, "reference", route, IdMapping())
                written = _without_noise(written, noise, structure=False)
            parts.append(written)
        found = [part for part in parts if part is not NOTHING]
        if not found:
            return NOTHING
        return found[0] if len(found) == 1 else _joined(found, self._limits.differences_max)

    def _answers(self, main: Response, other: Response, route: str, mapping: IdMapping) -> Comparison:
        return compare_responses(
            main, other, route=route, policy=self._policy, limits=self._limits, mapping=mapping
        )

    def _written(self, evidence: Evidence, other: str, route: str, mapping: IdMapping) -> Comparison:
        writes = evidence.writes.get("main", ()), evidence.writes.get(other, ())
        return compare_writes(*writes, route=route, policy=self._policy, limits=self._limits, mapping=mapping)

    def _writes_are_whole(self, evidence: Evidence) -> bool:
        """Writes are compared only if both sides may be taken to have told all of theirs."""
        for side in ("main", "shadow"):
            response = evidence.responses.get(side)
            told = len(evidence.writes.get(side, ()))
            if response is not None and (response.writes or 0) > told:
                return False
            if response is None and told == 0 and self._config.expect_responses:
                return False
        return True

    def _route(self, evidence: Evidence) -> tuple[str, str]:
        given = evidence.route
        for events in (evidence.responses, evidence.edges):
            for side in _ROUTE_SIDES:
                event = events.get(side)
                if event is not None:
                    path = event.path if isinstance(event, Response) else event.uri
                    method = event.method.upper()
                    return method, self._router.route(method, path, given)
        operation = evidence.operation or "UNKNOWN /"
        method, _, path = operation.partition(" ")
        return method.upper(), self._router.route(method, path or "/", given)


def _excuse(edge: Edge) -> tuple[str, ...]:
    """Why there is no pair: `shed`, with the edge's word for it where it gives one, or `not_sampled`."""
    if not edge.shed:
        return ("not_sampled",)
    return ("shed",) if edge.shed_reason is None else ("shed", f"shed:{edge.shed_reason}")


def _write_set(evidence: Evidence, texts: RowTexts, route: str, shadow_side: str) -> WriteSet:
    response = evidence.responses.get(shadow_side)
    return WriteSet(
        operation=evidence.operation or route,
        user_id=evidence.user_id,
        main=_rows(evidence, texts, "main"),
        shadow=_rows(evidence, texts, shadow_side),
        shadow_side=shadow_side,
        main_status=evidence.status("main"),
        shadow_status=evidence.status(shadow_side),
        error=None if response is None else response.error,
    )


def _rows(evidence: Evidence, texts: RowTexts, side: str) -> list[dict[str, Any]] | None:
    if side not in evidence.responses and side not in evidence.writes:
        return None
    writes = evidence.writes.get(side, [])
    rows = [
        {
            "entity": write.entity,
            "key": write.key,
            "op": write.op,
            "status": write.status,
            "data": texts.of(write.data).image,
        }
        for write in writes[:WRITE_ROWS_MAX]
    ]
    if len(writes) > WRITE_ROWS_MAX:
        more = f"{len(writes) - WRITE_ROWS_MAX} more rows"
        rows.append({"entity": "$cut", "key": more, "op": "", "status": "", "data": None})
    return rows


def _without_noise(found: Comparison, noise: Comparison, *, structure: bool) -> Comparison:
    """Set aside what differs in the same way between main and the second legacy instance, too.

    Without `structure` only values count: what that instance lacks may be lost by it, not noise.
    """
    noisy = {(d.kind, d.field, d.change) for d in noise.differences if structure or d.change == Change.VALUE}
    kept: list[Difference] = []
    ignored = list(found.ignored)
    for each in found.differences:
        if (each.kind, each.field, each.change) in noisy:
            ignored.append(msgspec.structs.replace(each, rule=NOISE_RULE))
        else:
            kept.append(each)
    return msgspec.structs.replace(found, differences=tuple(kept), ignored=tuple(ignored))


def _joined(parts: Sequence[Comparison], differences_max: int) -> Comparison:
    differences = tuple(d for part in parts for d in part.differences)
    return Comparison(
        differences=differences[:differences_max],
        ignored=tuple(d for part in parts for d in part.ignored)[:differences_max],
        doubts=tuple(dict.fromkeys(doubt for part in parts for doubt in part.doubts)),
        dropped=sum(part.dropped for part in parts) + max(0, len(differences) - differences_max),
    )
