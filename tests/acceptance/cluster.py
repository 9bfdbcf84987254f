"""The installed program as its users run it: processes, reached over Kafka, HTTP, PostgreSQL and Redis alone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.ports import free_port
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.redis import Redis

PROGRAM = Path(sys.executable).parent / "verifier"
READY_WITHIN_S = 90.0
SETTLED_WITHIN_S = 60.0
STOPPED_WITHIN_S = 10.0
SOURCES = ("edge.requests", "main.responses", "shadow.responses", "main.writes", "shadow.writes")
VERDICTS = ("match", "divergence", "incomplete", "incomparable")
_T = TypeVar("_T")


class Servers(NamedTuple):
    """The servers all clusters of a run share."""

    kafka: Kafka
    redis: Redis
    postgres: Postgres


class Produced(NamedTuple):
    """A record to be produced; without a partition its key decides, as Java's default partitioner would."""

    topic: str
    value: Mapping[str, Any] | bytes | None
    key: str | None = None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def key_bytes(self) -> bytes | None:
        key = self.key
        if key is None and isinstance(self.value, Mapping):
            key = self.value.get("request_id")
        return None if key is None else key.encode()

    @property
    def value_bytes(self) -> bytes | None:
        return json.dumps(self.value).encode() if isinstance(self.value, Mapping) else self.value


