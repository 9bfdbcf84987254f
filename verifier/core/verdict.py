"""The verdict on one request: a pure function of the set of its records.

Each pair is first judged for whether it *can* be compared, then compared. Order of precedence: served by the canary,
excused (shed, not sampled), something missing, a difference, a doubt, match. A difference needs its witness in
what was read; "could not tell" never becomes "equal".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from verifier.core.compare import compare_responses, compare_status
from verifier.core.difference import NOTHING, Comparison, Difference
from verifier.core.events import Edge, Response, Seen, Write, raw_bytes
from verifier.core.mapping import IdMapping
from verifier.core.outcome import Claim, Claimant, Outcome, SideFacts, Verdict, WriteSet
from verifier.core.policy import Limits, Policy
from verifier.core.reconcile import compare_writes
from verifier.core.routes import Router

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
CLAIM_DATA_BYTES_MAX = 4096


class JudgeConfig(Struct, frozen=True, kw_only=True):
    """Which parts a side must show, and the names whose values never leave the verifier."""

    expect_edge: bool = True
    expect_responses: bool = True
    redact: frozenset[str] = frozenset(("authorization", "cookie", "set-cookie"))


class _Evidence:
    """A request's records sorted out by side: the first edge line and response of each, and all writes in order."""

    __slots__ = ("edges", "gaps", "responses", "seen", "writes")

    def __init__(self, seen: Iterable[Seen]) -> None:
        self.seen = sorted(seen, key=lambda item: item.order)
        self.edges: dict[str, Edge] = {}
        self.responses: dict[str, Response] = {}
        self.writes: dict[str, list[Write]] = {}
        self.gaps: dict[str, str] = {}
        for item in self.seen:
            event = item.event
            kind = type(event)
            if kind is Response:
                self._add_response(event)  # type: ignore[arg-type]
            elif kind is Edge:
                self._add_edge(event)  # type: ignore[arg-type]
            else:
                self.writes.setdefault(event.side, []).append(event)  # type: ignore[arg-type]
        for writes in self.writes.values():
            if len(writes) > 1 and all(write.seq is not None for write in writes):
                writes.sort(key=lambda write: (write.seq, write.ts))

    def _add_response(self, response: Response) -> None:
        """A record that only owns up to a gap adds that to the response, whichever is first."""
        known = self.responses.get(response.side)
        if response.capture_gap:
            self.gaps.setdefault(response.side, response.capture_gap)
        if known is None or (known.capture_gap and not response.capture_gap):
            self.responses[response.side] = response

    def _add_edge(self, edge: Edge) -> None:
        known = self.edges.get(edge.side)
        if known is None or (edge.shed and not known.shed) or (known.sampled and not edge.sampled):
            self.edges[edge.side] = edge

    def has(self, side: str) -> bool:
        return side in self.edges or side in self.responses or side in self.writes

    def status(self, side: str) -> int | None:
        response = self.responses.get(side)
        if response is not None:
            return response.status
        edge = self.edges.get(side)
        return None if edge is None else edge.upstream_status or edge.status

    def facts(self, side: str) -> SideFacts:
        edge, response = self.edges.get(side), self.responses.get(side)
        latency = edge.upstream_time_s if edge is not None else None
        if latency is None and response is not None and response.duration_ms is not None:
            latency = response.duration_ms / 1000
        return SideFacts(side, self.status(side), latency)

    def first_of(self, name: str) -> Any:
        """The first value of an optional field that any record gives, main's first."""
        for wanted in (True, False):
            for item in self.seen:
                if (item.event.side == "main") is wanted and getattr(item.event, name, None) is not None:
                    return getattr(item.event, name)
        return None


