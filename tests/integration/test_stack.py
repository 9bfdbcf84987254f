"""The local stack with its real servers: they serve, keep their data, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError
from redis import Redis as RedisClient
from redis.exceptions import TimeoutError as RedisTimeoutError

from verifier.demo.stack import server
from verifier.demo.stack.kafka import Kafka, kafka_answers
from verifier.demo.stack.kafka_jars import jars_cached, jars_folder
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.probe import kafka_source, missing
from verifier.demo.stack.process import ManagedProcess, StackError, free_port, port_open, wait_until
from verifier.demo.stack.redis import Redis
from verifier.demo.stack.stack import LocalStack

GIVEN = ("VERIFIER_KAFKA", "VERIFIER_REDIS", "VERIFIER_POSTGRES")
LARGE_RECORD_BYTES = 10_000_000


@pytest.fixture(scope="module", autouse=True)
def _nothing_given() -> Iterator[None]:
    """These tests stop and kill servers: they start their own, whatever the environment names."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in GIVEN:
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with LocalStack() as running:
        yield running


def members(group: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, member_of = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(member_of) == group and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def group_of(local: Kafka | Redis | Postgres) -> int:
    process = local.server
    if not isinstance(process, ManagedProcess):
        pytest.skip("the server runs in a container")
    return process.pid


async def create_topic(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(topic, num_partitions=1, replication_factor=1, topic_configs={})], timeout_ms=20_000
        )
    finally:
        await admin.close()


async def produce(bootstrap: str, topic: str, value: bytes) -> int:
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_request_size=2 * len(value) + 1_000_000
    ) as to:
        sent = await to.send_and_wait(topic, value, partition=0)
    return int(sent.offset)


async def consume(bootstrap: str, topic: str) -> list[bytes]:
    """Every record of the topic's one partition."""
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False) as consumer:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while await consumer.position(partition) < end:
            values.append((await consumer.getone(partition)).value)
    return values


# --- the servers -----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_kafka_gives_back_a_record_of_ten_megabytes(stack: LocalStack) -> None:
    large = b"x" * LARGE_RECORD_BYTES
    await create_topic(stack.kafka.bootstrap, "large")
    await produce(stack.kafka.bootstrap, "large", b"small")
    await produce(stack.kafka.bootstrap, "large", large)
    assert await consume(stack.kafka.bootstrap, "large") == [b"small", large]


@pytest.mark.asyncio
async def test_kafka_serves_a_consumer_group(stack: LocalStack) -> None:
    await create_topic(stack.kafka.bootstrap, "grouped")
    await produce(stack.kafka.bootstrap, "grouped", b"one")
    async with AIOKafkaConsumer(
        "grouped", bootstrap_servers=stack.kafka.bootstrap, group_id="g", auto_offset_reset="earliest"
    ) as consumer:
        assert (await consumer.getone()).value == b"one"
        await consumer.commit()
        assert await consumer.committed(TopicPartition("grouped", 0)) == 1


@pytest.mark.asyncio
async def test_kafka_makes_no_topic_that_was_not_asked_for(stack: LocalStack) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=stack.kafka.bootstrap, request_timeout_ms=1_000
    ) as producer:
        with pytest.raises(UnknownTopicOrPartitionError):
            await producer.partitions_for("never-created")  # asking is what would make it


@pytest.mark.asyncio
async def test_kafka_keeps_records_and_address_over_a_restart_and_a_crash(stack: LocalStack) -> None:
    address = stack.kafka.bootstrap
    await create_topic(address, "kept")
    assert await produce(address, "kept", b"before") == 0
    stack.kafka.restart()
    assert await produce(address, "kept", b"after restart") == 1
    stack.kafka.kill()
    assert not stack.kafka.running
    assert not kafka_answers(address)
    stack.kafka.start()
    assert stack.kafka.bootstrap == address
    assert await consume(address, "kept") == [b"before", b"after restart"]


@pytest.mark.asyncio
async def test_postgres_keeps_its_rows_over_a_restart_and_a_crash(stack: LocalStack) -> None:
    dsn = stack.postgres.create_database("kept")
    assert stack.postgres.create_database("kept") == dsn, "creating it again changes nothing"

    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    stack.postgres.restart()  # does not wait for the open connection
    await connection.close()

    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO kept VALUES (2)")
    await connection.execute("CHECKPOINT")  # synchronous_commit is off: the last rows may go with a crash
    stack.postgres.kill()
    with contextlib.suppress(OSError, asyncpg.PostgresError):
        await connection.close(timeout=1)
    stack.postgres.start()

    connection = await asyncpg.connect(dsn)
    try:
        assert [row["n"] for row in await connection.fetch("SELECT n FROM kept ORDER BY n")] == [1, 2]
    finally:
        await connection.close()


