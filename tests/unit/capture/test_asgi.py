"""The middleware: it changes nothing, and it tells the truth."""

from __future__ import annotations

import asyncio
import base64
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from verifier.capture import CaptureConfig, CaptureMiddleware, MemoryPublisher, record_write, side_of_mirror
from verifier.capture.asgi import App, Message, Receive, Scope, Send

ID = "req-1"


async def as_json(request: Request) -> Response:
    return JSONResponse({"path": request.url.path, "price": 12.5})


async def raw_json(request: Request) -> Response:
    return Response(b' {"big": 12345678901234567890, "f": 0.10}\n', media_type="application/json")


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/octet-stream")


async def text(request: Request) -> Response:
    return PlainTextResponse("grüße, мир")


async def empty(request: Request) -> Response:
    return Response(status_code=204)


async def cookies(request: Request) -> Response:
    response = JSONResponse({}, headers={"Authorization": "Bearer s3cret", "X-Api-Key": "k-s3cret"})
    response.set_cookie("sid", "s3cret-1")
    response.set_cookie("csrf", "s3cret-2")
    response.headers.append("X-Twice", "a")
    response.headers.append("X-Twice", "b")
    return response


async def big(request: Request) -> Response:
    return PlainTextResponse("€" * 50_000)


async def stream(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for n in range(40):
            yield f"data: {n}\n\n".encode()

    return StreamingResponse(chunks(), media_type="text/event-stream")


async def fails(request: Request) -> Response:
    raise LookupError("no such symbol")


async def writes(request: Request) -> Response:
    record_write("news", "n-1", "insert", data={"id": "n-1"})

    async def later(n: int) -> None:
        record_write("news", f"n-{n}", "update", data={"n": n})

    await asyncio.gather(later(2), asyncio.create_task(later(3)))
    await asyncio.to_thread(record_write, "news", "n-4", "delete")
    return JSONResponse({"ok": True})


async def background(request: Request) -> Response:
    async def after() -> None:
        record_write("audit", 1, "insert", data={"at": "end"})

    return JSONResponse({}, background=BackgroundTask(after))


def site() -> Starlette:
    return Starlette(
        routes=[
            Route("/json", as_json, methods=["GET", "POST", "HEAD"]),
            Route("/raw", raw_json),
            Route("/echo", echo, methods=["POST"]),
            Route("/text", text),
            Route("/empty", empty),
            Route("/cookies", cookies),
            Route("/big", big),
            Route("/stream", stream),
            Route("/fails", fails),
            Route("/writes", writes, methods=["POST"]),
            Route("/background", background),
        ]
    )


def client(app: App, **kwargs: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", **kwargs)


def captured(
    app: App | None = None, publisher: MemoryPublisher | None = None, **config: Any
) -> tuple[CaptureMiddleware, MemoryPublisher]:
    publisher = publisher or MemoryPublisher(side="main")
    middleware = CaptureMiddleware(
        app or site(), side="main", publisher=publisher, config=CaptureConfig(**config)
    )
    return middleware, publisher


async def get_one(path: str, method: str = "GET", **kwargs: Any) -> tuple[dict[str, Any], httpx.Response]:
    app, publisher = captured()
    async with client(app) as http:
        headers = {"X-Request-ID": ID, **kwargs.pop("headers", {})}
        response = await http.request(method, path, headers=headers, **kwargs)
    assert len(publisher.responses) == 1
    return publisher.responses[0], response


async def run_bare(
    app: App, scope: dict[str, Any], send: Send | None = None, receive: Receive | None = None
) -> list[Message]:
    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    asked = False

    async def no_body() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()  # a client that stays connected
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    await app(scope, receive or no_body, send or keep)
    return sent


def http_scope(path: str = "/x", **extra: Any) -> dict[str, Any]:
    headers = [(b"x-request-id", ID.encode())]
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers} | extra


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/json"), ("HEAD", "/json"), ("GET", "/raw"), ("POST", "/echo"), ("GET", "/text"), ("GET", "/empty"),
        ("GET", "/cookies"), ("GET", "/big"), ("GET", "/stream"), ("GET", "/fails"), ("GET", "/absent"),
        ("POST", "/writes"), ("GET", "/background"),
    ],
)  # fmt: skip
async def test_every_message_is_the_same_with_and_without_the_middleware(method: str, path: str) -> None:
    async def messages(app: App) -> tuple[list[Message], str | None]:
        sent: list[Message] = []

        async def keep(message: Message) -> None:
            sent.append(message)

        error = None
        try:
            await run_bare(app, http_scope(path, method=method, http_version="1.1"), keep)
        except LookupError as exc:
            error = repr(exc)
        return sent, error

    app, publisher = captured()
    assert await messages(app) == await messages(site())
    assert len(publisher.responses) == 1


