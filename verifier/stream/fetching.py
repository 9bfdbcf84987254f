"""Fetched records of source topics as the client's compiled parser made them.

aiokafka copies each record into a dataclass of eleven fields, one generator step at a time: a third of what a record
costs its consumer. The codec needs four fields, which the parser's own objects have. Private API of aiokafka 0.14 is
used here and nowhere else; `tests/contract/test_batching.py` holds it to that. What this does not know it leaves alone.
"""
# ruff: noqa: SLF001 - that is what this module is for

from __future__ import annotations

import asyncio
from collections.abc import Container
from time import monotonic
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException


async def fetched(
    consumer: Any, partitions: Any, timeout_s: float, max_records: int | None, light: Container[str]
) -> Any:
    """As `Fetcher.fetched_records`: what a started consumer has fetched of these partitions; waits if that is nothing.

    Records of the topics `light` are handed out as they were read. Raises ConsumerStoppedError.
    """
    fetcher = consumer._fetcher
    if consumer._closed or fetcher._closed:
        raise ConsumerStoppedError
    give_up_at = monotonic() + timeout_s
    with fetcher._subscriptions.fetch_context():
        while True:
            lighten(fetcher, light)
            records = await fetcher.fetched_records(partitions, timeout=0, max_records=max_records)
            left_s = give_up_at - monotonic()
            if records or left_s <= 0:
                return records
            waiter = fetcher._create_fetch_waiter()
            await asyncio.wait({waiter}, timeout=left_s)
            if not waiter.done() or fetcher._closed:
                waiter.cancel()
                return {}
            waiter.result()


def lighten(fetcher: Any, topics: Container[str]) -> None:
    """Let what has been fetched of these topics be handed out as it is."""
    for tp, result in fetcher._records.items():
        if tp.topic in topics and type(result) is FetchResult and "getall" not in vars(result):
            records = result._partition_records
            if records is not None and records._isolation_level != READ_COMMITTED:
                vars(result)["getall"] = _HandingOut(result)


class _HandingOut:
    """In place of `FetchResult.getall`: whole batches of the parser's records, whose rest waits for the next call."""

    def __init__(self, result: Any) -> None:
        self._result = result
        self._rest: list[Any] = []
        self._rest_end = 0

    def __call__(self, max_records: int | None = None) -> list[Any]:
        result = self._result
        if not result.has_more() or not result.check_assignment(result._topic_partition):
            return []
        records = result._partition_records
        batches = records._records
        found, end = self._rest, self._rest_end if self._rest else records.next_fetch_offset
        while (max_records is None or len(found) < max_records) and batches.has_next():
            batch = batches.next_batch()
            if records._check_crcs and not batch.validate_crc():
                result._partition_records = None  # to be fetched again from where we are
                raise CorruptRecordException(f"Invalid CRC - {result._topic_partition}")
            if not batch.is_control_batch:
                read = list(batch)
                if read and read[0].offset < end:  # the batch began before what was asked for
                    read = [record for record in read if record.offset >= end]
                found = found + read if found else read
            end = batch.next_offset
        self._rest, self._rest_end = [], end
        if max_records is not None and len(found) > max_records:
            found, self._rest = found[:max_records], found[max_records:]
            end = self._rest[0].offset
        records.next_fetch_offset = end
        result._update_position()
        if not self._rest and not batches.has_next():
            result._partition_records = None
        return found