@pytest.mark.asyncio
async def test_postgres_refuses_a_wrong_password(stack: LocalStack) -> None:
    user, _, rest = stack.postgres.dsn().partition("//")[2].partition(":")
    where = rest.partition("@")[2]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://{user}:wrong@{where}")


def test_postgres_refuses_a_database_name_that_would_need_quoting(stack: LocalStack) -> None:
    with pytest.raises(StackError, match="no plain database name"):
        stack.postgres.create_database('x"; DROP DATABASE kept')


def test_redis_keeps_its_keys_over_a_restart_and_a_crash(stack: LocalStack) -> None:
    with RedisClient.from_url(stack.redis.url(1)) as client:
        assert client.ping()
        client.set("restart", "1")
        stack.redis.restart()
        assert client.get("restart") == b"1"
        client.set("crash", "2")
        stack.redis.kill()
        stack.redis.start()
        assert client.get("crash") == b"2"
    with RedisClient.from_url(stack.redis.url(0)) as other:
        assert other.get("crash") is None, "another database"


def test_a_paused_server_keeps_silent_until_it_is_resumed(stack: LocalStack) -> None:
    with RedisClient.from_url(stack.redis.url(), socket_timeout=0.3, retry=None) as client:
        assert client.ping()
        stack.redis.pause()
        try:
            with pytest.raises(RedisTimeoutError):
                client.ping()
            assert stack.redis.running
        finally:
            stack.redis.resume()
        assert client.ping()


def test_asking_for_a_server_that_was_not_wanted_says_so() -> None:
    with pytest.raises(StackError, match="has no Kafka"):
        _ = LocalStack(kafka=False).kafka


# --- nothing is left behind ------------------------------------------------------------------------------


def test_leaving_the_stack_leaves_no_process_and_no_folder() -> None:
    lines: list[str] = []
    with LocalStack(on_progress=lines.append) as running:
        groups = [group_of(local) for local in (running.kafka, running.redis, running.postgres)]
        folder = running.data_dir
        ports = [int(running.kafka.bootstrap.rpartition(":")[2])]
        assert all(members(group) for group in groups)
        assert all(port_open(port) for port in ports)
    assert [members(group) for group in groups] == [[], [], []]
    assert not any(port_open(port) for port in ports)
    assert not folder.exists()
    assert sorted(line.split()[0] for line in lines) == ["Kafka", "PostgreSQL", "Redis", "starting"]


def test_a_failed_start_stops_the_other_servers_and_names_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    groups: list[int] = []

    def fail(self: Postgres) -> None:
        wait_until(lambda: redis_group(tmp_path), 10, "Redis to start")
        groups.extend(redis_group(tmp_path))
        raise StackError("no room")

    monkeypatch.setattr(Postgres, "start", fail)
    with pytest.raises(StackError, match="PostgreSQL: no room"), LocalStack(tmp_path, kafka=False):
        pytest.fail("it must not start")
    assert groups
    assert [members(group) for group in groups] == [[]]
    assert tmp_path.exists(), "a folder that the caller named stays"


def redis_group(folder: Path) -> list[int]:
    """The process ids of a redis-server that works in `folder`."""
    found = []
    for cwd in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if (
                cwd.readlink() == folder / "redis"
                and b"redis-server" in (cwd.parent / "cmdline").read_bytes()
            ):
                found.append(int(cwd.parent.name))
    return found


OWNER = """
import json, os, signal, sys, threading
from verifier.demo.stack.stack import LocalStack
with LocalStack(kafka=False) as stack:   # its servers are started by threads that have ended by now
    print(json.dumps([stack.redis.server.pid, stack.postgres.server.pid, str(stack.data_dir)]), flush=True)
    {end}
"""


@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "raise KeyboardInterrupt",
    ],
    ids=["killed", "terminated", "interrupted"],
)
def test_servers_do_not_outlive_their_owner(end: str) -> None:
    owner = subprocess.run(
        [sys.executable, "-c", OWNER.format(end=end)], capture_output=True, text=True, timeout=60, check=False
    )
    assert owner.returncode != 0
    redis, postgres, folder = json.loads(owner.stdout)
    try:
        wait_until(lambda: not members(redis) and not members(postgres), 10, "the orphans to end")
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


# --- one process -----------------------------------------------------------------------------------------


def shell(script: str, tmp_path: Path, **options: object) -> ManagedProcess:
    return ManagedProcess("sample", ["/bin/sh", "-c", script], log_path=tmp_path / "sample.log", **options)  # type: ignore[arg-type]


def test_a_start_that_fails_names_the_server_shows_its_log_and_says_what_to_do(tmp_path: Path) -> None:
    process = shell("echo no licence; exit 3", tmp_path, ready=lambda: False, hint="Buy one.")
    with pytest.raises(StackError) as failure:
        process.start().wait_ready()
    message = str(failure.value)
    for part in ("sample ended while starting, with status 3", "Buy one.", "no licence"):
        assert part in message
    assert not process.running