class Judge:
    """Judges requests under one policy, one set of routes and one configuration."""

    def __init__(self, policy: Policy, router: Router, config: JudgeConfig, limits: Limits | None = None) -> None:
        self._policy = policy
        self._router = router
        self._config = config
        self._limits = limits or Limits()
        self._needed = [("edge", config.expect_edge), ("responses", config.expect_responses)]

    def judge(self, request_id: str, seen: Sequence[Seen], *, bound_hit: bool = False) -> tuple[Outcome, list[Claim]]:
        """Conclude from all records of a request what is to be said of it, and which conflict keys it claims.

        `bound_hit` says that the request had to be closed early to keep within a bound: if it is not whole then, that
        is our doing and it is incomparable, not incomplete.
        """
        evidence = _Evidence(seen)
        method, route = self._route(evidence)
        shadow_side = "canary" if evidence.has("canary") else "shadow"
        verdict, reasons, missing, comparison = self._decide(evidence, route)
        if bound_hit and verdict is Verdict.INCOMPLETE:
            verdict, reasons = Verdict.INCOMPARABLE, ("pending_bound", *reasons)
        sides = [name for name in ("main", shadow_side, "reference") if evidence.has(name)]
        key = evidence.first_of("idempotency_key")
        writes = None
        if evidence.writes or method not in _SAFE_METHODS:
            writes = self._write_set(evidence, route, shadow_side)
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
            sides=tuple(evidence.facts(side) for side in sides),
            user_id=evidence.first_of("user_id"),
            idempotency_key=key,
            writes=writes,
        )
        return outcome, self._claims(evidence, route) if evidence.writes else []

    # -- the decision --------------------------------------------------------------------------------------

    def _decide(
        self, evidence: _Evidence, route: str
    ) -> tuple[Verdict, tuple[str, ...], tuple[str, ...], Comparison]:
        if evidence.has("canary"):
            return Verdict.INCOMPARABLE, ("served_by_canary",), (), NOTHING
        for edge in evidence.edges.values():
            if edge.shed or not edge.sampled:
                return Verdict.INCOMPARABLE, ("shed" if edge.shed else "not_sampled",), (), NOTHING
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

    def _missing(self, evidence: _Evidence) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Say which expected parts are absent, and which of them their capturing side owns up to have dropped."""
        missing: list[str] = []
        gaps: list[str] = []
        for side in ("main", "shadow"):
            for kind, needed in self._needed:
                there = evidence.edges if kind == "edge" else evidence.responses
                if needed and side not in there:
                    missing.append(f"{side}.{kind}")
            response = evidence.responses.get(side)
            if response is None:
                continue
            if side in evidence.gaps:
                gaps.append(f"capture_gap:{side}.{evidence.gaps[side]}"[:80])
            elif (response.writes or 0) > len(evidence.writes.get(side, ())):
                missing.append(f"{side}.writes")
        return tuple(missing), tuple(gaps)

    def _compare(self, evidence: _Evidence, route: str, gaps: tuple[str, ...]) -> Comparison:
        mapping = IdMapping()
        main, shadow = evidence.responses.get("main"), evidence.responses.get("shadow")
        parts: list[Comparison] = []
        if main is not None and shadow is not None:
            answers = compare_responses(
                main, shadow, route=route, policy=self._policy, limits=self._limits, mapping=mapping
            )
            parts.append(self._without_noise(answers, evidence, main, route))
        else:
            statuses = evidence.status("main"), evidence.status("shadow")
            if statuses[0] is not None and statuses[1] is not None:
                parts.append(compare_status(statuses[0], statuses[1], route=route, policy=self._policy))
        if evidence.writes and not gaps and self._writes_are_whole(evidence):
            writes = evidence.writes.get("main", ()), evidence.writes.get("shadow", ())
            parts.append(
                compare_writes(
                    *writes, route=route, policy=self._policy, limits=self._limits, mapping=mapping
                )
            )
        return parts[0] if len(parts) == 1 else _joined(parts, self._limits.differences_max)

    def _writes_are_whole(self, evidence: _Evidence) -> bool:
        """Writes are compared only if both sides may be taken to have told all of theirs."""
        for side in ("main", "shadow"):
            response = evidence.responses.get(side)
            told = len(evidence.writes.get(side, ()))
            if response is not None and (response.writes or 0) > told:
                return False
            if response is None and told == 0 and self._config.expect_responses:
                return False
        return True

    def _without_noise(self, answers: Comparison, evidence: _Evidence, main: Response, route: str) -> Comparison:
        """Set aside value differences in fields that differ between main and the second legacy instance, too."""
        reference = evidence.responses.get("reference")
        if reference is None or not answers.differences:
            return answers
        noise = compare_responses(
            main, reference, route=route, policy=self._policy, limits=self._limits, mapping=IdMapping()
        )
        noisy = {(d.kind, d.field) for d in noise.differences if d.change == "value"}
        kept: list[Difference] = []
        ignored = list(answers.ignored)
        for difference in answers.differences:
            if difference.change == "value" and (difference.kind, difference.field) in noisy:
                ignored.append(msgspec.structs.replace(difference, rule="noise:reference"))
            else:
                kept.append(difference)
        return msgspec.structs.replace(answers, differences=tuple(kept), ignored=tuple(ignored))

    # -- what else is said ---------------------------------------------------------------------------------

    def _route(self, evidence: _Evidence) -> tuple[str, str]:
        for events in (evidence.responses, evidence.edges):
            for side in ("main", "canary", "shadow", "reference"):
                event: Any = events.get(side)  # type: ignore[attr-defined]
                if event is not None:
                    path = event.path if isinstance(event, Response) else event.uri
                    method = event.method.upper()
                    return method, self._router.route(method, path, evidence.first_of("route"))
        operation = evidence.first_of("operation") or "UNKNOWN /"
        method, _, path = operation.partition(" ")
        return method.upper(), self._router.route(method, path or "/", evidence.first_of("route"))

    def _write_set(self, evidence: _Evidence, route: str, shadow_side: str) -> WriteSet:
        response = evidence.responses.get(shadow_side)
        return WriteSet(
            operation=evidence.first_of("operation") or route,
            user_id=evidence.first_of("user_id"),
            main=self._rows(evidence, "main"),
            shadow=self._rows(evidence, shadow_side),
            shadow_side=shadow_side,
            main_status=evidence.status("main"),
            shadow_status=evidence.status(shadow_side),
            error=None if response is None else response.error,
        )

    def _rows(self, evidence: _Evidence, side: str) -> list[dict[str, Any]] | None:
        if side not in evidence.responses and side not in evidence.writes:
            return None
        return [
            {
                "entity": write.entity,
                "key": write.key,
                "op": write.op,
                "status": write.status,
                "data": self._image(write),
            }
            for write in evidence.writes.get(side, ())
        ]

    def _image(self, write: Write) -> Any:
        """The row's image for storing: bounded, with the values of redacted fields replaced."""
        raw = raw_bytes(write.data)
        if raw is None:
            return None
        if len(raw) > self._limits.row_bytes:
            digest = hashlib.sha256(raw).hexdigest()
            return {"$cut": True, "bytes": len(raw), "sha256": digest}
        return self._policy.redacted(raw) if self._policy.mentions_secret(raw) else Raw(raw)

    def _claims(self, evidence: _Evidence, route: str) -> list[Claim]:
        claims: list[Claim] = []
        for side in ("main", "canary", "shadow"):
            applied = [write for write in evidence.writes.get(side, ()) if write.status == "applied"]
            if not applied:
                continue
            key = self._idempotency_key(evidence, side)
            if key is not None:
                claimant = self._claimant(side, applied, evidence, route, with_key=False)
                claims.append(Claim(scope="idempotency", key=f"{side}:{key}", claimant=claimant))
            rows: dict[tuple[str, str], list[Write]] = {}
            for write in applied:
                rows.setdefault((write.entity, write.key), []).append(write)
            for (entity, row_key), writes in rows.items():
                claimant = self._claimant(side, writes, evidence, route, with_key=True)
                claims.append(Claim(scope="entity", key=f"{entity}/{row_key}", claimant=claimant))
        return claims

    def _claimant(
        self, side: str, writes: list[Write], evidence: _Evidence, route: str, *, with_key: bool
    ) -> Claimant:
        first = min(writes, key=lambda write: (write.ts, write.seq or 0))
        images = [self._image(write) for write in writes]
        operation = first.operation or route
        content = [
            (write.entity, write.key if with_key else None, write.op, _plain(write.data)) for write in writes
        ]
        digest = hashlib.blake2b(_encode_sorted([operation, content]), digest_size=8).digest()
        data = images[0] if len(images) == 1 else images
        if len(_encode_sorted(data)) > CLAIM_DATA_BYTES_MAX:
            data = {"$cut": True, "digest": digest.hex()}
        return Claimant(
            side=side,
            request_id=first.request_id,
            ts=first.ts,
            seq=first.seq or 0,
            operation=operation,
            entity=first.entity,
            data=data,
            digest=int.from_bytes(digest, "big"),
        )

    def _idempotency_key(self, evidence: _Evidence, side: str) -> str | None:
        candidates: list[Any] = [evidence.responses.get(side), evidence.edges.get(side)]
        for event in [*candidates, *evidence.writes.get(side, ())]:
            if event is not None and event.idempotency_key:
                return str(event.idempotency_key)
        edge = evidence.edges.get("main") or evidence.edges.get("canary")
        return edge.idempotency_key if edge is not None else None


def _plain(data: Any) -> Any:
    raw = raw_bytes(data)
    return None if raw is None else msgspec.json.decode(raw)


def _joined(parts: Sequence[Comparison], differences_max: int) -> Comparison:
    differences = tuple(d for part in parts for d in part.differences)
    return Comparison(
        differences=differences[:differences_max],
        ignored=tuple(d for part in parts for d in part.ignored)[:differences_max],
        doubts=tuple(dict.fromkeys(doubt for part in parts for doubt in part.doubts)),
        dropped=sum(part.dropped for part in parts) + max(0, len(differences) - differences_max),
    )
