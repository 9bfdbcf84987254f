"""Compiles the Kafka Streams peer: jars from Maven Central once, then `javac`; a peer that is built is left alone."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from bench.arena import ROOT, NotPrepared
from bench.peer_run import Peer

SOURCES = ROOT / "bench" / "peers" / "kafka_streams"
TARGET = SOURCES / "target"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_BUILD_WITHIN_S = 900.0


def kafka_streams_peer() -> Peer:
    """The peer, built when it is not. Raises NotPrepared when there is no JDK or Maven gets no jars."""
    java = shutil.which("java")
    javac = shutil.which("javac")
    if java is None or javac is None:
        raise NotPrepared("Kafka Streams needs a JDK: run `.ci/setup --bench`")
    files = sorted([*(SOURCES / "src").glob("*.java"), SOURCES / "pom.xml"])
    state = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    stamp = TARGET / "built"
    if not stamp.exists() or stamp.read_text() != state:
        _fetch()
        classes = TARGET / "classes"
        shutil.rmtree(classes, ignore_errors=True)
        sources = [str(path) for path in files if path.suffix == ".java"]
        _run([javac, "--release", "17", "-cp", f"{TARGET}/lib/*", "-d", str(classes), *sources])
        stamp.write_text(state)
    command = (java, "-Xmx1g", "-cp", f"{TARGET}/classes:{TARGET}/lib/*", "KafkaStreamsPeer")
    return Peer(name="kafka_streams", command=command)


def _fetch() -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NotPrepared("Kafka Streams' jars come by Maven: run `.ci/setup --bench`")
    copy = [maven, "-B", "-q", "-f", str(SOURCES / "pom.xml"), f"{_PLUGIN}:copy-dependencies"]
    copy += ["-DincludeScope=runtime", f"-DoutputDirectory={TARGET}/lib"]
    lib = TARGET / "lib"
    if lib.exists():  # a pom that changed asks for others; what Maven has got once it need not fetch again
        shutil.rmtree(lib)
    try:
        _run([*copy, "-o"])
    except NotPrepared:
        _run(copy)


def _run(command: list[str]) -> None:
    ran = subprocess.run(
        command, cwd=Path(SOURCES), capture_output=True, text=True, timeout=_BUILD_WITHIN_S, check=False
    )
    if ran.returncode:
        raise NotPrepared(f"{' '.join(command[:4])} ... failed:\n{(ran.stdout + ran.stderr)[-3_000:]}")
