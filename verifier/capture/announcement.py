"""For a service whose responses the edge captures: its writes alone, and their count told to the edge.

The count goes out in the header `X-Verifier-Writes`, which the edge takes off the answer. It is what was published when
the response began: write before you answer, or the verdict is given without what came later, and revised by it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from verifier.capture.capture_queue import WRITES_DROPPED
from verifier.capture.queued_publisher import Publisher
from verifier.capture.records import GapNote
from verifier.capture.writes import WriteRecorder

Message = MutableMapping[str, Any]

WRITES_HEADER: Final = b"x-verifier-writes"
_STATUS_OF_A_FAILURE: Final = 500


class Announcement:
    """One request under way: passes its messages through, with the count of writes on the response's head."""

    __slots__ = ("_announce", "_publisher", "_send", "_status", "receive", "writes")

    def __init__(
        self,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        writes: WriteRecorder,
        publisher: Publisher,
        *,
        announce: bool,
    ) -> None:
        self.receive = receive
        self.writes = writes
        self._send = send
        self._publisher = publisher
        self._announce = announce
        self._status = _STATUS_OF_A_FAILURE

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            count = self.writes.announced if self._announce and not self.writes.dropped else None
            if count is not None:
                headers = [*message.get("headers", ()), (WRITES_HEADER, b"%d" % count)]
                message = {**message, "headers": headers}
        await self._send(message)

    def failed(self, exc: BaseException) -> None:
        """The application raised."""
        del exc  # the edge sees what became of the answer
        self.returned()

    def returned(self) -> None:
        """The application has returned: own up to writes that were let go."""
        self.writes.finish(self._status)
        if self.writes.dropped:
            note = GapNote(
                request_id=self.writes.request_id,
                side=self.writes.side,
                ts=time.time(),
                method=self.writes.method,
                path=self.writes.path,
                status=self._status,
                reason=WRITES_DROPPED,
            )
            self._publisher.publish_gap(note)
