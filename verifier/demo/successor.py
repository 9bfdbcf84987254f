"""The sample successor (Falcon): the same API on another framework, with planted faults.

Without faults it differs from the legacy API as an honest rewrite may: names of an object in another order, whole
numbers without `.0`, searches in another order, ids and times of its own.

    python -m verifier.demo.successor --port 8082 --dsn postgresql://… --kafka localhost:9092 --faults on
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import OrderedDict
from typing import Any, Final, cast

import falcon.asgi
import orjson

from verifier.capture import CaptureConfig, CaptureMiddleware, Publisher
from verifier.capture.asgi import App, Receive, Scope, Send, SideOf
from verifier.capture.records import Side
from verifier.demo import serving
from verifier.demo.database import Store
from verifier.demo.faults import SLOW_S
from verifier.demo.injection import inject
from verifier.demo.operations import Call, Draft, Sample, render, server_headers
from verifier.demo.plan import Plan, Planned

NAME = "market-intel-go-api"

_log = logging.getLogger("verifier.demo")
_TURN_WAIT_S: Final = 8.0
_TURNS_MAX: Final = 1_000

_ROUTES = (
    ("/api/v1/market-data/fetch", {"POST": "market_fetch"}),
    ("/api/v1/market-data/buffer", {"PUT": "market_buffer"}),
    ("/api/v1/market-data/convert", {"POST": "market_convert"}),
    ("/api/v1/market-data/{symbol}", {"GET": "market_get"}),
    ("/api/v1/market-data/{symbol}/report", {"GET": "market_report"}),
    ("/api/v1/market-data/{symbol}/sparkline", {"GET": "market_sparkline"}),
    ("/api/v1/news/fetch", {"POST": "news_fetch"}),
    ("/api/v1/news/buffer", {"PUT": "news_buffer"}),
    ("/api/v1/news", {"GET": "news_list"}),
    ("/api/v1/news/{id}", {"GET": "news_item"}),
    ("/api/v1/data-sources/connect", {"POST": "source_connect"}),
    ("/api/v1/data-sources/{id}", {"GET": "source_get", "DELETE": "source_delete"}),
    ("/api/v1/search", {"GET": "search"}),
)


class CrashedError(Exception):
    """The planted crash, where there is no connection to reset."""


class Turns:
    """Lets one request wait until another one has written; for at most `wait_s` seconds."""

    def __init__(self, *, wait_s: float = _TURN_WAIT_S, turns_max: int = _TURNS_MAX) -> None:
        self._wait_s = wait_s
        self._turns_max = turns_max
        self._done: OrderedDict[int, asyncio.Event] = OrderedDict()
        self.waits_in_vain = 0

    def done(self, number: int) -> None:
        """Request `number` has written."""
        self._event(number).set()

    async def after(self, number: int) -> None:
        """Wait for request `number`; when it does not come, go on and count it."""
        try:
            await asyncio.wait_for(self._event(number).wait(), self._wait_s)
        except TimeoutError:
            self.waits_in_vain += 1
            _log.warning(
                "request %d, which was to overtake another, has not come in %g s", number, self._wait_s
            )

    def _event(self, number: int) -> asyncio.Event:
        event = self._done.setdefault(number, asyncio.Event())
        if len(self._done) > self._turns_max:
            self._done.popitem(last=False)
        return event


class Successor:
    """Answers requests, planting a fault where the plan has one."""

    def __init__(self, store: Store, plan: Plan | None) -> None:
        self._sample = Sample(store, newest_first=True)
        self._plan = plan
        self._turns = Turns()

    async def answer(self, call: Call) -> Draft:
        """The draft, its writes done. Raises what a planted bug raises."""
        planned = self._plan.lookup(call.request_id) if self._plan is not None else None
        draft = await self._sample.draft(call)
        if planned is not None and planned.fault is not None:
            await self._plant(planned, planned.fault, draft)
        await self._sample.commit(call, draft)
        if planned is not None and planned.role == "second":
            self._turns.done(planned.number)
        return draft

    async def _plant(self, planned: Planned, fault: str, draft: Draft) -> None:
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        elif fault == "order_inverted" and planned.partner is not None:
            await self._turns.after(planned.partner)
        inject(fault, draft)


class CrashGate:
    """Outside the capture: resets the connection of a request that is planned to crash, so nothing is published."""

    def __init__(self, app: App, plan: Plan) -> None:
        self._app = app
        self._plan = plan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless it is to crash."""
        if scope["type"] == "http" and self._crashes(scope):
            await _reset(receive, send)
        else:
            await self._app(scope, receive, send)

    def _crashes(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name.lower() == b"x-request-id":
                fault = self._plan.fault_of(value.decode("latin-1"))
                return fault is not None and fault.name == "crash"
        return False


async def _reset(receive: Receive, send: Send) -> None:
    # ASGI knows no way to reset a connection; uvicorn's `send` is a method of the object that holds it.
    abort = getattr(getattr(getattr(send, "__self__", None), "transport", None), "abort", None)
    if abort is None:
        raise CrashedError("a planted crash")
    abort()
    while (await receive())["type"] != "http.disconnect":
        pass


class _Endpoint:
    """One path. Falcon finds a method's responder by its name."""

    def __init__(self, successor: Successor, operations: dict[str, str]) -> None:
        for method, operation in operations.items():
            setattr(self, f"on_{method.lower()}", functools.partial(self._respond, successor, operation))

    async def _respond(
        self,
        successor: Successor,
        operation: str,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        **params: str,
    ) -> None:
        call = Call(
            operation=operation,
            request_id=req.get_header("X-Request-ID") or "",
            params=params,
            query={name: value for name, value in req.params.items() if isinstance(value, str)},
            body=await req.stream.read(),
            user_id=req.get_header("X-User-ID") or "",
            idempotency_key=req.get_header("Idempotency-Key"),
        )
        draft = await successor.answer(call)
        resp.status = draft.status
        resp.content_type = draft.media_type
        resp.set_headers(draft.headers | server_headers(NAME))
        resp.data = render(draft, _json)


class _Health:
    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = {"status": "ok"}


def build_app(
    store: Store,
    publisher: Publisher,
    *,
    plan: Plan | None = None,
    side: Side | SideOf = "shadow",
    capture: CaptureConfig = serving.CAPTURE,
) -> App:
    """The successor over its database, captured as `side`; with a plan, its faults are planted."""
    successor = Successor(store, plan)
    app = falcon.asgi.App()
    app.req_options.auto_parse_qs_csv = False
    app.add_error_handler(Exception, _unexpected)
    app.add_route("/api/v1/health", _Health())
    for path, operations in _ROUTES:
        app.add_route(path, _Endpoint(successor, operations))
    captured = CaptureMiddleware(cast(App, app), side=side, publisher=publisher, config=capture)
    return captured if plan is None else CrashGate(captured, plan)


async def _unexpected(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: BaseException, _params: dict[str, Any]
) -> None:
    _log.info("%s %s: %s: %s", req.method, req.path, type(error).__name__, error)
    resp.status = 500
    resp.set_headers(server_headers(NAME))
    resp.media = {"error": "internal"}


def _json(value: Any) -> bytes:
    return orjson.dumps(_whole(value), option=orjson.OPT_SORT_KEYS)


def _whole(value: Any) -> Any:
    """Whole numbers without a fraction, as many encoders write them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_whole(member) for member in value]
    return value


def main() -> None:
    """Serve until told to stop."""
    arguments = serving.read_arguments("successor", with_faults=True)
    plan = Plan(arguments.seed) if arguments.faults else None
    serving.run(
        arguments, side="shadow", build=functools.partial(build_app, plan=plan, capture=arguments.capture)
    )


if __name__ == "__main__":
    main()
