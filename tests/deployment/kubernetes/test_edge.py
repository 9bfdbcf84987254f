"""The edge as its pod runs it: run-edge.sh with each phase's parameters, on real NGINX, and its shipper."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.deployment.kubernetes.edge_pod import (
    PATH,
    SCRIPTS,
    Backend,
    Client,
    Edge,
    backends,
    edge_over,
    until,
)
from tests.deployment.kubernetes.rendered import K8S, one
from tests.deployment.kubernetes.test_phases import SHARES
from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.ports import LOOPBACK

USERS = 400
StartShipper = Callable[[Path, str], None]
NO_KAFKA = f"{LOOPBACK}:1,{LOOPBACK}:2"
SHIPPED_TO = ("edge.requests", "main.responses", "shadow.responses")


async def serve_users(edge: Edge, **headers: str) -> Counter[str]:
    """Send a request of each of many users, and count who answered."""
    answers = Counter[str]()
    async with Client(edge.port) as client:
        for user in range(USERS):
            status, body = await client.get("/api/v1/news", X_User_ID=f"u{user}", **headers)
            assert status == 200
            answers[body] += 1
    return answers


async def check_shares(edge: Edge, shadow: Backend, phase: str) -> None:
    """The phase's shares of users and of copies. Who is of a share is told by the user's id: no run differs."""
    canary, mirrored = SHARES[phase]
    copies_before = shadow.requests
    answers = await serve_users(edge)
    served = answers["canary"] / USERS * 100
    if canary in (0, 100):
        assert served == canary, (phase, answers)
    else:
        assert abs(served - canary) < 2.5, (phase, answers)
    if mirrored:
        await until(lambda: shadow.requests - copies_before >= answers["main"], "the copies")
    else:
        assert shadow.requests - copies_before <= 1  # of who asked before


async def test_each_phase_is_taken_up_by_a_reload_that_no_user_feels() -> None:
    async with backends() as servers, edge_over(servers) as edge:
        failures: list[tuple[int, str]] = []
        done = asyncio.Event()

        async def someone() -> int:
            """A user who goes on asking, over a connection that is kept as long as the edge keeps it."""
            sent = 0
            async with Client(edge.port) as client:
                while not done.is_set():
                    answer = await client.get("/api/v1/someone", X_Canary="never")
                    sent += 1
                    if answer != (200, "main"):
                        failures.append(answer)
                    await asyncio.sleep(0.01)
            return sent

        user = asyncio.create_task(someone())
        for phase in ("shadow", "canary-5", "ramp-10", "full", "rollback"):
            if phase != "shadow":
                await edge.becomes(phase)
            await check_shares(edge, servers["shadow"], phase)
        assert await serve_users(edge, X_Canary="true") == {"main": USERS}, "rolled back"
        done.set()
        assert await user > 10
        assert failures == []


async def test_the_one_value_rolls_back_from_the_full_phase() -> None:
    async with backends() as servers, edge_over(servers) as edge:
        await edge.becomes("full")
        await edge.takes_up({"EDGE_CANARY": "off"})
        assert await serve_users(edge) == {"main": USERS}


async def test_parameters_that_nginx_refuses_change_nothing_and_are_said() -> None:
    async with backends() as servers, edge_over(servers) as edge:
        for wrong in ("not-there.invalid:8080", "a $variable"):
            said = edge.count("NOT in force")
            edge.set({"EDGE_SHADOW_ADDR": wrong})
            await until(lambda: edge.count("NOT in force") > said, "the complaint", edge.said)  # noqa: B023
            assert edge.count("reloaded") == 0
        assert (await serve_users(edge))["main"] == USERS
        await edge.takes_up(
            {"EDGE_SHADOW_ADDR": f"{LOOPBACK}:{servers['shadow'].port}", "EDGE_SHADOW_RATE": "4000"}
        )


async def test_what_was_refused_is_tried_again() -> None:
    async with backends() as servers, edge_over(servers) as edge:
        log = edge.folder / "log" / "later" / "edge.json"
        edge.set({"EDGE_ACCESS_LOG": str(log)})
        await until(lambda: edge.count("NOT in force") > 0, "the complaint", edge.said)
        log.parent.mkdir()
        await until(lambda: edge.count("reloaded") > 0, "a reload", edge.said)
        await until(log.exists, "the new log")


async def test_a_stop_finishes_the_request_under_way() -> None:
    async with backends() as servers, edge_over(servers) as edge:
        servers["main"].delay_s = 1.0
        async with Client(edge.port) as client:
            under_way = asyncio.create_task(client.get("/api/v1/slow"))
            await until(lambda: servers["main"].requests == 1, "the request")
            edge.process.send_signal(signal.SIGTERM)
            assert await under_way == (200, "main")
        await until(lambda: edge.process.poll() is not None, "the end")
        assert edge.process.returncode == 0
        assert '"side":"main"' in (edge.folder / "log" / "edge.json").read_text()


def shipping(folder: Path, bootstrap: str = NO_KAFKA) -> dict[str, str]:
    return {
        "PATH": PATH,
        "EDGE_FILES_DIR": str(K8S / "shadow-proxy"),
        "SHIP_KAFKA": bootstrap,
        "SHIP_TOPIC": SHIPPED_TO[0],
        "SHIP_MAIN_RESPONSES_TOPIC": SHIPPED_TO[1],
        "SHIP_SHADOW_RESPONSES_TOPIC": SHIPPED_TO[2],
        "SHIP_LOG_PATH": str(folder / "log" / "edge.json"),
        "SHIP_MAIN_RESPONSES_LOG_PATH": str(folder / "log" / "main.json"),
        "SHIP_SHADOW_RESPONSES_LOG_PATH": str(folder / "log" / "shadow.json"),
        "SHIP_WORK_DIR": str(folder / "ship"),
        "SHIP_ERROR_LOG": "/dev/stderr",
    }


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[Kafka]:
    with Kafka(tmp_path / "kafka") as started:
        admin = AIOKafkaAdminClient(bootstrap_servers=started.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(name, 1, 1) for name in SHIPPED_TO])
        await admin.close()
        yield started


@pytest.fixture
def shipper_started() -> Iterator[StartShipper]:
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path, bootstrap: str) -> None:
        command = ["/bin/sh", str(SCRIPTS / "run-shipper.sh")]
        with (folder / "shipper-said").open("wb") as said:
            started.append(
                subprocess.Popen(command, env=shipping(folder, bootstrap), stdout=said, stderr=said)
            )

    yield start
    for process in started:
        process.kill()
        process.wait(timeout=10)


async def test_a_log_is_rotated_once_its_shipper_has_come_to_it(
    shipper_started: StartShipper, kafka: Kafka
) -> None:
    async with backends() as servers, edge_over(servers, EDGE_LOG_BYTES="100000") as edge:
        await serve_users(edge)
        log, old = edge.folder / "log" / "edge.json", edge.folder / "log" / "edge.json.1"
        assert log.stat().st_size > 100_000
        # Each reload is of one round of the loop, which looks at the logs too.
        for weight in ("1", "2"):
            await edge.takes_up({"EDGE_CANARY_WEIGHT": weight})
        assert not old.exists(), "nobody has read it yet"
        shipper_started(edge.folder, kafka.bootstrap)
        await until(old.exists, "the rotation", edge.folder / "shipper-said")
        assert log.exists()
        assert edge.count("LOST") == 0
        await serve_users(edge)
        await until(lambda: old.stat().st_ino != log.stat().st_ino, "another file")


async def test_a_log_without_a_shipper_is_bounded_and_the_loss_is_said() -> None:
    bounds = {"EDGE_LOG_BYTES": "50000", "EDGE_LOG_BYTES_MAX": "100000"}
    async with backends() as servers, edge_over(servers, **bounds) as edge:
        await serve_users(edge)
        await until(lambda: edge.count("LOST") >= 1, "the complaint")
        assert (edge.folder / "log" / "edge.json.1").exists()


def test_the_shippers_configuration_is_one_that_rsyslog_takes(tmp_path: Path) -> None:
    (tmp_path / "ship").mkdir()
    environment = shipping(tmp_path)
    script = (SCRIPTS / "run-shipper.sh").read_text().replace("exec rsyslogd -n", "exec rsyslogd -N1")
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    del environment["SHIP_TOPIC"]
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "${SHIP_TOPIC}" in done.stderr


def test_the_pod_runs_these_scripts_over_these_files() -> None:
    scripts = one("shadow", "ConfigMap", "shadow-proxy-scripts")["data"]
    assert {name: (SCRIPTS / name).read_text() for name in scripts} == scripts
    files = one("shadow", "ConfigMap", "shadow-proxy-files")["data"]
    assert {name: (K8S / "shadow-proxy" / name).read_text() for name in files} == files
