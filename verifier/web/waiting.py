"""The answer of a worker that cannot start yet: alive, not ready, and why."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def waiting_app(reason: Callable[[], str]) -> Starlette:
    """An application with `/healthz` (200) and everything else 503 with the reason."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def not_ready(request: Request) -> Response:
        problem = {
            "type": "about:blank",
            "title": "Not ready",
            "status": 503,
            "detail": reason(),
            "instance": request.url.path,
        }
        return JSONResponse(problem, 503, {"retry-after": "2"}, media_type="application/problem+json")

    return Starlette(routes=[Route("/healthz", healthz), Route("/{path:path}", not_ready)])
