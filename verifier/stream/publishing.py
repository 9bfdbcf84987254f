"""Bringing journal entries to the compacted topics, where what is published last must be what is true last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from verifier.core.journal import Entry
from verifier.stream.appending import Appending
from verifier.stream.contests import Contests
from verifier.stream.outputs import Outputs
from verifier.stream.ports import Publisher


class Publishing:
    """Publishes the entries of one partition.

    A worker that stood still between its entry and its publishing finds the entries of its successor, and says theirs
    again after its own. Conflicts have several authors: of them it says again what is found about the same keys now.
    """

    def __init__(
        self,
        outputs: Outputs,
        publisher: Publisher,
        appending: Appending,
        contests: Contests,
        until_up: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
    ) -> None:
        self._outputs = outputs
        self._publisher = publisher
        self._appending = appending
        self._contests = contests
        self._until_up = until_up

    async def publish(self, entry: Entry) -> None:
        """Publish what an entry brings about. Being cancelled does not stop it: it still has to mend what came late."""
        publishing = asyncio.ensure_future(self._publish(entry))
        publishing.add_done_callback(_forget_failure)
        await asyncio.shield(publishing)

    async def _publish(self, entry: Entry) -> None:
        messages, said, seen_n = self._outputs.messages(entry), self._contests.said(), entry.n
        while messages:
            batch = messages
            await self._until_up(lambda batch=batch: self._publisher.publish(batch))  # type: ignore[misc]
            newer = await self._appending.newer(seen_n)
            messages = [message for each in newer for message in self._outputs.divergence_messages(each)]
            seen_n = newer[-1].n if newer else seen_n
            said = await self._contests.overtaken(said)
            found = {conflict_id: conflict for conflict_id, (conflict, _) in said.findings.items()}
            messages += self._outputs.conflict_messages(found)
        self._contests.published()


def _forget_failure(publishing: asyncio.Future[None]) -> None:
    """Whoever waits for the publishing is told of its failure; who was cancelled meanwhile need not know."""
    if not publishing.cancelled():
        publishing.exception()
