"""The web server as the worker runs it: a task of a running loop, on a real socket."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from tests.unit.web.web_world import populated
from verifier.web.api import create_app
from verifier.web.server import CannotListen, serve


async def test_it_serves_beside_other_tasks_and_leaves_signals_and_logging_alone() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    loggers = {
        name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in ("", "uvicorn")
    }
    web = await serve(create_app((await populated()).deps()), "127.0.0.1", 0)
    try:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert loggers == {
            name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in loggers
        }
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{web.port}") as client:
            answer = await client.get("/v1/summary")
            assert answer.json()["requests"]["total"] == 4
            assert "server" not in answer.headers
            head = await client.head("/v1/summary")
            assert head.status_code == 200
            assert head.content == b""
            assert int(head.headers["content-length"]) == len(answer.content)
    finally:
        await web.stop()
    assert not web.running
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient() as client:
            await client.get(f"http://127.0.0.1:{web.port}/healthz")
    await web.stop()


async def test_a_taken_port_is_a_clear_error() -> None:
    app = create_app((await populated()).deps())
    web = await serve(app, "127.0.0.1", 0)
    try:
        with pytest.raises(CannotListen, match=f"port {web.port} on 127.0.0.1 is taken.*VERIFIER_HTTP_PORT"):
            await serve(app, "127.0.0.1", web.port)
    finally:
        await web.stop()
    again = await serve(app, "127.0.0.1", web.port)
    await again.stop()


async def test_an_address_that_is_none_is_a_clear_error() -> None:
    app = create_app((await populated()).deps())
    with pytest.raises(CannotListen, match="VERIFIER_HTTP_HOST"):
        await serve(app, "203.0.113.1", 0)
    with pytest.raises(CannotListen, match="VERIFIER_HTTP_HOST"):
        await serve(app, "not a host", 0)


async def test_stopping_ends_running_requests_after_the_grace() -> None:
    started = asyncio.Event()

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await asyncio.Event().wait()

    web = await serve(hang, "127.0.0.1", 0, stop_grace_s=0.2)
    async with httpx.AsyncClient(timeout=10) as client:
        request = asyncio.create_task(client.get(f"http://127.0.0.1:{web.port}/"))
        await started.wait()
        await asyncio.wait_for(web.stop(), timeout=5)
        with pytest.raises(httpx.HTTPError):
            (await request).raise_for_status()


async def test_stopping_lets_a_running_request_end() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    web = await serve(slow, "127.0.0.1", 0)
    async with httpx.AsyncClient(timeout=10) as client:
        request: asyncio.Task[Any] = asyncio.create_task(client.get(f"http://127.0.0.1:{web.port}/"))
        await started.wait()
        stop = asyncio.create_task(web.stop())
        go_on.set()
        assert (await request).status_code == 204
        await asyncio.wait_for(stop, timeout=5)


async def test_what_is_no_http_is_answered_and_closed() -> None:
    web = await serve(create_app((await populated()).deps()), "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert b" 400 " in await asyncio.wait_for(reader.readline(), timeout=5)
        writer.close()
        with socket.create_connection(("127.0.0.1", web.port), timeout=5):
            pass
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{web.port}/healthz")).status_code == 200
    finally:
        await web.stop()
