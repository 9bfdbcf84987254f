"""The calls under `/v1` and the probes: read the parameters, read the tables, answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from verifier.core.difference import Kind
from verifier.core.outcome import Verdict
from verifier.web import paging
from verifier.web.bounds import Reads
from verifier.web.json_answer import answer
from verifier.web.paging import KeyedPages, read_parameters
from verifier.web.ports import Row, WebDeps
from verifier.web.problems import RETRY_AFTER_S, Problem, invalid_parameters
from verifier.web.request_view import redact_conflict, redact_difference, request_view

CONFLICT_KINDS = ("conflict", "duplicate", "order")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_POSTGRES = "postgres"

_PAGE = {"limit": paging.limit_of, "cursor": paging.text_of}
_WINDOW = {"since": paging.time_of, "until": paging.time_of}

FieldKey = tuple[int, int, str, str, str, str]


def _route_key(row: Row) -> str:
    return str(row["route"])


def _field_key(row: Row) -> FieldKey:
    return (-row["count"], -row["ignored"], row["route"], row["kind"], row["field"], row["change"])


class Views:
    """The endpoints over one set of dependencies."""

    def __init__(self, deps: WebDeps) -> None:
        self._deps = deps
        self._reads = Reads(
            timeout_s=deps.read_timeout_s, at_once_max=deps.reads_max, waiting_max=deps.reads_waiting_max
        )
        self._route_pages = KeyedPages(_route_key, str)
        self._field_pages = KeyedPages(_field_key, FieldKey)

    async def summary(self, request: Request) -> Response:
        """The whole cluster's counts, records by topic name."""
        read_parameters(request.query_params, {})
        found = await self._reads.run(_POSTGRES, self._deps.store.summary)
        by_source = found["records"]
        records = {topic: by_source.get(source, 0) for source, topic in self._deps.topics.items()}
        return answer({**found, "records": records})

    async def routes(self, request: Request) -> Response:
        """A row a route, by name."""
        given = read_parameters(request.query_params, _PAGE)
        rows = await self._reads.run(_POSTGRES, self._deps.store.routes)
        return answer(self._route_pages.page(rows, **_page_arguments(given)))

    async def fields(self, request: Request) -> Response:
        """A row a (route, kind, field, change), most frequent first."""
        given = read_parameters(request.query_params, {"route": paging.text_of, **_PAGE})
        rows = await self._reads.run(_POSTGRES, lambda: self._deps.store.fields(given.get("route")))
        return answer(self._field_pages.page(rows, **_page_arguments(given)))

    async def divergences(self, request: Request) -> Response:
        """Divergent requests, newest first."""
        kinds = paging.one_of(kind.value for kind in Kind)
        filters = {"route": paging.text_of, "kind": kinds, "field": paging.field_of}
        given = read_parameters(request.query_params, {**filters, **_WINDOW, **_PAGE})
        page = await self._page(self._deps.store.divergences, given)
        return answer({**page, "items": [self._divergence(item) for item in page["items"]]})

    async def conflicts(self, request: Request) -> Response:
        """Conflicting writes, newest first."""
        filters = {"entity": paging.text_of, "kind": paging.one_of(CONFLICT_KINDS)}
        given = read_parameters(request.query_params, {**filters, **_WINDOW, **_PAGE})
        page = await self._page(self._deps.store.conflicts, given)
        redact = self._deps.redact
        return answer({**page, "items": [redact_conflict(item, redact) for item in page["items"]]})

    async def requests(self, request: Request) -> Response:
        """Requests by verdict, newest first."""
        verdicts = paging.one_of(verdict.value for verdict in Verdict)
        filters = {"verdict": verdicts, "route": paging.text_of}
        given = read_parameters(request.query_params, {**filters, **_WINDOW, **_PAGE})
        return answer(await self._page(self._deps.store.requests, given))

    async def one_request(self, request: Request) -> Response:
        """Everything about one request."""
        read_parameters(request.query_params, {})
        request_id = request.path_params["request_id"]
        if _REQUEST_ID.fullmatch(request_id) is None:
            expected = "1 to 128 letters, digits, or any of . _ : -"
            raise invalid_parameters(
                [{"parameter": "request_id", "expected": expected, "given": request_id[:200]}]
            )
        row = await self._reads.run(_POSTGRES, lambda: self._deps.store.request(request_id))
        if row is None:
            detail = (
                f"No verdict on {request_id}: no record of it was read, it is open, or retention took it."
            )
            raise Problem(404, detail, slug="unknown-request", title="Unknown request")
        found: Row = row
        return answer(await self._reads.run("kafka", lambda: request_view(found, self._deps)))

    async def rules(self, request: Request) -> Response:
        """The rules in force."""
        read_parameters(request.query_params, {})
        return answer({"items": self._deps.policy.describe(), "next_cursor": None})

    async def metrics(self, request: Request) -> Response:
        """This worker's metrics."""
        body, content_type = self._deps.metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    async def healthz(self, _request: Request) -> Response:
        """The event loop turns: nothing else is asked, so an outage elsewhere restarts no worker."""
        return answer({"status": "alive"})

    async def readyz(self, _request: Request) -> Response:
        """Ready: partitions assigned, recovered, lag bounded."""
        readiness = self._deps.health.ready()
        body = {"ready": readiness.ok, "reasons": list(readiness.reasons)}
        if readiness.ok:
            return answer(body)
        detail = "; ".join(readiness.reasons) or "This worker is not ready."
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise Problem(503, detail, slug="not-ready", title="Not ready", headers=headers, more=body)

    async def _page(self, read: Any, given: dict[str, Any]) -> Row:
        arguments = {"limit": paging.LIMIT_DEFAULT, **given}
        try:
            page: Row = await self._reads.run(_POSTGRES, lambda: read(**arguments))
        except ValueError:
            if "cursor" not in given:
                raise
            raise paging.cursor_problem(given["cursor"]) from None
        return page

    def _divergence(self, item: Row) -> Row:
        differences: Sequence[Row] = item["differences"]
        return {**item, "differences": [redact_difference(one, self._deps.redact) for one in differences]}


def _page_arguments(given: dict[str, Any]) -> dict[str, Any]:
    return {"limit": given.get("limit", paging.LIMIT_DEFAULT), "cursor": given.get("cursor")}