@pytest.mark.asyncio
async def test_a_response_record_says_what_was_asked_and_answered() -> None:
    record, response = await get_one(
        "/json?q=a%2Fb&q=%20",
        headers={"X-User-ID": "u-1", "Idempotency-Key": "k-1"},
    )
    assert response.json() == record["body"]
    assert record["request_id"] == ID
    assert record["side"] == "main"
    assert record["method"] == "GET"
    assert record["path"] == "/json?q=a%2Fb&q=%20"
    assert record["status"] == 200
    assert record["user_id"] == "u-1"
    assert record["idempotency_key"] == "k-1"
    assert record["writes"] == 0
    assert record["body_encoding"] == "json"
    assert record["headers"]["content-type"] == "application/json"
    assert record["duration_ms"] >= 0
    assert abs(record["ts"] - time.time()) < 60


@pytest.mark.asyncio
async def test_json_is_embedded_byte_for_byte() -> None:
    app, publisher = captured()
    async with client(app) as http:
        await http.get("/raw", headers={"X-Request-ID": ID})
    assert b'"body":{"big": 12345678901234567890, "f": 0.10}}' in publisher.records[0].value


@pytest.mark.asyncio
async def test_text_and_binary_bodies_come_back() -> None:
    record, response = await get_one("/text")
    assert (record["body_encoding"], record["body"]) == ("text", response.text)
    body = bytes(range(256))
    record, _ = await get_one("/echo", "POST", content=body)
    assert record["body_encoding"] == "base64"
    assert base64.b64decode(record["body"]) == body


@pytest.mark.asyncio
async def test_secrets_are_redacted_and_repeated_headers_are_lists() -> None:
    app, publisher = captured(redact=frozenset({"X-Api-Key"}))
    async with client(app) as http:
        response = await http.get("/cookies", headers={"X-Request-ID": ID})
    assert "s3cret-1" in response.headers["set-cookie"]
    assert b"s3cret" not in publisher.records[0].value
    headers = publisher.responses[0]["headers"]
    assert headers["set-cookie"] == ["[redacted]", "[redacted]"]
    assert headers["authorization"] == headers["x-api-key"] == "[redacted]"
    assert headers["x-twice"] == ["a", "b"]


@pytest.mark.asyncio
async def test_a_big_body_is_cut_at_the_cap_and_says_so() -> None:
    record, response = await get_one("/big")
    assert len(response.content) == record["body_bytes"] == 150_000
    assert record["body_truncated"] is True
    assert record["body_encoding"] == "text"
    assert record["body"] == "€" * (65_536 // 3)


@pytest.mark.asyncio
async def test_a_body_of_exactly_the_cap_is_whole() -> None:
    for size, truncated in ((65_536, False), (65_537, True)):
        record, _ = await get_one("/echo", "POST", content=b"x" * size)
        assert (record["body_truncated"], record["body_bytes"]) == (truncated, size)


@pytest.mark.asyncio
async def test_chunks_of_a_stream_reach_the_client_before_the_next_is_made() -> None:
    seen: list[bytes] = []
    ahead: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(100):
            await send({"type": "http.response.body", "body": b"%d;" % n, "more_body": True})
            ahead.append(n + 1 - len(seen))
        await send({"type": "http.response.body"})

    async def client_end(message: Message) -> None:
        if message.get("body"):
            seen.append(message["body"])

    wrapped, publisher = captured(app)
    await run_bare(wrapped, http_scope(), client_end)
    assert ahead == [0] * 100
    assert publisher.responses[0]["body"] == "".join(f"{n};" for n in range(100))


@pytest.mark.asyncio
async def test_no_more_than_the_cap_is_ever_kept_of_an_endless_stream() -> None:

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(400):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        await send({"type": "http.response.body"})

    async def gone(message: Message) -> None:
        return

    wrapped, publisher = captured(app)
    tracemalloc.start()
    try:
        await run_bare(wrapped, http_scope(), gone)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert publisher.responses[0]["body_bytes"] == 40_000_000
    assert peak_bytes < 2_000_000


@pytest.mark.asyncio
async def test_an_exception_is_raised_on_and_recorded() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no such symbol \udcff")

    wrapped, publisher = captured(app)
    with pytest.raises(LookupError):
        await run_bare(wrapped, http_scope())
    record = publisher.responses[0]
    assert record["status"] == 500
    assert record["error"].startswith("LookupError: no such symbol")
    assert "capture_gap" not in record


@pytest.mark.asyncio
async def test_outside_the_framework_the_error_page_is_captured_too() -> None:
    record, response = await get_one("/fails")
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    assert record["body"] == response.text
    assert record["error"] == "LookupError: no such symbol"


@pytest.mark.asyncio
async def test_a_failure_in_mid_body_keeps_the_status_the_client_saw() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("broken")

    wrapped, publisher = captured(app)
    with pytest.raises(ValueError, match="broken"):
        await run_bare(wrapped, http_scope())
    record = publisher.responses[0]
    assert (record["status"], record["body"], record["error"]) == (200, "half", "ValueError: broken")


@pytest.mark.asyncio
async def test_no_response_at_all_is_an_error_of_the_application() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    wrapped, publisher = captured(app)
    await run_bare(wrapped, http_scope())
    record = publisher.responses[0]
    assert (record["status"], record["error"]) == (500, "the application returned without a response")


@pytest.mark.asyncio
async def test_a_client_that_leaves_makes_a_gap_not_a_difference() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async def broken_pipe(message: Message) -> None:
        if message.get("body") == b"two":
            raise BrokenPipeError

    wrapped, publisher = captured(app)
    with pytest.raises(BrokenPipeError):
        await run_bare(wrapped, http_scope(), broken_pipe)
    record = publisher.responses[0]
    assert (record["status"], record["capture_gap"]) == (200, "client_disconnected")


@pytest.mark.asyncio
async def test_a_handler_cancelled_after_the_client_left_is_a_gap() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"
        await asyncio.Event().wait()

    async def left() -> Message:
        return {"type": "http.disconnect"}

    wrapped, publisher = captured(app)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run_bare(wrapped, http_scope(), receive=left)
    record = publisher.responses[0]
    assert (record["status"], record["capture_gap"]) == (499, "client_disconnected")


@pytest.mark.asyncio
async def test_a_response_finished_after_the_client_left_is_compared_all_the_same() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"whole"})

    async def left() -> Message:
        return {"type": "http.disconnect"}

    wrapped, publisher = captured(app)
    await run_bare(wrapped, http_scope(), receive=left)
    assert publisher.responses[0]["body"] == "whole"
    assert "capture_gap" not in publisher.responses[0]


