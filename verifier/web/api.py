"""The application: REST under `/v1`, probes, metrics, OpenAPI, and the dashboard."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from verifier.core.errors import DependencyDown
from verifier.web import problems
from verifier.web.auth import BearerAuth
from verifier.web.bounds import RequestBounds
from verifier.web.dashboard_files import DashboardFiles
from verifier.web.json_answer import answer
from verifier.web.openapi import openapi_document
from verifier.web.ports import WebDeps
from verifier.web.views import Views


def create_app(deps: WebDeps) -> Starlette:
    """Return the ASGI application over `deps`. Raises ValueError for an empty API token."""
    if deps.api_token is not None and not deps.api_token.strip():
        raise ValueError("the API token is empty: set VERIFIER_API_TOKEN to a long random text, or unset it")
    views = Views(deps)
    dashboard = DashboardFiles()
    document = openapi_document(with_token=deps.api_token is not None)

    async def openapi(_request: Request) -> Response:
        return answer(document)

    routes = [
        Route("/v1/summary", views.summary),
        Route("/v1/routes", views.routes),
        Route("/v1/fields", views.fields),
        Route("/v1/divergences", views.divergences),
        Route("/v1/requests", views.requests),
        Route("/v1/requests/{request_id}", views.one_request),
        Route("/v1/conflicts", views.conflicts),
        Route("/v1/rules", views.rules),
        Route("/metrics", views.metrics),
        Route("/healthz", views.healthz),
        Route("/readyz", views.readyz),
        Route("/openapi.json", openapi),
        Route("/", dashboard.page),
        Route("/dashboard/{name}", dashboard.file),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(RequestBounds), Middleware(BearerAuth, token=deps.api_token)],
        exception_handlers={
            problems.Problem: problems.on_problem,
            DependencyDown: problems.on_dependency_down,
            HTTPException: problems.on_http_exception,
            Exception: problems.on_defect,
        },
    )
    # A path with a slash too many is unknown; a redirect would lose the Authorization header of many clients.
    app.router.redirect_slashes = False
    return app