class Read(NamedTuple):
    """A record as it lies on a topic."""

    partition: int
    offset: int
    key: str | None
    value: Any


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run it to its end in a loop of its own."""
    return asyncio.run(work)


def wait_for(what: str, condition: Callable[[], _T | None], within_s: float) -> _T:
    """Poll until the condition holds and return what it gave; fails naming what was last seen."""
    give_up_at = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < give_up_at, f"not within {within_s} s: {what}"
        time.sleep(0.1)


class WorkerProcess:
    """One `verifier worker`."""

    def __init__(self, env: Mapping[str, str], log_path: Path) -> None:
        self.port = free_port()
        self.log_path = log_path
        self._env = {**env, "VERIFIER_HTTP_PORT": str(self.port)}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "worker"], env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def get(self, path: str, **headers: str) -> httpx.Response | None:
        """The answer, or None while no one answers."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=10.0)
        except httpx.TransportError:
            return None

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer is not None and answer.status_code == 200, f"{path}: {answer and answer.text}"
        return answer.json()

    def ready(self) -> bool:
        answer = self.get("/readyz")
        return answer is not None and answer.status_code == 200

    def not_ready_because(self, *words: str) -> str | None:
        """What `/readyz` says while it is down, if that has all the words."""
        answer = self.get("/readyz")
        if answer is None or answer.status_code != 503:
            return None
        return answer.text if all(word.lower() in answer.text.lower() for word in words) else None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> tuple[int, float]:
        """SIGTERM; returns the exit status and the seconds it took."""
        began = time.monotonic()
        self.process.terminate()
        try:
            status = self.process.wait(STOPPED_WITHIN_S + 10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return status, time.monotonic() - began

    def cpu_s(self) -> float:
        """CPU seconds it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    def state(self) -> str:
        """What it says of itself, for a failing test."""
        answer = self.get("/readyz")
        last = self.log_path.read_text().splitlines()[-15:]
        return "\n".join(
            [f"{self.log_path.name}: {answer.text if answer else 'no answer'}", *(x[:300] for x in last)]
        )

    def log(self) -> list[dict[str, Any]]:
        """Its log lines; each is a JSON object, or this fails."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]


class Cluster:
    """A deployment of its own on the shared servers: topic prefix, group, database, Redis keys and some workers."""

    def __init__(self, servers: Servers, name: str, folder: Path, *, partitions: int = 2, **env: str) -> None:
        self.servers, self.name, self.folder, self.partitions = servers, name, folder, partitions
        self.prefix = f"{name}."
        self.dsn = servers.postgres.create_database(name)
        self.workers: list[WorkerProcess] = []
        self._added = 0
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("VERIFIER_")}
        self.env = {
            **inherited,
            "VERIFIER_KAFKA": servers.kafka.bootstrap,
            "VERIFIER_REDIS": servers.redis.url(1),
            "VERIFIER_IDEMPOTENCY_PREFIX": f"{name}:",
            "VERIFIER_POSTGRES": self.dsn,
            "VERIFIER_HTTP_HOST": "127.0.0.1",
            "VERIFIER_GROUP": name,
            "VERIFIER_TOPIC_PREFIX": self.prefix,
            "VERIFIER_PARTITIONS": str(partitions),
            "VERIFIER_JOIN_TIMEOUT_S": "5",
            **env,
        }

    # -- processes -------------------------------------------------------------------------------------------

    def command(
        self, *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *arguments],
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def init(self) -> None:
        done = self.command("init")
        assert done.returncode == 0, done.stderr

    def add_worker(self, **env: str) -> WorkerProcess:
        """Start one more worker; no two of a cluster share a name, a data folder or a log, also after one has gone."""
        self._added += 1
        folder = self.folder / f"worker-{self._added}"
        worker = WorkerProcess(
            {**self.env, "VERIFIER_DATA_DIR": str(folder), **env}, folder.with_suffix(".log")
        )
        self.workers.append(worker)
        return worker

    def start(self, workers: int) -> None:
        """Create topics and tables, start the workers, wait until all are ready."""
        self.init()
        for _ in range(workers):
            self.add_worker()
        self.wait_ready()

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        try:
            wait_for("all workers ready", lambda: all(worker.ready() for worker in self.workers), within_s)
        except AssertionError as error:
            raise AssertionError(
                "\n".join([str(error), *(worker.state() for worker in self.workers)])
            ) from None

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()

    # -- Kafka -----------------------------------------------------------------------------------------------

    def produce(self, records: Iterable[Produced]) -> list[tuple[int, int]]:
        """Produce in order; returns each record's partition and offset."""
        return run(self._produce(list(records)))

    async def _produce(self, records: list[Produced]) -> list[tuple[int, int]]:
        producer = AIOKafkaProducer(bootstrap_servers=self.servers.kafka.bootstrap, max_request_size=16 << 20)
        await producer.start()
        try:
            sent = [
                await producer.send(
                    self.prefix + r.topic, r.value_bytes, key=r.key_bytes, partition=r.partition,
                    headers=list(r.headers),
                )
                for r in records
            ]  # fmt: skip
            done = await asyncio.gather(*sent)
        finally:
            await producer.stop()
        return [(each.partition, each.offset) for each in done]

    def consume(self, topic: str) -> list[Read]:
        """Everything on a topic now, each partition in order; values are decoded JSON, tombstones None."""
        return run(self._consume(self.prefix + topic))

    async def _consume(self, topic: str) -> list[Read]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.servers.kafka.bootstrap, max_partition_fetch_bytes=32 << 20
        )
        await consumer.start()
        found: list[Read] = []
        try:
            places = [TopicPartition(topic, p) for p in range(self.partitions)]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            for place, end in ends.items():
                while await consumer.position(place) < end:
                    for record in (await consumer.getmany(place, timeout_ms=500)).get(place, ()):
                        value = None if record.value is None else json.loads(record.value)
                        key = None if record.key is None else record.key.decode()
                        found.append(Read(record.partition, record.offset, key, value))
        finally:
            await consumer.stop()
        return found

    def compacted(self, topic: str) -> dict[str, Any]:
        """What a consumer that reads a compacted topic from its beginning ends with."""
        newest = {read.key or "": read.value for read in self.consume(topic)}
        return {key: value for key, value in newest.items() if value is not None}

    def committed(self) -> dict[tuple[str, int], int]:
        """The group's committed offsets by topic (without prefix) and partition, and how far each topic goes."""
        return run(self._committed())

    async def _committed(self) -> dict[tuple[str, int], int]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.servers.kafka.bootstrap, group_id=self.name, enable_auto_commit=False
        )
        await consumer.start()
        try:
            places = [(name, p) for name in SOURCES for p in range(self.partitions)]
            return {
                (name, p): await consumer.committed(TopicPartition(self.prefix + name, p)) or 0
                for name, p in places
            }
        finally:
            await consumer.stop()

    # -- PostgreSQL ------------------------------------------------------------------------------------------

    def sql(self, query: str, *args: Any) -> list[dict[str, Any]]:
        return run(self._sql(query, *args))

    async def _sql(self, query: str, *args: Any) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(query, *args)]
        finally:
            await connection.close()

    # -- REST ------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = self.workers[0].json("/v1/summary")
        return summary

    def settle(
        self, requests: int, *, records: int | None = None, within_s: float = SETTLED_WITHIN_S
    ) -> dict[str, Any]:
        """Wait until so many requests have a verdict, nothing is pending and nothing unread; returns the summary."""
        seen: list[Any] = [None]

        def settled() -> dict[str, Any] | None:
            for worker in self.workers:
                answer = worker.get("/v1/summary") if worker.process.poll() is None else None
                if answer is None or answer.status_code != 200:
                    continue
                summary: dict[str, Any] = answer.json()
                seen[0] = summary
                done = (
                    summary["requests"]["total"] >= requests and not summary["pending"] and not summary["lag"]
                )
                counted = records is None or sum(summary["records"].values()) >= records
                return summary if done and counted else None
            return None

        try:
            return wait_for(f"{requests} requests settled", settled, within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; last seen {seen[0]}") from None

    def request(self, request_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.workers[0].json(f"/v1/requests/{request_id}")
        return found

    def await_verdict(self, request_id: str, verdict: str, within_s: float = 20.0) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            answer = self.workers[0].get(f"/v1/requests/{request_id}")
            if answer is None or answer.status_code != 200:
                return None
            found: dict[str, Any] = answer.json()
            return found if found["verdict"] == verdict else None

        return wait_for(f"{request_id} is {verdict}", there, within_s)

    def paged(self, path: str, limit: int) -> list[dict[str, Any]]:
        """All items of a list, page after page."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            more = f"&cursor={cursor}" if cursor else ""
            page = self.workers[0].json(f"{path}{'&' if '?' in path else '?'}limit={limit}{more}")
            assert len(page["items"]) <= limit
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    def metrics(self) -> dict[str, float]:
        """Samples by name and labels, summed over the workers, the prefix taken out of topic labels."""
        totals: defaultdict[str, float] = defaultdict(float)
        for worker in self.workers:
            if worker.process.poll() is not None:
                continue
            answer = worker.get("/metrics")
            assert answer is not None and answer.status_code == 200
            for line in answer.text.splitlines():
                if line and not line.startswith("#"):
                    sample, _, value = line.rpartition(" ")
                    totals[sample.replace(f'"{self.prefix}', '"')] += float(value)
        return dict(totals)
