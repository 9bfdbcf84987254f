"""Records written by hand from the public contract's section 2."""

from __future__ import annotations

import itertools
from typing import Any

from tests.acceptance.cluster import Produced

_OF_SIDE = {"main": "main", "reference": "main", "shadow": "shadow", "canary": "shadow"}


def edge(request_id: str, side: str, at: float, **fields: Any) -> Produced:
    made = {
        "request_id": request_id, "side": side, "ts": at, "method": "GET", "uri": "/api/v1/news?page=1",
        "status": 200, **fields,
    }  # fmt: skip
    return Produced("edge.requests", made)


def response(request_id: str, side: str, at: float, **fields: Any) -> Produced:
    """A response that announces no writes; `writes=None` leaves the announcement out."""
    made = {
        "request_id": request_id, "side": side, "ts": at, "method": "GET", "path": "/api/v1/news?page=1",
        "status": 200, "headers": {"content-type": "application/json"}, "body": {"id": 7, "name": "a"},
        "duration_ms": 5, "writes": 0, **fields,
    }  # fmt: skip
    return Produced(
        f"{_OF_SIDE[side]}.responses", {k: v for k, v in made.items() if k != "writes" or v is not None}
    )


def write(request_id: str, side: str, at: float, **fields: Any) -> Produced:
    made = {
        "request_id": request_id, "side": side, "ts": at, "entity": "articles", "key": 7, "op": "insert",
        "seq": 0, "data": {"title": "t"}, **fields,
    }  # fmt: skip
    return Produced(f"{_OF_SIDE[side]}.writes", made)


def mirrored(
    request_id: str, ts: float, *, main: dict[str, Any] | None = None, shadow: dict[str, Any] | None = None
) -> list[Produced]:
    """A request with its mirror copy: both edge lines and both responses, `main` and `shadow` laid over the latter."""
    return [
        edge(request_id, "main", ts),
        edge(request_id, "shadow", ts + 0.001),
        response(request_id, "main", ts + 0.01, **(main or {})),
        response(request_id, "shadow", ts + 0.02, **(shadow or {})),
    ]


_rows = itertools.count(1000)


def mutating(
    request_id: str,
    ts: float,
    *,
    announced: bool = True,
    main: dict[str, Any] | None = None,
    shadow: dict[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> list[Produced]:
    """A mirrored POST that inserts one row on each side; `main` and `shadow` are laid over the writes.

    The row's key is its own unless one is given, so that requests conflict only where a test wants it.
    """
    line = {"method": "POST", "uri": "/api/v1/news/fetch"}
    answer: dict[str, Any] = {
        "method": "POST",
        "path": "/api/v1/news/fetch",
        "writes": 1 if announced else None,
    }
    if idempotency_key is not None:
        line["idempotency_key"] = idempotency_key
        answer["idempotency_key"] = idempotency_key
    key = next(_rows)
    return [
        edge(request_id, "main", ts, **line),
        edge(request_id, "shadow", ts, **line),
        write(request_id, "main", ts + 0.005, **{"key": key, **(main or {})}),
        response(request_id, "main", ts + 0.01, **answer),
        write(request_id, "shadow", ts + 0.015, **{"key": key, **(shadow or {})}),
        response(request_id, "shadow", ts + 0.02, **answer),
    ]


def served_by_canary(request_id: str, ts: float, **writing: Any) -> list[Produced]:
    """A request that the new system served, with one write if `writing` says which."""
    line = {"method": "POST", "uri": "/api/v1/news/fetch"}
    answer = {"method": "POST", "path": "/api/v1/news/fetch", "writes": 1 if writing else 0}
    made = [edge(request_id, "canary", ts, **line)]
    if writing:
        made.append(write(request_id, "canary", ts + 0.005, **writing))
    return [*made, response(request_id, "canary", ts + 0.01, **answer)]
