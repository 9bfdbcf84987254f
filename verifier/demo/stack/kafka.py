"""A real Apache Kafka: one node, broker and controller together (KRaft), on a loopback port.

`python -m verifier.demo.stack.kafka` fetches its jars and prepares a class archive beside them, which halves
the time to start. Both happen once a machine.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import sys
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.kafka_jars import KAFKA_VERSION, fetch_jars, jars_cached, jars_folder
from verifier.demo.stack.ports import LOOPBACK, free_port
from verifier.demo.stack.process import ManagedProcess, run_to_end
from verifier.demo.stack.server import ContainerServer, ExternalServer, LocalServer, Server, docker_answers

RECORD_BYTES_MAX = 16 * 1024 * 1024
READY_TIMEOUT_S = 90.0
FORMAT_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 2.0
ARCHIVING_STOP_S = 60.0
_NODE_ID = 1

_LOG4J = """status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %m (%c{1})%n%throwable
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""


class Kafka(LocalServer):
    """Kafka as `VERIFIER_KAFKA` gives it, or in a container, or as a JVM of ours from Maven Central's jars.

    `heap_mb` is our JVM's (initial, greatest) heap, `jvm_options` are added to its command line. `settings`
    are added to, or replace, the node's own (server.properties names; not for one from outside). `start`
    raises StackError when none can be had.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        heap_mb: tuple[int, int] = (256, 512),
        settings: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = (),
        ready_timeout_s: float = READY_TIMEOUT_S,
    ) -> None:
        super().__init__()
        self.data_dir = data_dir
        self._heap_mb = heap_mb
        self._jvm_options = tuple(jvm_options)
        self._settings = dict(settings or {})
        self._ready_timeout_s = ready_timeout_s
        self._bootstrap = os.environ.get("VERIFIER_KAFKA", "")

    @property
    def bootstrap(self) -> str:
        """`host:port`, comma-separated. Raises StackError before the first start."""
        if not self._bootstrap:
            raise StackError("Kafka has no address yet: call start() first")
        return self._bootstrap

    def _choose(self) -> Server:
        if self._bootstrap:
            addresses = self._bootstrap.split(",")
            return ExternalServer("Kafka", "VERIFIER_KAFKA", lambda: any(map(kafka_answers, addresses)))
        port = free_port()
        server = self._container(port) if docker_answers() else self._jvm(port)
        self._bootstrap = f"{LOOPBACK}:{port}"
        return server

    def _container(self, port: int) -> Server:
        # the image reads KAFKA_A_B as a.b; its data folder is the default one
        properties = self._properties(
            f"{LOOPBACK}:{port}", f"0.0.0.0:{port}", "0.0.0.0:9093", "localhost:9093"
        )
        return ContainerServer(
            "Kafka",
            f"apache/kafka:{KAFKA_VERSION}",
            port=port,
            port_inside=port,
            env={"KAFKA_" + name.replace(".", "_").upper(): value for name, value in properties.items()},
            ready=lambda: kafka_answers(f"{LOOPBACK}:{port}"),
        )

    def _jvm(self, port: int) -> Server:
        java, classpath = find_java(), f"{fetch_jars()}/*"
        address, controller = f"{LOOPBACK}:{port}", f"{LOOPBACK}:{free_port()}"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        log4j = self.data_dir / "log4j2.properties"
        log4j.write_text(_LOG4J)
        properties = self._properties(address, address, controller, controller)
        properties["log.dirs"] = str(self.data_dir / "logs")
        config = self.data_dir / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        # the JVM ignores an archive that another Java, or other jars, made
        archived = [f"-XX:SharedArchiveFile={_archive()}", "-Xlog:cds=off"] if _archive().exists() else []
        base = [java, *archived, "-cp", classpath]
        base += [f"-Dlog4j2.configurationFile={log4j}", "-Djava.awt.headless=true"]
        if not (self.data_dir / "logs" / "meta.properties").exists():
            self._format(base, config)
        least, most = self._heap_mb
        return ManagedProcess(
            "Kafka",
            [base[0], f"-Xms{least}m", f"-Xmx{most}m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]
            + ["-XX:+ExitOnOutOfMemoryError", *self._jvm_options, *base[1:], "kafka.Kafka", str(config)],
            cwd=self.data_dir,
            log_path=self.data_dir / "kafka.log",
            ready=lambda: kafka_answers(address),
            ready_timeout_s=self._ready_timeout_s,
            hint="It needs Java 17 or newer and about 1 GB of free memory.",
        )

    def _format(self, base: list[str], config: Path) -> None:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        storage = ["kafka.tools.StorageTool", "format", "-c", str(config), f"--cluster-id={cluster}"]
        run_to_end(
            ManagedProcess(
                "Kafka's StorageTool",
                [base[0], "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *base[1:], *storage],
                cwd=self.data_dir,
                log_path=self.data_dir / "format.log",
                hint=f"If {self.data_dir} holds another Kafka's data, name another folder.",
            ),
            FORMAT_TIMEOUT_S,
        )

    def _properties(self, advertised: str, listener: str, controller: str, voter: str) -> dict[str, str]:
        """The node's settings: those of one node alone, small internal topics, records up to 16 MiB."""
        return {
            "process.roles": "broker,controller",
            "node.id": str(_NODE_ID),
            "controller.quorum.voters": f"{_NODE_ID}@{voter}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{listener},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{advertised}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            # how long a node that was killed waits for its own old registration to expire (default 9 s)
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "1000",
            "auto.create.topics.enable": "false",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
            "default.replication.factor": "1",
            "min.insync.replicas": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "2",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "message.max.bytes": str(RECORD_BYTES_MAX),
            "replica.fetch.max.bytes": str(RECORD_BYTES_MAX),
            "socket.request.max.bytes": str(4 * RECORD_BYTES_MAX),
            "socket.send.buffer.bytes": str(1024 * 1024),
            "socket.receive.buffer.bytes": str(1024 * 1024),
            **self._settings,
        }


