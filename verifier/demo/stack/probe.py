"""What this machine lacks for the local stack, and how to get it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.kafka import find_java
from verifier.demo.stack.kafka_jars import jars_cached, maven_reaches_kafka
from verifier.demo.stack.postgres import find_programs
from verifier.demo.stack.server import docker_answers

_ADMIN_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"  # a plain user's PATH leaves them out


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A program, or a program's module, that is not here, and the Debian package that brings it."""

    program: str
    package: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSource:
    """Where Kafka would come from, or, with `available` False, why it cannot be had."""

    available: bool
    source: str
    why: str


def find_program(name: str) -> str | None:
    """The path of `name`, looked for on PATH and where Debian keeps servers; None when it is absent."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_ADMIN_FOLDERS}")


def missing(*, edge: bool = True) -> list[Missing]:
    """The programs that are needed here and absent.

    What is given by the environment, or can run in a container, needs no program. `edge` includes NGINX and
    rsyslog with their modules.
    """
    docker = docker_answers()
    wanted: list[tuple[bool, Callable[[], bool], str, str]] = [
        (
            not docker and "VERIFIER_REDIS" not in os.environ,
            _has("redis-server"),
            "redis-server",
            "redis-server",
        ),
        (not docker and "VERIFIER_POSTGRES" not in os.environ, _has_postgres, "postgres", "postgresql"),
        (not docker and "VERIFIER_KAFKA" not in os.environ, _has_java, "java", "openjdk-17-jre-headless"),
        (
            not docker and "VERIFIER_KAFKA" not in os.environ and not jars_cached(),
            _has("mvn"),
            "mvn",
            "maven",
        ),
        (edge, _has("nginx"), "nginx", "nginx"),
        (
            edge,
            _has_file("/usr/lib/nginx/modules/ngx_http_js_module.so"),
            "NGINX's njs",
            "libnginx-mod-http-js",
        ),
        (edge, _has("rsyslogd"), "rsyslogd", "rsyslog"),
        (edge, _has_file("/usr/lib/*/rsyslog/omkafka.so"), "rsyslog's omkafka", "rsyslog-kafka"),
    ]
    return [
        Missing(program=program, package=package)
        for needed, present, program, package in wanted
        if needed and not present()
    ]


def kafka_source(*, ask_maven: bool = True) -> KafkaSource:
    """Where a local stack would take Kafka from: environment, Docker, cached jars, or Maven Central.

    `ask_maven` allows the last and only slow question (some seconds, when the jars are not cached yet).
    """
    if os.environ.get("VERIFIER_KAFKA"):
        return KafkaSource(available=True, source="environment", why="VERIFIER_KAFKA is set")
    if docker_answers():
        return KafkaSource(available=True, source="docker", why="a Docker engine answers")
    if not _has_java():
        return _no_kafka("there is no Java: install openjdk-17-jre-headless")
    if jars_cached():
        return KafkaSource(available=True, source="cache", why="its jars are cached")
    if find_program("mvn") is None:
        return _no_kafka("its jars are not cached and there is no `mvn` to fetch them: install maven")
    if not ask_maven:
        return _no_kafka("its jars are not cached, and Maven Central was not asked")
    if not maven_reaches_kafka():
        return _no_kafka("its jars are not cached and `mvn` does not reach Maven Central")
    return KafkaSource(available=True, source="maven", why="`mvn` reaches Maven Central")


def _no_kafka(why: str) -> KafkaSource:
    return KafkaSource(available=False, source="none", why=f"{why}, or set VERIFIER_KAFKA")


def _has(name: str) -> Callable[[], bool]:
    return lambda: find_program(name) is not None


def _has_file(pattern: str) -> Callable[[], bool]:
    return lambda: any(Path("/").glob(pattern.removeprefix("/")))


def _has_postgres() -> bool:
    try:
        find_programs()
    except StackError:
        return False
    return True


def _has_java() -> bool:
    try:
        find_java()
    except StackError:
        return False
    return True
