"""Ending a worker: what does not end in time is left, and the caller is told, so that the process ends all the same."""

from __future__ import annotations

import asyncio

import pytest

from verifier.commands import worker


class _Web:
    def __init__(self) -> None:
        self.stopped = False

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STOP_WITHIN_S", 0.05)


async def test_what_ends_in_time_is_waited_for() -> None:
    web = _Web()
    running = asyncio.create_task(asyncio.sleep(0))
    assert await worker._end(running, web) is True  # type: ignore[arg-type]
    assert running.done()
    assert web.stopped


async def test_what_does_not_heed_its_cancellation_is_left_and_told_of() -> None:
    release = asyncio.Event()
    cancelled = 0

    async def stubborn() -> None:
        nonlocal cancelled
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                cancelled += 1

    running = asyncio.create_task(stubborn())
    async with asyncio.timeout(5):
        assert await worker._end(running, _Web()) is False  # type: ignore[arg-type]
    assert cancelled == 1
    assert not running.done()
    release.set()
    await running
