"""Who may ask: one bearer token for the whole API (RFC 6750)."""

from __future__ import annotations

import hmac
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from verifier.web.problems import Problem

_OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
_OPEN_PREFIX = "/dashboard/"


class BearerAuth:
    """Lets a request pass when it carries `Authorization: Bearer <token>`.

    Open without a token: `/healthz` and `/readyz`, because probes carry none; and the dashboard's page,
    script and style, because a browser cannot send a token when it opens a page, and these files hold no
    data: the page asks for the token, keeps it for its tab, and sends it with each call to the API. `token`
    None lets everything pass.
    """

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app = app
        self._digest = None if token is None else sha256(token.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._digest is None or scope["type"] != "http" or _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("authorization")
        if given is not None and self._is_right(given):
            await self._app(scope, receive, send)
            return
        await _refusal(given).response(scope["path"])(scope, receive, send)

    def _is_right(self, authorization: str) -> bool:
        scheme, _, credentials = authorization.partition(" ")
        digest = sha256(credentials.strip().encode("utf-8", "surrogateescape")).digest()
        # Digests are compared, in constant time, so that neither the token's length nor its beginning can be
        # probed.
        return hmac.compare_digest(digest, self._digest or b"") and scheme.lower() == "bearer"


def _is_open(path: str) -> bool:
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX)


def _refusal(given: str | None) -> Problem:
    challenge = 'Bearer realm="shadow-verifier"'
    if given is None:
        detail = (
            "This needs the header `Authorization: Bearer <token>`, with the token of VERIFIER_API_TOKEN."
        )
    else:
        challenge += ', error="invalid_token"'
        detail = "The Authorization header is not `Bearer` with the token of VERIFIER_API_TOKEN."
    return Problem(401, detail, slug="unauthorized", headers={"WWW-Authenticate": challenge})
