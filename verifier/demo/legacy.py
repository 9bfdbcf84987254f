"""The sample legacy API (Starlette): right by definition, and without a fault.

python -m verifier.demo.legacy --port 8081 --dsn postgresql://… --kafka localhost:9092
"""

from __future__ import annotations

import functools
import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from verifier.capture import CaptureConfig, CaptureMiddleware, Publisher
from verifier.capture.asgi import App
from verifier.demo import serving
from verifier.demo.database import Store
from verifier.demo.operations import Call, Sample, render, server_headers

NAME = "market-intel-legacy"

_ROUTES = (
    ("POST", "/api/v1/market-data/fetch", "market_fetch"),
    ("PUT", "/api/v1/market-data/buffer", "market_buffer"),
    ("POST", "/api/v1/market-data/convert", "market_convert"),
    ("GET", "/api/v1/market-data/{symbol}", "market_get"),
    ("GET", "/api/v1/market-data/{symbol}/report", "market_report"),
    ("GET", "/api/v1/market-data/{symbol}/sparkline", "market_sparkline"),
    ("POST", "/api/v1/news/fetch", "news_fetch"),
    ("PUT", "/api/v1/news/buffer", "news_buffer"),
    ("GET", "/api/v1/news", "news_list"),
    ("GET", "/api/v1/news/{id}", "news_item"),
    ("POST", "/api/v1/data-sources/connect", "source_connect"),
    ("GET", "/api/v1/data-sources/{id}", "source_get"),
    ("DELETE", "/api/v1/data-sources/{id}", "source_delete"),
    ("GET", "/api/v1/search", "search"),
)
# For the verifier's `routes`: without them, a symbol in a path would be a route of its own.
ROUTE_TEMPLATES = tuple(f"{method} {path}" for method, path, _ in _ROUTES)


def build_app(store: Store, publisher: Publisher, *, capture: CaptureConfig = serving.CAPTURE) -> App:
    """The legacy API over its database, captured as side `main`."""
    sample = Sample(store, newest_first=False)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    routes = [Route("/api/v1/health", health)]
    routes += [
        Route(path, _endpoint(sample, operation), methods=[method]) for method, path, operation in _ROUTES
    ]
    return CaptureMiddleware(Starlette(routes=routes), side="main", publisher=publisher, config=capture)


def _endpoint(sample: Sample, operation: str) -> Any:
    async def endpoint(request: Request) -> Response:
        call = Call(
            operation=operation,
            request_id=request.headers.get("x-request-id", ""),
            params=request.path_params,
            query=request.query_params,
            body=await request.body(),
            user_id=request.headers.get("x-user-id", ""),
            idempotency_key=request.headers.get("idempotency-key"),
        )
        draft = await sample.draft(call)
        await sample.commit(call, draft)
        headers = draft.headers | server_headers(NAME) | {"content-type": draft.media_type}
        return Response(render(draft, _json), status_code=draft.status, headers=headers)

    return endpoint


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def main() -> None:
    """Serve until told to stop."""
    arguments = serving.read_arguments("legacy", with_faults=False)
    serving.run(arguments, side="main", build=functools.partial(build_app, capture=arguments.capture))


if __name__ == "__main__":
    main()
