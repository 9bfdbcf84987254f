"""A TCP proxy on loopback that holds everything a client says for a while: a slow server as its clients see it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

from verifier.demo.stack.ports import LOOPBACK, free_port

CHUNK_BYTES = 1 << 20


class SlowProxy:
    """Forwards to a loopback port; each chunk from the client waits `delay_s`, one after the other. Answers do not."""

    def __init__(self, target_port: int, delay_s: float) -> None:
        self.port = free_port()
        self.calls = 0
        self._target_port, self._delay_s = target_port, delay_s
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._serving.wait(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connect(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            with contextlib.suppress(asyncio.CancelledError):
                await task

        server = await asyncio.start_server(accept, LOOPBACK, self.port)
        self._serving.set()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(LOOPBACK, self._target_port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(client, to_server, self._delay_s))
                both.create_task(self._forward(server, to_client, 0.0))
        finally:
            to_server.close()
            to_client.close()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                if delay_s:
                    self.calls += 1
                    await asyncio.sleep(delay_s)
                writer.write(chunk)
                await writer.drain()
            writer.close()
