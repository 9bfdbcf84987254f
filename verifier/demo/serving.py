"""What both sample systems need to run as a process of their own: arguments, database, publisher, server."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
import uvloop

from verifier.capture import CaptureConfig, KafkaPublisher
from verifier.capture.asgi import App
from verifier.capture.file_delivery import FileDelivery
from verifier.capture.records import Side
from verifier.demo.backlog import ServedCount
from verifier.demo.database import Store, prepare

CAPTURE = CaptureConfig(skip_paths=frozenset({"/api/v1/health"}))
CAPTURE_OF_WRITES = replace(CAPTURE, responses=False)
_CLOSE_S = 10.0
_DRAIN_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The command line of a sample system."""

    port: int
    dsn: str
    kafka: str | None
    records: Path | None
    topic_prefix: str
    seed: int
    faults: bool
    prepared: bool
    capture: CaptureConfig


def read_arguments(name: str, *, with_faults: bool) -> Arguments:
    """Read the process's command line; exits with 2 and says why when it is wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m verifier.demo.{name}")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--dsn", required=True, help="this side's own database; its schema `market` is made anew"
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--kafka", help="host:port, comma-separated")
    target.add_argument("--records", type=Path, help="a folder for the records, where there is no Kafka")
    parser.add_argument("--topic-prefix", default="")
    parser.add_argument("--prepared", action="store_true", help="the database is seeded already: leave it")
    parser.add_argument(
        "--responses",
        choices=("own", "edge"),
        default="own",
        help="who captures the responses; with `edge` the count of writes is told to it in a header",
    )
    if with_faults:
        parser.add_argument("--faults", choices=("on", "off"), default="on")
        parser.add_argument("--seed", type=int, default=7, help="the seed of the traffic's plan")
    given = parser.parse_args()
    return Arguments(
        port=given.port,
        dsn=given.dsn,
        kafka=given.kafka,
        records=given.records,
        topic_prefix=given.topic_prefix,
        seed=getattr(given, "seed", 0),
        faults=getattr(given, "faults", "off") == "on",
        prepared=given.prepared,
        capture=CAPTURE if given.responses == "own" else CAPTURE_OF_WRITES,
    )


def run(arguments: Arguments, *, side: Side, build: Callable[[Store, KafkaPublisher], App]) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is under way and publish what is queued."""
    uvloop.run(_serve(arguments, side, build))


class _Server(uvicorn.Server):
    """Uvicorn raises the signal that stopped it once more, which would end the process with records unsent."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        stopping = (signal.SIGTERM, signal.SIGINT)
        for number in stopping:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in stopping:
                loop.remove_signal_handler(number)


async def _serve(arguments: Arguments, side: Side, build: Callable[[Store, KafkaPublisher], App]) -> None:
    if not arguments.prepared:
        await prepare(arguments.dsn)
    publisher = KafkaPublisher(
        arguments.kafka or "",
        side=side,
        topic_prefix=arguments.topic_prefix,
        delivery=FileDelivery(arguments.records) if arguments.records is not None else None,
    )
    async with Store(arguments.dsn) as store:
        config = uvicorn.Config(
            ServedCount(build(store, publisher)),
            host="127.0.0.1",
            port=arguments.port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_DRAIN_S,
        )
        try:
            await _Server(config).serve()
        finally:
            await publisher.close(_CLOSE_S)
