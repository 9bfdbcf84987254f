"""Errors as RFC 9457 problem details: what is wrong, where, and what to do; never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from verifier.core.errors import DependencyDown, VerifierError
from verifier.web.json_answer import encode_json

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 5
GIVEN_CHARS_MAX = 200

_TYPE_PREFIX = "urn:shadow-verifier:problem:"
_logger = logging.getLogger(__name__)


class Problem(VerifierError):
    """An answer other than success. `errors` name each wrong parameter, what is expected and what was given.

    `slug` ends the problem's type URN; without one the type is `about:blank`: nothing more to know than the
    status. `more` are extension members of the problem object.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        slug: str | None = None,
        title: str | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.type = _TYPE_PREFIX + slug if slug else "about:blank"
        self.title = title or HTTPStatus(status).phrase
        self.errors = [dict(error) for error in errors]
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def response(self, instance: str) -> Response:
        """The answer to the request of path `instance`."""
        body = {
            **self.more,
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "errors": self.errors,
        }
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **self.headers}
        return Response(encode_json(body), status_code=self.status, headers=headers, media_type=PROBLEM_JSON)


def invalid_parameters(errors: Sequence[Mapping[str, str]]) -> Problem:
    """Every wrong parameter at once; `errors` are `{parameter, expected, given}`."""
    names = ", ".join(error["parameter"] for error in errors)
    first = errors[0]
    detail = f"{names}: expected {first['expected']}" if len(errors) == 1 else f"Wrong parameters: {names}."
    return Problem(400, detail, slug="invalid-parameter", title="Invalid parameter", errors=errors)


def unavailable(detail: str, dependency: str | None = None) -> Problem:
    """Something this answer needs does not answer; the same request may succeed in a moment."""
    return Problem(
        503,
        detail,
        slug="unavailable",
        headers={"Retry-After": str(RETRY_AFTER_S)},
        more={"dependency": dependency} if dependency else None,
    )


async def on_problem(request: Request, error: Exception) -> Response:
    """Answer a `Problem`."""
    return cast(Problem, error).response(request.url.path)


async def on_dependency_down(request: Request, error: Exception) -> Response:
    """Answer when a server is away. The detail may name hosts and users: it goes to the log alone."""
    _logger.warning("%s %s: %s", request.method, request.url.path, error)
    name = cast(DependencyDown, error).dependency
    return unavailable(f"{name} is not available: try again later.", name).response(request.url.path)


_DETAILS = {
    404: "There is nothing at this path: /openapi.json lists what there is.",
    405: "This path does not take this method: the Allow header lists those it takes.",
}


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what Starlette itself refuses (unknown path, wrong method)."""
    refused = cast(HTTPException, error)
    detail = _DETAILS.get(refused.status_code, str(refused.detail))
    return Problem(refused.status_code, detail, headers=refused.headers).response(request.url.path)


async def on_defect(request: Request, error: Exception) -> Response:
    """Answer when this program is at fault. The traceback goes to the log, by the server."""
    detail = f"The verifier failed on this request ({type(error).__name__}); its log says more."
    return Problem(500, detail, slug="internal").response(request.url.path)
