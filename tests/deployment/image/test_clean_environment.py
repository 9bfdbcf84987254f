"""The Dockerfile's own steps, in a clean virtual environment: what the image would hold runs by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import cluster as processes
from tests.acceptance.cluster import STOPPED_WITHIN_S, Cluster, Servers
from tests.acceptance.records import mirrored
from tests.deployment.image.dockerfile import ROOT, context, stages
from tests.deployment.image.test_stopping import health_check
from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.redis import Redis

# Every dependency is fetched and built as the image's first stage does.
pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]


def steps(stage: int) -> list[str]:
    return [
        each.text for each in stages(ROOT / "Dockerfile")[stage] if each.name == "RUN" and "pip " in each.text
    ]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment made by the steps of the Dockerfile, from the files that an engine would be sent."""
    folder = tmp_path_factory.mktemp("image")
    build, wheels, made = folder / "build", folder / "wheels", folder / "venv"
    for name in context():
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, build / name)
    venv.create(made, with_pip=True)
    env = {**os.environ, "PATH": f"{made / 'bin'}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env.pop("PYTHONPATH", None)
    for step in [*steps(0), *steps(1)]:
        command = step.rpartition("target=/wheels")[2] if "--mount" in step else step
        command = command.replace("/wheels", str(wheels))
        done = subprocess.run(
            ["sh", "-c", command], cwd=build, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{step}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return made


@pytest.fixture(scope="module")
def cluster(
    image: Path, kafka: Kafka, redis: Redis, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster whose program is the one of the image."""
    patch = pytest.MonkeyPatch()
    patch.setattr(processes, "PROGRAM", image / "bin" / "verifier")
    name = f"image_{os.getpid()}"
    made = Cluster(Servers(kafka, redis, postgres), name, tmp_path_factory.mktemp(name))
    made.env.pop("PYTHONPATH", None)
    made.start(1)
    yield made
    made.close()
    patch.undo()


def test_it_is_the_python_of_the_image() -> None:
    base = stages(ROOT / "Dockerfile")[0][0].text
    assert base.startswith(f"python:{sys.version_info.major}.{sys.version_info.minor}-"), (
        "this proves another Python"
    )


def test_every_command_is_there(image: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [image / "bin" / "verifier", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("worker", "init", "check", "offline"):
        asked = subprocess.run(
            [image / "bin" / "verifier", command, "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert asked.returncode == 0 and command in done.stdout, asked.stderr


def test_it_is_complete_and_consistent(image: Path) -> None:
    done = subprocess.run([image / "bin" / "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_its_worker_works_and_is_healthy_and_stops_in_time(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    command = Path(f"/proc/{worker.process.pid}/cmdline").read_bytes().split(b"\0")
    assert str(processes.PROGRAM).encode() in command
    assert health_check(worker.port) == 0
    cluster.produce(mirrored("r", time.time()))
    cluster.await_verdict("r", "match")
    status, took_s = worker.stop()
    assert status == 0
    assert took_s < STOPPED_WITHIN_S
