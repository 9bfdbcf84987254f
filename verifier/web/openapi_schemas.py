"""The shapes of all answers, as JSON Schema. Members may be added, so no shape is closed."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TS = {"type": "number", "description": "Unix time in seconds."}
TEXT: Schema = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
RATE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
OPTIONAL_TS = {"type": ["number", "null"]}
OPTIONAL_TEXT = {"type": ["string", "null"]}
VERDICT = {"enum": ["match", "divergence", "incomplete", "incomparable"]}
KIND = {"enum": ["status", "header", "body", "write"]}
CHANGE = {"enum": ["value", "type", "missing", "extra", "length", "order", "duplicate"]}
SIDE = {"enum": ["main", "canary", "shadow", "reference"]}


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def thing(description: str, optional: dict[str, Schema] | None = None, /, **members: Schema) -> Schema:
    """An object whose `members` are always there; `optional` ones may be."""
    properties = {**members, **(optional or {})}
    return {"type": "object", "description": description, "required": list(members), "properties": properties}


def listed(items: Schema, description: str = "") -> Schema:
    """An array."""
    return {"type": "array", "items": items, **({"description": description} if description else {})}


def page(item: str, description: str) -> Schema:
    """One page of a list."""
    cursor = {**OPTIONAL_TEXT, "description": "Give it as `cursor` for the next page; null on the last."}
    return thing(description, items=listed(ref(item)), next_cursor=cursor)


def _counts() -> dict[str, Schema]:
    return {
        "Summary": thing(
            "The whole cluster's counts, exact, from every worker's applied journal.",
            requests=thing(
                "Requests with a verdict.",
                total=COUNT,
                match=COUNT,
                divergence=COUNT,
                incomplete=COUNT,
                incomparable=COUNT,
            ),
            records={
                "type": "object",
                "additionalProperties": COUNT,
                "description": "Records read, by topic.",
            },
            rejected=COUNT,
            duplicate=COUNT,
            late=COUNT,
            conflicts=COUNT,
            pending={**COUNT, "description": "Requests still open."},
            lag={**COUNT, "description": "Records not yet read."},
            verified_through={
                **OPTIONAL_TS,
                "description": "Unix time; every earlier request has its verdict. Null before any record.",
            },
        ),
        "Side": thing(
            "How one side answered on a route.",
            responses=COUNT,
            status={
                "type": "object",
                "additionalProperties": COUNT,
                "description": "Answers by status class.",
            },
            error_rate=RATE,
            latency_s=thing(
                "Latency in seconds; quantiles are estimated from buckets.",
                count=COUNT,
                mean={"type": ["number", "null"]},
                p50={"type": ["number", "null"]},
                p99={"type": ["number", "null"]},
            ),
        ),
        "Route": thing(
            "One route's verdicts.",
            route=TEXT,
            total=COUNT,
            match=COUNT,
            divergence=COUNT,
            incomplete=COUNT,
            incomparable=COUNT,
            compared={**COUNT, "description": "Match and divergence: what the rate is a share of."},
            divergence_rate=RATE,
            divergence_rate_interval={
                "type": ["array", "null"],
                "items": {"type": "number"},
                "minItems": 2,
                "maxItems": 2,
                "description": "The 95 % Wilson score interval of the rate.",
            },
            sides={"type": "object", "additionalProperties": ref("Side"), "description": "By side."},
        ),
        "Field": thing(
            "How often one field of a route differs in one way.",
            route=TEXT,
            kind=KIND,
            field={**TEXT, "description": "A path with array indexes and write keys replaced by `*`."},
            change=CHANGE,
            count={**COUNT, "description": "Requests in which it decided the verdict."},
            ignored={**COUNT, "description": "Requests in which a rule explained it."},
            share={**RATE, "description": "`count` as a share of the route's compared requests."},
            first_seen=OPTIONAL_TS,
            last_seen=OPTIONAL_TS,
            noise={"enum": ["none", "partly", "ignored"], "description": "Whether rules explain it."},
            exemplars=listed(TEXT, "Request ids."),
        ),
    }


def _findings() -> dict[str, Schema]:
    side_value: Schema = {"description": "A JSON value, cut to a bound; null on the side that lacks it."}
    return {
        "Difference": thing(
            "One difference, with both values as its witness.",
            {"rule": {**OPTIONAL_TEXT, "description": "The rule that explains it away."}},
            kind=KIND,
            path={**TEXT, "description": "JSON Pointer, a header's name, or `/{entity}/{key}/{pointer}`."},
            field=TEXT,
            change=CHANGE,
            main=side_value,
            shadow=side_value,
        ),
        "Divergence": thing(
            "A request whose sides differ.",
            request_id=TEXT,
            route=TEXT,
            ts=TS,
            verdict=VERDICT,
            differences=listed(ref("Difference")),
        ),
        "Claimant": thing(
            "One of two writes to a conflict key.",
            {"operation": OPTIONAL_TEXT, "seq": {"type": "integer"}},
            side=SIDE,
            request_id=TEXT,
            ts=TS,
            data={"description": "What it wrote."},
        ),
        "Conflict": thing(
            "Two writes to one conflict key; the first in the total order wins.",
            id=TEXT,
            scope={"enum": ["idempotency", "main_canary", "main_shadow"]},
            key=TEXT,
            entity=OPTIONAL_TEXT,
            kind={"enum": ["conflict", "duplicate", "order"]},
            winner=ref("Claimant"),
            loser=ref("Claimant"),
            strategy=TEXT,
            ts=TS,
        ),
        "Rule": thing(
            "What is ignored or tolerated, by whom, why, until when.",
            {
                "route": OPTIONAL_TEXT,
                "params": {"type": "object"},
                "owner": OPTIONAL_TEXT,
                "reason": OPTIONAL_TEXT,
                "expires_at": {"type": ["string", "number", "null"]},
                "origin": TEXT,
            },
            id=TEXT,
            kind=TEXT,
            field=TEXT,
            action=TEXT,
        ),
    }


def _request() -> dict[str, Schema]:
    status = {"type": ["integer", "null"]}
    rows = {"type": ["array", "null"], "items": {"type": "object"}}
    return {
        "Event": thing(
            "A record of the request, where it lies, and the original.",
            topic=TEXT,
            partition=COUNT,
            offset=COUNT,
            kind={"enum": ["edge", "response", "write"]},
            side={**OPTIONAL_TEXT, "description": "As the record says it."},
            ts=OPTIONAL_TS,
            record={"description": "The original JSON without secrets; null when it cannot be shown."},
            record_note={
                "enum": [None, "gone", "unreadable", "too_large", "repeated_keys"],
                "description": "gone: retention took it. repeated_keys: a key comes twice, the last shows.",
            },
        ),
        "Writes": thing(
            "The rows both sides wrote.",
            {
                "user_id": OPTIONAL_TEXT,
                "main": rows,
                "shadow": rows,
                "shadow_side": SIDE,
                "main_status": status,
                "shadow_status": status,
                "error": OPTIONAL_TEXT,
            },
            operation=TEXT,
        ),
        "Revision": thing(
            "One verdict in the request's history.",
            rev=COUNT,
            at={**TS, "description": "Wall clock of the worker when it decided."},
            verdict=VERDICT,
            reasons=listed(TEXT),
            missing=listed(TEXT),
            differences={**COUNT, "description": "How many decided it."},
            events=COUNT,
            worker=TEXT,
            journal_offset=COUNT,
        ),
        "Judged": thing(
            "A request with its verdict.",
            request_id=TEXT,
            route=TEXT,
            ts=TS,
            verdict=VERDICT,
            rev=COUNT,
            reasons=listed(TEXT),
            missing=listed(TEXT, "Absent parts as `{side}.{kind}`."),
            user_id=OPTIONAL_TEXT,
        ),
        "Request": thing(
            "Everything about one request.",
            request_id=TEXT,
            ts=TS,
            route=TEXT,
            verdict=VERDICT,
            rev=COUNT,
            user_id=OPTIONAL_TEXT,
            reasons=listed(TEXT),
            missing=listed(TEXT, "Absent parts as `{side}.{kind}`."),
            differences=listed(ref("Difference")),
            ignored=listed(ref("Difference"), "Differences that a rule explains."),
            dropped={**COUNT, "description": "Differences beyond the bound on how many are kept."},
            sides=listed(
                thing("One side's answer.", side=SIDE, status=status, latency_s={"type": ["number", "null"]})
            ),
            writes={"oneOf": [ref("Writes"), {"type": "null"}]},
            partition=COUNT,
            events=listed(ref("Event")),
            events_omitted=COUNT,
            conflicts=listed(ref("Conflict")),
            history=listed(ref("Revision"), "Oldest first."),
            history_gone={**COUNT, "description": "Revisions that the journal's retention took."},
        ),
    }


def _service() -> dict[str, Schema]:
    return {
        "Alive": thing("The process answers.", status={"const": "alive"}),
        "Ready": thing("Readiness of this worker.", ready={"type": "boolean"}, reasons=listed(TEXT)),
        "Problem": thing(
            "RFC 9457 problem details.",
            {"dependency": TEXT, "ready": {"type": "boolean"}, "reasons": listed(TEXT)},
            type={**TEXT, "format": "uri-reference"},
            title=TEXT,
            status={"type": "integer", "minimum": 400, "maximum": 599},
            detail=TEXT,
            instance=TEXT,
            errors=listed(thing("A wrong parameter.", parameter=TEXT, expected=TEXT, given=TEXT)),
        ),
    }


def component_schemas() -> dict[str, Schema]:
    """All schemas by name."""
    pages = {
        "RoutePage": page("Route", "Routes, by name."),
        "FieldPage": page("Field", "Fields, most frequent first."),
        "DivergencePage": page("Divergence", "Divergent requests, newest first."),
        "RequestPage": page("Judged", "Requests, newest first."),
        "ConflictPage": page("Conflict", "Conflicts, newest first."),
        "RulePage": page("Rule", "The rules in force, the one that wins first."),
    }
    return {**_counts(), **_findings(), **_request(), **_service(), **pages}
