"""`verifier init`: topics and SQL migrations. Safe to repeat, and from two pods at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from verifier.adapters.migrations import migrate
from verifier.adapters.settings import Settings
from verifier.adapters.topics import create_topics
from verifier.core.errors import DependencyDown

RETRY_S = 1.0


async def run_init(settings: Settings, say: Callable[[str], None], *, wait_s: float = 60.0) -> None:
    """Create what is missing. Waits up to `wait_s` for a server that does not answer, then raises `DependencyDown`."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + wait_s
    while True:
        try:
            created = await create_topics(settings)
            say(f"topics: {'created ' + ', '.join(created) if created else 'all there'}")
            applied = await migrate(settings.postgres.get_secret_value())
            say(
                f"tables: {'applied migrations ' + ', '.join(map(str, applied)) if applied else 'up to date'}"
            )
        except DependencyDown as down:
            if loop.time() >= give_up_at:
                raise
            say(f"waiting: {down}")
            await asyncio.sleep(RETRY_S)
        else:
            return
