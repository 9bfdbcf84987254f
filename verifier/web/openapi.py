"""The OpenAPI 3.1 description of the API, served at `/openapi.json`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from verifier.web import openapi_examples as examples
from verifier.web import paging
from verifier.web.openapi_schemas import KIND, Schema, component_schemas, ref
from verifier.web.problems import PROBLEM_JSON

_DESCRIPTION = """\
Says whether a new system does the same as the live one it replaces, in what it answers and in what it writes.

Every worker answers for the whole cluster, except `/metrics`, `/healthz` and `/readyz`, which are its own.
Times are Unix seconds. Lists are pages: give `next_cursor` back as `cursor`. Errors are RFC 9457 problem
details.
"""


def _parameter(name: str, description: str, schema: Schema, **more: Any) -> Schema:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema,
        **more,
    }


_TEXT: Schema = {"type": "string", "maxLength": paging.TEXT_CHARS_MAX}
_LIMIT = _parameter(
    "limit",
    "The most items a page holds.",
    {"type": "integer", "minimum": 1, "maximum": paging.LIMIT_MAX, "default": paging.LIMIT_DEFAULT},
)
_CURSOR = _parameter("cursor", "`next_cursor` of the page before, unchanged.", _TEXT)
_TIME: Schema = {
    "oneOf": [{"type": "number", "minimum": 0}, {"type": "string", "format": "date-time"}],
    "examples": [1795291200.125, "2026-11-22T20:00:00Z"],
}
_SINCE = _parameter(
    "since", "Event time from which on: Unix seconds or ISO 8601 (without an offset: UTC).", _TIME
)
_UNTIL = _parameter(
    "until", "Event time up to which: Unix seconds or ISO 8601 (without an offset: UTC).", _TIME
)
_ROUTE = _parameter("route", "One route, exactly as `/v1/routes` gives it.", _TEXT)
_KIND = _parameter("kind", "Requests with a difference of this kind.", KIND)
_FIELD = _parameter(
    "field",
    'Requests that differ in this field, exactly; `""` (two quotes) is the empty field: the whole body.',
    _TEXT,
)
_ENTITY = _parameter("entity", "Conflicts on this table or collection.", _TEXT)
_CONFLICT_KIND = _parameter("kind", "Conflicts of this kind.", {"enum": ["conflict", "duplicate", "order"]})
_VERDICT = _parameter(
    "verdict",
    "Requests with this verdict.",
    {"enum": ["match", "divergence", "incomplete", "incomparable"]},
)
_REQUEST_ID = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "description": "The request's `X-Request-ID`.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
}


def _problem(description: str) -> Schema:
    content = {PROBLEM_JSON: {"schema": ref("Problem"), "example": examples.PROBLEM}}
    return {"description": description, "content": content}


def _call(
    name: str,
    summary: str,
    schema: str,
    example: Any,
    *,
    parameters: tuple[Schema, ...] = (),
    reads: bool = True,
) -> Schema:
    """One GET that answers JSON. `reads`: it asks PostgreSQL or Kafka, which may be away."""
    responses = {
        "200": {
            "description": summary,
            "content": {"application/json": {"schema": ref(schema), "example": example}},
        },
        "400": {"$ref": "#/components/responses/InvalidParameter"},
        "401": {"$ref": "#/components/responses/Unauthorized"},
        "414": {"$ref": "#/components/responses/TooLong"},
    }
    if reads:
        responses["503"] = {"$ref": "#/components/responses/Unavailable"}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "parameters": list(parameters),
            "responses": responses,
        }
    }


def _tables() -> dict[str, Schema]:
    one = _call(
        "getRequest",
        "Everything about one request: verdict, events, writes, conflicts, history.",
        "Request",
        examples.REQUEST,
        parameters=(_REQUEST_ID,),
    )
    one["get"]["responses"]["404"] = {"$ref": "#/components/responses/UnknownRequest"}
    window = (_SINCE, _UNTIL, _LIMIT, _CURSOR)
    return {
        "/v1/summary": _call("getSummary", "The whole cluster's counts, exact.", "Summary", examples.SUMMARY),
        "/v1/routes": _call(
            "listRoutes", "A row a route.", "RoutePage", examples.ROUTES, parameters=(_LIMIT, _CURSOR)
        ),
        "/v1/fields": _call(
            "listFields",
            "A row a (route, kind, field, change), most frequent first; limit=1000 gives all at one moment.",
            "FieldPage",
            examples.FIELDS,
            parameters=(_ROUTE, _LIMIT, _CURSOR),
        ),
        "/v1/divergences": _call(
            "listDivergences",
            "Divergent requests, newest first.",
            "DivergencePage",
            examples.DIVERGENCES,
            parameters=(_ROUTE, _KIND, _FIELD, *window),
        ),
        "/v1/requests": _call(
            "listRequests",
            "Requests by verdict, newest first: what is not verified, and why.",
            "RequestPage",
            examples.REQUESTS,
            parameters=(_VERDICT, _ROUTE, *window),
        ),
        "/v1/requests/{request_id}": one,
        "/v1/conflicts": _call(
            "listConflicts",
            "Conflicting writes, newest first.",
            "ConflictPage",
            examples.CONFLICTS,
            parameters=(_ENTITY, _CONFLICT_KIND, *window),
        ),
        "/v1/rules": _call(
            "listRules", "What is ignored or tolerated.", "RulePage", examples.RULES, reads=False
        ),
    }


def _plain(name: str, summary: str, content_type: str, *, guarded: bool, path: str | None = None) -> Schema:
    """One GET that answers something else than the API's own JSON."""
    responses: Schema = {
        "200": {"description": summary, "content": {content_type: {"schema": {"type": "string"}}}}
    }
    if guarded:
        responses["401"] = {"$ref": "#/components/responses/Unauthorized"}
    call: Schema = {"operationId": name, "summary": summary, "responses": responses}
    if not guarded:
        call["security"] = []
    if path is not None:
        call["parameters"] = [{"name": path, "in": "path", "required": True, "schema": {"type": "string"}}]
        responses["404"] = {"$ref": "#/components/responses/NotFound"}
    return {"get": call}


