"""Calls to Kafka's client: bounded in time, its errors become `DependencyDown`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import ConsumerStoppedError, IllegalOperation, KafkaError

from verifier.core.errors import DependencyDown

_T = TypeVar("_T")
REQUEST_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 3.0
_log = structlog.get_logger(__name__)


async def guarded(call: Awaitable[_T], what: str, timeout_s: float = REQUEST_TIMEOUT_S) -> _T:
    """Await a call for at most `timeout_s`. Raises `DependencyDown`, which says `what` was being done."""
    try:
        async with asyncio.timeout(timeout_s):  # not `wait_for`: up to Python 3.11 it may lose a cancellation
            return await call
    except (KafkaError, ConsumerStoppedError, IllegalOperation, TimeoutError, OSError) as error:
        raise DependencyDown("kafka", f"{what}: {type(error).__name__} {error}".rstrip()) from error


async def stopped(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Stop a client of a Kafka that may be away: what it cannot say goodbye to in time is left."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await client.stop()
    except (KafkaError, TimeoutError, OSError) as error:
        _log.info("client_left", detail=f"{type(error).__name__} {error}".rstrip())