@pytest.mark.asyncio
async def test_a_file_sent_by_the_server_is_a_gap() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/srv/report.pdf"})

    wrapped, publisher = captured(app)
    await run_bare(wrapped, http_scope())
    record = publisher.responses[0]
    assert (record["capture_gap"], record["body_truncated"]) == ("body_not_visible", True)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("headers", "counter"),
    [({}, "without_id"), ({"X-Request-ID": ""}, "without_id"), ({"X-Request-ID": "a b"}, "bad_id"),
     ({"X-Request-ID": "x" * 129}, "bad_id"), ({"X-Request-ID": "a\u00e9".encode("latin-1")}, "bad_id")],
)  # fmt: skip
async def test_a_request_that_cannot_be_joined_is_served_and_counted(
    headers: dict[str, Any], counter: str
) -> None:
    app, publisher = captured()
    async with client(app) as http:
        assert (await http.get("/json", headers=headers)).status_code == 200
        assert (await http.post("/writes", headers=headers)).status_code == 200
    assert publisher.records == []
    assert getattr(app.stats(), counter) == 2


@pytest.mark.asyncio
async def test_skipped_paths_and_other_scopes_pass_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    wrapped, publisher = captured(app, skip_paths=frozenset({"/health"}))
    for scope in (http_scope("/health"), {"type": "lifespan"}, {"type": "websocket", "headers": []}):
        await run_bare(wrapped, scope)
    assert seen == ["http", "lifespan", "websocket"]
    assert publisher.records == []
    assert wrapped.stats().skipped == 1


@pytest.mark.asyncio
async def test_writes_of_tasks_and_threads_are_the_requests() -> None:
    app, publisher = captured()
    async with client(app) as http:
        await http.post("/writes", headers={"X-Request-ID": ID, "X-User-ID": "u-1"})
    assert publisher.responses[0]["writes"] == 4
    assert [w["seq"] for w in publisher.writes] == [0, 1, 2, 3]
    assert {w["key"] for w in publisher.writes} == {"n-1", "n-2", "n-3", "n-4"}
    assert {(w["request_id"], w["side"], w["operation"], w["user_id"]) for w in publisher.writes} == {
        (ID, "main", "POST /writes", "u-1")
    }


@pytest.mark.asyncio
async def test_writes_of_background_tasks_are_counted() -> None:
    app, publisher = captured()
    async with client(app) as http:
        await http.get("/background", headers={"X-Request-ID": ID})
    assert publisher.responses[0]["writes"] == 1
    assert [r.topic for r in publisher.records] == ["main.writes", "main.responses"]


