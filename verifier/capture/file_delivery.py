"""Records to files, one for each topic, where there is no Kafka: `verifier offline` reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from verifier.capture.delivery import DeliveryReport, OutRecord


class FileDelivery:
    """Appends each record to `{folder}/{topic}.ndjson`. For trying out and for tests: it syncs nothing to disk.

    What cannot be written is reported as undelivered, with the reason, and tried again.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    async def deliver(self, records: Sequence[OutRecord]) -> DeliveryReport:
        """Append the records."""
        by_topic: dict[str, list[bytes]] = {}
        for record in records:
            by_topic.setdefault(record.topic, []).append(record.value)
        try:
            await asyncio.to_thread(self._append, by_topic)
        except OSError as error:
            return DeliveryReport(undelivered=tuple(range(len(records))), error=str(error))
        return DeliveryReport()

    async def close(self, timeout_s: float) -> None:
        """Nothing is held open."""

    def _append(self, by_topic: dict[str, list[bytes]]) -> None:
        for topic, values in by_topic.items():
            with (self._folder / f"{topic}.ndjson").open("ab") as file:
                file.write(b"\n".join(values) + b"\n")
