"""The dashboard's own files, read once: a page, its scripts and its style, from the package alone."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from verifier.web.problems import Problem

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
# No inline script or style, nothing from elsewhere, no frame around it, no form that leads away.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class DashboardFiles:
    """Serves the page at `/` and what it loads under `/dashboard/`, with an entity tag for each file."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for item in files("verifier.web").joinpath("dashboard").iterdir():
            content_type = _CONTENT_TYPES.get("." + item.name.rpartition(".")[2])
            if content_type is not None:
                body = item.read_bytes()
                self._files[item.name] = (body, content_type, f'"{sha256(body).hexdigest()[:32]}"')

    async def page(self, request: Request) -> Response:
        """The dashboard."""
        return self._answer(request, "index.html")

    async def file(self, request: Request) -> Response:
        """A script or the style of the dashboard."""
        return self._answer(request, request.path_params["name"])

    def _answer(self, request: Request, name: str) -> Response:
        if name not in self._files:
            raise Problem(404, "The dashboard has no such file.")
        body, content_type, tag = self._files[name]
        headers = {**_SECURITY_HEADERS, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, headers={**headers, "Content-Type": content_type})
