"""The verdict on one request: a pure function of the set of its records.

Each pair is first judged for whether it *can* be compared, then compared. Order of precedence: served by the canary,
excused (shed, not sampled), something missing, a difference, a doubt, match. A difference needs its witness in
what was read; "could not tell" never becomes "equal".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from verifier.core.canonical import NotJson, canonical, parse
from verifier.core.compare import compare_responses, compare_status
from verifier.core.difference import NOTHING, Change, Comparison, Difference
from verifier.core.events import Edge, Response, Seen, Write, raw_bytes
from verifier.core.evidence import Evidence
from verifier.core.mapping import IdMapping
from verifier.core.outcome import Claim, Claimant, Outcome, Verdict, WriteSet
from verifier.core.policy import Limits, Policy
from verifier.core.reconcile import compare_writes
from verifier.core.routes import Router

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
CLAIM_DATA_BYTES_MAX = 4096
WRITE_ROWS_MAX = 200
PENDING_BOUND = "pending_bound"
NOISE_RULE = "noise:reference"
_PLAIN_BRACKETS_MAX = 64


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
        self._needed = [("edge", config.expect_edge), ("responses", config.expect_responses)]

    def judge(
        self, request_id: str, seen: Sequence[Seen], *, bound_hit: bool = False
    ) -> tuple[Outcome, list[Claim]]:
        """Conclude from all records of a request what is to be said of it, and which conflict keys it claims.

        `bound_hit` says that the request had to be closed early to keep within a bound: if it is not whole then, that
        is our doing and it is incomparable, not incomplete.
        """
        evidence = Evidence(seen)
        method, route = self._route(evidence)
        shadow_side = "canary" if evidence.has("canary") else "shadow"
        verdict, reasons, missing, comparison = self._decide(evidence, route)
        if bound_hit and verdict is Verdict.INCOMPLETE:
            verdict, reasons = Verdict.INCOMPARABLE, (PENDING_BOUND, *reasons)
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
        return parts[0] if len(parts) == 1 else _joined(parts, self._limits.differences_max)

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

    # -- what else is said ---------------------------------------------------------------------------------

    def _route(self, evidence: Evidence) -> tuple[str, str]:
        for events in (evidence.responses, evidence.edges):
            for side in ("main", "canary", "shadow", "reference"):
                event: Any = events.get(side)
                if event is not None:
                    path = event.path if isinstance(event, Response) else event.uri
                    method = event.method.upper()
                    return method, self._router.route(method, path, evidence.first_of("route"))
        operation = evidence.first_of("operation") or "UNKNOWN /"
        method, _, path = operation.partition(" ")
        return method.upper(), self._router.route(method, path or "/", evidence.first_of("route"))

    def _write_set(self, evidence: Evidence, route: str, shadow_side: str) -> WriteSet:
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

    def _rows(self, evidence: Evidence, side: str) -> list[dict[str, Any]] | None:
        if side not in evidence.responses and side not in evidence.writes:
            return None
        writes = evidence.writes.get(side, [])
        rows = [
            {
                "entity": write.entity,
                "key": write.key,
                "op": write.op,
                "status": write.status,
                "data": self._image(write),
            }
            for write in writes[:WRITE_ROWS_MAX]
        ]
        if len(writes) > WRITE_ROWS_MAX:
            more = f"{len(writes) - WRITE_ROWS_MAX} more rows"
            rows.append({"entity": "$cut", "key": more, "op": "", "status": "", "data": None})
        return rows

    def _image(self, write: Write) -> Any:
        """The row's image for storing: bounded, with the values of redacted fields replaced."""
        raw = raw_bytes(write.data)
        if raw is None:
            return None
        if len(raw) > self._limits.row_bytes:
            digest = hashlib.sha256(raw).hexdigest()
            return {"$cut": True, "bytes": len(raw), "sha256": digest}
        if self._policy.mentions_secret(raw) or not _is_plain(raw):
            return self._policy.redacted(raw)
        return Raw(raw)

    def _claims(self, evidence: Evidence, route: str) -> list[Claim]:
        claims: list[Claim] = []
        for side in ("main", "canary", "shadow"):
            applied = [write for write in evidence.writes.get(side, ()) if write.status == "applied"]
            if not applied:
                continue
            keys = evidence.idempotency_keys(side)
            if keys:
                claimant = self._claimant(side, applied, route, with_key=False)
                claims += [Claim(scope="idempotency", key=f"{side}:{key}", claimant=claimant) for key in keys]
            rows: dict[tuple[str, str], list[Write]] = {}
            for write in applied:
                rows.setdefault((write.entity, write.key), []).append(write)
            for (entity, row_key), writes in rows.items():
                claimant = self._claimant(side, writes, route, with_key=True)
                claims.append(Claim(scope="entity", key=f"{entity}/{row_key}", claimant=claimant))
        return claims

    def _claimant(self, side: str, writes: list[Write], route: str, *, with_key: bool) -> Claimant:
        first = min(writes, key=lambda write: (write.ts, write.seq or 0))
        images = [self._image(write) for write in writes[:WRITE_ROWS_MAX]]
        operation = first.operation or route
        content = [
            (write.entity, write.key if with_key else None, write.op, _content(write)) for write in writes
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


def _excuse(edge: Edge) -> tuple[str, ...]:
    """Why there is no pair: `shed`, with the edge's word for it where it gives one, or `not_sampled`."""
    if not edge.shed:
        return ("not_sampled",)
    return ("shed",) if edge.shed_reason is None else ("shed", f"shed:{edge.shed_reason}")


def _content(write: Write) -> str | None:
    """The row's image as canonical JSON: equal for equal rows however they are written down."""
    raw = raw_bytes(write.data)
    if raw is None:
        return None
    try:
        return canonical(parse(raw)).decode()
    except NotJson:
        return raw.decode(errors="backslashreplace")


def _is_plain(raw: bytes) -> bool:
    """Whether every reader of JSON takes the text: no number that no double holds, no deep nesting."""
    if raw.count(b"[") + raw.count(b"{") > _PLAIN_BRACKETS_MAX:
        return False
    try:
        msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return False
    return True


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