@pytest.mark.asyncio
async def test_a_long_background_task_does_not_hold_the_record_back() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
        await go.wait()
        record_write("audit", 1, "insert")

    wrapped, publisher = captured(app, after_response_s=0.01)
    task = asyncio.create_task(run_bare(wrapped, http_scope()))
    async with asyncio.timeout(5):
        while not publisher.records:
            await asyncio.sleep(0.001)
    go.set()
    await task
    assert len(publisher.responses) == 1
    assert "writes" not in publisher.responses[0], "a count that is not final must not be announced"
    assert wrapped.stats().writes_after_response == 1


@pytest.mark.asyncio
async def test_many_requests_at_once_do_not_mix() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        mine = scope["path"][1:]
        record_write("t", mine, "insert", data={"of": mine})
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in mine:
            await send({"type": "http.response.body", "body": part.encode(), "more_body": True})
            await asyncio.sleep(0)
        record_write("t", mine, "update", data={"of": mine})
        await send({"type": "http.response.body"})

    wrapped, publisher = captured(app)

    async def one(n: int) -> None:
        await run_bare(wrapped, http_scope(f"/r{n}", headers=[(b"x-request-id", b"r%d" % n)]))

    await asyncio.gather(*(one(n) for n in range(300)))
    assert {(r["request_id"], r["body"], r["writes"]) for r in publisher.responses} == {
        (f"r{n}", f"r{n}", 2) for n in range(300)
    }
    assert {(w["request_id"], w["key"], w["seq"]) for w in publisher.writes} == {
        (f"r{n}", f"r{n}", seq) for n in range(300) for seq in (0, 1)
    }


@pytest.mark.asyncio
async def test_a_full_queue_never_fails_a_request_and_leaves_a_gap_for_each() -> None:
    publisher = MemoryPublisher(side="main", queue_max=3)
    app, _ = captured(publisher=publisher)
    publisher.hold()
    async with client(app) as http:
        for n in range(10):
            response = await http.get("/json", headers={"X-Request-ID": f"r{n}"})
            assert response.status_code == 200
    publisher.release()
    gaps = [r for r in publisher.responses if "capture_gap" in r]
    assert {r["request_id"] for r in publisher.responses} == {f"r{n}" for n in range(10)}
    assert len(gaps) == publisher.stats().responses_dropped == 7
    for gap in gaps:
        assert gap["capture_gap"] == "response_dropped"
        assert (gap["status"], gap["path"], gap["body_truncated"]) == (200, "/json", True)
        assert "body" not in gap


@pytest.mark.asyncio
async def test_a_response_whose_writes_were_dropped_says_so() -> None:
    publisher = MemoryPublisher(side="main", queue_max=2)
    publisher.hold()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert record_write("t", 1, "insert") is True
        assert record_write("t", 2, "insert") is True
        assert record_write("t", 3, "insert") is False
        publisher.release()
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body"})

    wrapped, _ = captured(app, publisher)
    await run_bare(wrapped, http_scope())
    record = publisher.responses[0]
    assert (record["capture_gap"], record["writes"], record["status"]) == ("writes_dropped", 2, 201)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("mark", "side"), [({"X-Shadow-Request": "true"}, "shadow"), ({}, "canary"), ({"X-Shadow-Request": "no"}, "canary")]
)  # fmt: skip
async def test_one_service_can_be_shadow_and_canary(mark: dict[str, str], side: str) -> None:
    publisher = MemoryPublisher(side="shadow", topic_prefix="eu.")
    app = CaptureMiddleware(site(), side=side_of_mirror(), publisher=publisher)
    async with client(app) as http:
        await http.post("/writes", headers={"X-Request-ID": ID, **mark})
    assert {r.topic for r in publisher.records} == {"eu.shadow.responses", "eu.shadow.writes"}
    assert {r["side"] for r in publisher.responses + publisher.writes} == {side}


def test_a_publisher_of_the_other_system_is_refused() -> None:
    with pytest.raises(ValueError, match="belong to another system"):
        CaptureMiddleware(site(), side="main", publisher=MemoryPublisher(side="shadow"))


@pytest.mark.asyncio
async def test_a_defect_of_the_capture_never_reaches_the_request(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryPublisher):
        def publish_response(self, record: object) -> bool:
            raise RuntimeError("a defect")

    app, _ = captured(publisher=Broken(side="main"))
    async with client(app) as http:
        assert (await http.get("/json", headers={"X-Request-ID": ID})).json()["price"] == 12.5
    assert app.stats().failures == 1
    assert "capture of request req-1 failed" in caplog.text