def test_a_server_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    process = shell("sleep 600", tmp_path, ready=lambda: False, ready_timeout_s=0.2).start()
    group = process.pid
    with pytest.raises(StackError, match=r"not ready within 0\.2 s"):
        process.wait_ready()
    assert members(group) == []


def test_a_program_that_is_absent_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="sample cannot be run.*'/nowhere/server'"):
        ManagedProcess("sample", ["/nowhere/server"], log_path=tmp_path / "log").start()


def test_what_ignores_the_request_to_stop_is_killed_after_the_grace_with_its_children(tmp_path: Path) -> None:
    process = shell("trap '' TERM; sleep 600 & sleep 600; wait", tmp_path).start()
    group = process.pid
    wait_until(lambda: len(members(group)) == 3, 10, "the children")
    began = time.monotonic()
    assert process.stop(grace_s=0.3) == -signal.SIGKILL
    assert time.monotonic() - began >= 0.3
    assert members(group) == []
    assert process.stop() is None, "stopping again is harmless"


def test_a_paused_process_can_still_be_stopped_in_good_order(tmp_path: Path) -> None:
    process = shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done", tmp_path).start()
    wait_until(lambda: "up" in process.log_tail(), 10, "the trap")
    process.pause()
    assert process.stop(grace_s=10) == 7
    assert process.log_tail(1) == "bye"


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    process = shell("sleep 600", tmp_path)
    starter = threading.Thread(target=process.start)
    starter.start()
    starter.join()
    try:
        wait_until(lambda: not Path(f"/proc/self/task/{starter.native_id}").exists(), 5, "the thread to end")
        with pytest.raises(StackError):
            wait_until(lambda: not process.running, 0.3, "what must not happen")
    finally:
        process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_can_run_as_another_user(tmp_path: Path) -> None:
    process = shell("id -un; id -G", tmp_path, user="nobody").start()
    wait_until(lambda: not process.running, 10, "it to end")
    name, groups = process.log_tail().splitlines()
    assert process.stop() == 0
    assert name == "nobody"
    assert "0" not in groups.split(), "root's groups are gone too"


def test_no_port_is_handed_out_twice() -> None:
    ports: list[int] = []
    threads = [
        threading.Thread(target=lambda: ports.extend(free_port() for _ in range(25))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ports) == len(set(ports)) == 100


# --- servers from elsewhere, and what is missing ---------------------------------------------------------


def test_a_server_named_by_the_environment_is_used_and_left_alone(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VERIFIER_REDIS", stack.redis.url(3))
    monkeypatch.setenv("VERIFIER_KAFKA", stack.kafka.bootstrap)
    monkeypatch.setenv("VERIFIER_POSTGRES", stack.postgres.dsn("postgres"))
    with Redis(tmp_path) as redis, Kafka(tmp_path) as kafka, Postgres(tmp_path) as postgres:
        assert redis.url(1) == stack.redis.url(1)
        assert kafka.bootstrap == stack.kafka.bootstrap
        assert postgres.create_database("given") == stack.postgres.dsn("given")
        for act in (redis.kill, redis.pause, redis.restart, kafka.kill, postgres.kill):
            with pytest.raises(StackError, match="not ours"):
                act()
    assert stack.redis.running
    assert stack.kafka.running
    assert stack.postgres.running
    assert list(tmp_path.iterdir()) == []


def test_a_named_server_that_does_not_answer_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server, "EXTERNAL_READY_TIMEOUT_S", 0.1)
    monkeypatch.setenv("VERIFIER_KAFKA", f"127.0.0.1:{free_port()}")
    with pytest.raises(StackError, match="VERIFIER_KAFKA"):
        Kafka(tmp_path).start()


def test_absent_programs_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("verifier.demo.stack.probe.docker_answers", lambda: False)
    packages = {gap.program: gap.package for gap in missing(edge=False)}
    assert packages["redis-server"] == "redis-server"
    assert packages["java"] == "openjdk-17-jre-headless"
    assert packages["mvn"] == "maven"
    source = kafka_source()
    assert not source.available
    assert "openjdk-17-jre-headless" in source.why


def test_kafka_can_be_had_here() -> None:
    assert kafka_source().available


def test_a_damaged_cache_of_jars_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = jars_folder()
    folder.mkdir(parents=True)
    (folder / "one.jar").write_bytes(b"12345")
    assert not jars_cached(), "no marker"
    (folder / "complete.json").write_text(json.dumps({"one.jar": 5, "two.jar": 3}))
    assert not jars_cached(), "a jar is missing"
    (folder / "two.jar").write_bytes(b"123")
    assert jars_cached()
    (folder / "one.jar").write_bytes(b"123")
    assert not jars_cached(), "a jar is cut short"