def _archive() -> Path:
    return jars_folder() / "classes.jsa"


def prepare() -> bool:
    """Fetch the jars and make the class archive, unless all is there; whether anything was done.

    Raises StackError when the jars cannot be had or this Kafka does not start.
    """
    fetched = not jars_cached()
    fetch_jars()
    if _archive().exists() or "VERIFIER_KAFKA" in os.environ or docker_answers():
        return fetched
    with tempfile.TemporaryDirectory(prefix="shadow-verifier-kafka-") as work:
        part = Path(f"{_archive()}.{os.getpid()}")
        kafka = Kafka(Path(work), jvm_options=[f"-XX:ArchiveClassesAtExit={part}", "-Xlog:cds=off"])
        try:
            kafka.start()
        finally:
            kafka.stop(ARCHIVING_STOP_S)
        if part.exists():
            part.rename(_archive())
    return True


def find_java() -> str:
    """The `java` of JAVA_HOME, else of PATH. Raises StackError when there is none."""
    home = os.environ.get("JAVA_HOME")
    if home and (inside := Path(home) / "bin" / "java").exists():
        return str(inside)
    java = shutil.which("java")
    if java is None:
        raise StackError(
            "there is no `java`: install openjdk-17-jre-headless, or point VERIFIER_KAFKA at a Kafka"
        )
    return java


def kafka_answers(address: str) -> bool:
    """Whether a Kafka at `host:port` answers and its cluster has a live broker (Metadata request, v1)."""
    host, _, port = address.strip().rpartition(":")
    request = struct.pack(">hhih", 3, 1, 0, -1) + struct.pack(">i", 0)  # no client id; of no topics
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_TIMEOUT_S) as broker:
            broker.sendall(struct.pack(">i", len(request)) + request)
            answer = broker.makefile("rb").read(12)
    except (OSError, ValueError):
        return False
    if len(answer) < 12:
        return False
    _size, _correlation, brokers = struct.unpack(">iii", answer)
    return bool(brokers > 0)


def main() -> int:
    """Prepare, and say what was found or done."""
    try:
        done = prepare()
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    sys.stdout.write(f"Kafka {KAFKA_VERSION}: {jars_folder()} ({'prepared' if done else 'already there'})\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
