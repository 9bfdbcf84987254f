"""One example answer for each call; a test holds them against the schemas."""

from __future__ import annotations

from typing import Any

_ROUTE = "POST /api/v1/market-data/fetch"
_TS = 1795291200.125
_DIFFERENCE = {
    "kind": "body",
    "path": "/quotes/0/price",
    "field": "/quotes/*/price",
    "change": "type",
    "main": 101.25,
    "shadow": "101.25",
}
_CLAIM = {
    "side": "main",
    "request_id": "7d1a",
    "ts": _TS,
    "seq": 0,
    "operation": _ROUTE,
    "data": {"price": 101.25},
}
_CONFLICT = {
    "id": "5f0c3a9e1b7d4c22",
    "scope": "main_shadow",
    "key": "quotes/ACME",
    "entity": "quotes",
    "kind": "order",
    "winner": _CLAIM,
    "loser": {**_CLAIM, "side": "shadow", "request_id": "7d1b", "ts": _TS + 0.2},
    "strategy": "first_write",
    "ts": _TS + 0.2,
}
_SIDE = {
    "responses": 4000,
    "status": {"2xx": 3990, "5xx": 10},
    "error_rate": 0.0025,
    "latency_s": {"count": 4000, "mean": 0.021, "p50": 0.018, "p99": 0.094},
}

SUMMARY = {
    "requests": {"total": 5000, "match": 4780, "divergence": 180, "incomplete": 25, "incomparable": 15},
    "records": {"edge.requests": 10000, "main.responses": 5000, "shadow.responses": 4975},
    "rejected": 3,
    "duplicate": 12,
    "late": 1,
    "conflicts": 9,
    "pending": 41,
    "lag": 120,
    "verified_through": _TS,
}
ROUTES = {
    "items": [
        {
            "route": _ROUTE,
            "total": 1010,
            "match": 960,
            "divergence": 40,
            "incomplete": 6,
            "incomparable": 4,
            "compared": 1000,
            "divergence_rate": 0.04,
            "divergence_rate_interval": [0.0295, 0.0540],
            "sides": {"main": _SIDE, "shadow": _SIDE},
        }
    ],
    "next_cursor": None,
}
FIELDS = {
    "items": [
        {
            "route": _ROUTE,
            "kind": "body",
            "field": "/quotes/*/price",
            "change": "type",
            "count": 40,
            "ignored": 0,
            "share": 0.04,
            "first_seen": _TS - 600,
            "last_seen": _TS,
            "noise": "none",
            "exemplars": ["7d1a"],
        }
    ],
    "next_cursor": None,
}
DIVERGENCES = {
    "items": [
        {
            "request_id": "7d1a",
            "route": _ROUTE,
            "ts": _TS,
            "verdict": "divergence",
            "differences": [_DIFFERENCE],
        }
    ],
    "next_cursor": "WzE3OTUyOTEyMDAuMTI1LCI3ZDFhIl0",
}
CONFLICTS = {"items": [_CONFLICT], "next_cursor": None}
REQUESTS = {
    "items": [
        {
            "request_id": "7d1b",
            "route": _ROUTE,
            "ts": _TS,
            "verdict": "incomplete",
            "rev": 0,
            "reasons": [],
            "missing": ["shadow.responses"],
            "user_id": "u-17",
        }
    ],
    "next_cursor": None,
}
RULES = {
    "items": [{"id": "default-date", "route": None, "kind": "header", "field": "date", "action": "ignore"}],
    "next_cursor": None,
}
REQUEST: dict[str, Any] = {
    "request_id": "7d1a",
    "ts": _TS,
    "route": _ROUTE,
    "verdict": "divergence",
    "rev": 0,
    "user_id": "u-17",
    "reasons": [],
    "missing": [],
    "differences": [_DIFFERENCE],
    "ignored": [],
    "dropped": 0,
    "sides": [
        {"side": "main", "status": 200, "latency_s": 0.018},
        {"side": "shadow", "status": 200, "latency_s": 0.009},
    ],
    "writes": None,
    "partition": 2,
    "events": [
        {
            "topic": "main.responses",
            "partition": 2,
            "offset": 4711,
            "kind": "response",
            "side": "main",
            "ts": _TS,
            "record": {
                "request_id": "7d1a",
                "side": "main",
                "ts": _TS,
                "status": 200,
                "body": {"quotes": []},
            },
            "record_note": None,
        }
    ],
    "events_omitted": 0,
    "conflicts": [_CONFLICT],
    "history": [
        {
            "rev": 0,
            "at": _TS + 2.5,
            "verdict": "divergence",
            "reasons": [],
            "missing": [],
            "differences": 1,
            "events": 4,
            "worker": "worker-0",
            "journal_offset": 88,
        }
    ],
    "history_gone": 0,
}
ALIVE = {"status": "alive"}
READY: dict[str, Any] = {"ready": True, "reasons": []}
PROBLEM = {
    "type": "urn:shadow-verifier:problem:invalid-parameter",
    "title": "Invalid parameter",
    "status": 400,
    "detail": "limit: expected a whole number from 1 to 1000",
    "instance": "/v1/divergences",
    "errors": [{"parameter": "limit", "expected": "a whole number from 1 to 1000", "given": "0"}],
}
