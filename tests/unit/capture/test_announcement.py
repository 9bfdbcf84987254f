"""A service whose responses the edge captures: it publishes its writes and says how many."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from verifier.capture import CaptureConfig, CaptureMiddleware, MemoryPublisher, record_write
from verifier.capture.asgi import App

ID = "req-1"
HEADER = "X-Verifier-Writes"


async def writes(request: Request) -> Response:
    for number in range(int(request.query_params["n"])):
        record_write("rows", number, "insert", data={"n": number})
    return JSONResponse({"done": True})


async def writes_later(_: Request) -> Response:
    record_write("rows", 1, "insert", data={})
    return JSONResponse({}, background=BackgroundTask(record_write, "rows", 2, "insert", {}))


async def unwritable(_: Request) -> Response:
    record_write("rows", 1, "insert", data=object())
    return JSONResponse({}, status_code=201)


async def fails(_: Request) -> Response:
    record_write("rows", 1, "insert", data={})
    raise LookupError("no such row")


APP: App = Starlette(
    routes=[
        Route("/writes", writes),
        Route("/later", writes_later),
        Route("/unwritable", unwritable),
        Route("/fails", fails),
    ]
)


async def ask(
    target: str, *, config: CaptureConfig | None = None
) -> tuple[httpx.Response, MemoryPublisher, CaptureMiddleware]:
    publisher = MemoryPublisher(side="main")
    config = config or CaptureConfig(responses=False)
    app = CaptureMiddleware(APP, side="main", publisher=publisher, config=config)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        return await client.get(target, headers={"X-Request-ID": ID}), publisher, app


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_the_count_of_writes_goes_out_in_a_header_and_no_response_is_published(count: int) -> None:
    answer, publisher, _ = await ask(f"/writes?n={count}")
    assert (answer.json(), answer.headers[HEADER]) == ({"done": True}, str(count))
    assert [write["key"] for write in publisher.writes] == list(range(count))
    assert publisher.responses == []


async def test_a_count_that_is_not_to_be_told_is_not() -> None:
    answer, publisher, _ = await ask(
        "/writes?n=2", config=CaptureConfig(responses=False, announce_writes=False)
    )
    assert (HEADER in answer.headers, len(publisher.writes)) == (False, 2)


async def test_a_write_after_the_answer_is_published_though_not_counted() -> None:
    answer, publisher, app = await ask("/later")
    assert (answer.headers[HEADER], len(publisher.writes)) == ("1", 2)
    assert app.stats().failures == 0


async def test_a_write_that_was_let_go_is_owned_up_to_and_no_count_is_told() -> None:
    answer, publisher, _ = await ask("/unwritable")
    assert (answer.status_code, HEADER in answer.headers) == (201, False)
    (gap,) = publisher.responses
    assert (gap["request_id"], gap["status"], gap["capture_gap"]) == (ID, 201, "writes_dropped")


async def test_an_exception_goes_on_and_its_writes_are_there() -> None:
    answer, publisher, _ = await ask("/fails")
    assert (answer.status_code, len(publisher.writes), publisher.responses) == (500, 1, [])


async def test_the_own_capture_tells_no_count_in_a_header() -> None:
    answer, publisher, _ = await ask("/writes?n=2", config=CaptureConfig())
    assert HEADER not in answer.headers
    assert [record["writes"] for record in publisher.responses] == [2]
