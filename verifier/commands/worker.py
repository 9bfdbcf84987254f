"""`verifier worker`: one worker process with its REST API."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys

import structlog

from verifier.adapters.metrics import Metrics
from verifier.adapters.postgres import PostgresStore
from verifier.adapters.settings import Settings
from verifier.adapters.topics import TopicsWrong, check_counts, partition_counts
from verifier.assembly import Service
from verifier.core.errors import DependencyDown, VerifierError
from verifier.web.api import create_app
from verifier.web.server import WebServer, serve
from verifier.web.waiting import waiting_app

_log = structlog.get_logger(__name__)
RETRY_S = 1.0
STOP_WITHIN_S = 7.5
CLOSE_WITHIN_S = 1.5
WEB_GRACE_S = 3.0
GC_OBJECTS = 50_000
SWITCH_S = 0.001
"""How long a thread that works may keep the others waiting: the client's, which fetches, has only little to do."""
WAITING_GRACE_S = 0.5
EXIT_LEFT_BEHIND = 3


async def run_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises `TopicsWrong` when the topics cannot be joined."""
    _collect_rarely()
    sys.setswitchinterval(SWITCH_S)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for warning in settings.warnings:
        _log.warning("setting", detail=warning)
    store = await PostgresStore.connect(
        settings.postgres.get_secret_value(),
        idempotency_ttl_s=settings.idempotency_ttl_s,
        connections_max=settings.postgres_pool_max,
    )
    partitions = await _wait_for_topics(settings, stop)
    if partitions is None or stop.is_set():
        await store.close()
        return
    metrics = Metrics(routes_max=settings.routes_max, routes=settings.route_templates)
    service = Service(settings, partitions, store, metrics)
    app = create_app(service.web_deps())
    web = await serve(app, settings.http_host, settings.http_port, stop_grace_s=WEB_GRACE_S)
    _log.info("listening", host=settings.http_host, port=settings.http_port)
    gc.collect()
    gc.freeze()
    running = asyncio.create_task(service.worker.run())
    purging = asyncio.create_task(_purge(store, settings.retention_days))
    try:
        await asyncio.wait({running, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
        _log.info("stopping")
    finally:
        service.worker.stop()
        purging.cancel()
        ended = await _end(running, web)
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await service.close()
        except (TimeoutError, DependencyDown) as error:
            _log.info("connections_left", detail=repr(error))
    failure = None if not running.done() or running.cancelled() else running.exception()
    if failure is not None:
        _log.error("worker_failed", error=type(failure).__name__, detail=str(failure))
    _log.info("stopped")
    if not ended or service.worker.left_behind or not service.worker.kafka_up:
        # what did not end in time need not heed its cancellation either: Faust starts a cancelled agent again, clients
        # of an absent Kafka wait for it. The journal has all that counts, so nothing of theirs is worth waiting for
        logging.shutdown()
        os._exit(EXIT_LEFT_BEHIND if failure is not None else 0)
    if failure is not None:
        raise failure


def _collect_rarely() -> None:
    """Let the collector of cycles look at the heap less often: there are few, and requests in work by the thousand.

    What is there at the start stays, and is not looked at again, not even now. A tenth of the engine's cost went into
    looking.
    """
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 100)
    gc.enable()


async def _end(running: asyncio.Task[None], web: WebServer) -> bool:
    """Wait for worker and server to end, and say whether they did; what takes too long is cancelled and left."""
    stopping = asyncio.create_task(web.stop())
    _, late = await asyncio.wait({running, stopping}, timeout=STOP_WITHIN_S)
    if late:
        _log.warning("stop_cut_short", detail=f"not everything ended within {STOP_WITHIN_S} s")
        for task in late:
            task.cancel()
        await asyncio.wait(late, timeout=0.5)
    return not late


async def _wait_for_topics(settings: Settings, stop: asyncio.Event) -> int | None:
    """Wait until Kafka answers and has the topics; meanwhile the probes answer and say what is missing.

    Returns the partition count, or None when told to stop. Topics that are there but do not fit together are an error.
    """
    reason = "Kafka has not been asked yet"
    app = waiting_app(lambda: reason)
    web = await serve(app, settings.http_host, settings.http_port, stop_grace_s=WAITING_GRACE_S)
    try:
        while not stop.is_set():
            try:
                counts = await partition_counts(settings)
                if all(name in counts for name in (*settings.topics.sources, *settings.topics.outputs)):
                    return check_counts(settings, counts)
                missing = [n for n in (*settings.topics.sources, *settings.topics.outputs) if n not in counts]
                said = f"topics are missing: {', '.join(missing)}; run `verifier init`"
            except DependencyDown as down:
                said = str(down)
            if said != reason:
                _log.warning("waiting", detail=said)
                reason = said
            try:
                async with asyncio.timeout(RETRY_S):
                    await stop.wait()
            except TimeoutError:
                continue
        return None
    finally:
        await web.stop()


async def _purge(store: PostgresStore, retention_days: int) -> None:
    """Keep the tables within their retention, once an hour."""
    while True:
        try:
            removed = await store.purge(retention_days)
            if removed:
                _log.info("purged", rows=removed)
        except VerifierError as error:
            _log.warning("purge_put_off", detail=str(error))
        except Exception:  # noqa: BLE001 - what is too old stays a little longer; nothing else depends on it
            _log.exception("purge_failed")
        await asyncio.sleep(3600)


__all__ = ["TopicsWrong", "run_worker"]