def _service() -> dict[str, Schema]:
    alive = _call(
        "getHealth", "The process answers; nothing else is asked.", "Alive", examples.ALIVE, reads=False
    )
    ready = _call("getReadiness", "Assigned, recovered, lag bounded.", "Ready", examples.READY)
    ready["get"]["responses"]["503"] = _problem("Not ready: `reasons` say why.")
    for probe in (alive, ready):
        probe["get"]["security"] = []
        for status in ("400", "401"):
            del probe["get"]["responses"][status]
    document = _plain("getOpenApi", "This document.", "application/json", guarded=True)
    document["get"]["responses"]["200"]["content"]["application/json"]["schema"] = {"type": "object"}
    return {
        "/metrics": _plain(
            "getMetrics", "This worker's metrics, for Prometheus.", "text/plain", guarded=True
        ),
        "/healthz": alive,
        "/readyz": ready,
        "/openapi.json": document,
        "/": _plain("getDashboard", "The dashboard; it holds no data itself.", "text/html", guarded=False),
        "/dashboard/{name}": _plain(
            "getDashboardFile",
            "A script or the style of the dashboard.",
            "text/javascript",
            guarded=False,
            path="name",
        ),
    }


def _version() -> str:
    try:
        return version("shadow-verifier")
    except PackageNotFoundError:
        return "0"


def openapi_document(*, with_token: bool) -> Schema:
    """Return the whole document; `with_token` says that calls need the bearer token."""
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Shadow verifier",
            "version": _version(),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": {**_tables(), **_service()},
        "components": {
            "schemas": component_schemas(),
            "responses": {
                "InvalidParameter": _problem("A parameter is unknown or wrong; `errors` names each."),
                "Unauthorized": _problem("The bearer token is missing or wrong."),
                "NotFound": _problem("Nothing is there."),
                "UnknownRequest": _problem("No verdict on this request id."),
                "TooLong": _problem("The address is too long."),
                "Unavailable": _problem(
                    "PostgreSQL or Kafka does not answer; Retry-After says when to try again."
                ),
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    if with_token:
        document["security"] = [{"token": []}]
    return document
