"""Apache Kafka's server jars: resolved from Maven Central by `mvn`, kept in a cache folder.

Kafka is on Maven Central alone: Debian, PyPI and npm do not carry it. `mvn` follows this machine's own
settings (mirrors, proxies, credentials). A folder counts as complete by its marker, written last, which lists
every jar with its size: an interrupted or damaged download is fetched again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.process import ManagedProcess, run_to_end

KAFKA_VERSION = "4.4.0"
SCALA_VERSION = "2.13"
LOG4J_VERSION = "2.25.5"  # the one this Kafka asks for; its slf4j binding is not among its dependencies
FETCH_TIMEOUT_S = 900.0
PROBE_TIMEOUT_S = 60.0
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_MARKER = "complete.json"
_HINT = (
    "Install `maven` and give it a way to Maven Central (see ~/.m2/settings.xml), or point VERIFIER_KAFKA at"
    " a running Kafka."
)

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>shadow-verifier</groupId>
  <artifactId>kafka-server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_{SCALA_VERSION}</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def jars_folder() -> Path:
    """Where the jars are kept: `$XDG_CACHE_HOME` or `~/.cache`, then `shadow-verifier/kafka-<version>`."""
    cache = os.environ.get("XDG_CACHE_HOME")
    root = Path(cache) if cache else Path.home() / ".cache"
    return root / "shadow-verifier" / f"kafka-{KAFKA_VERSION}"


def jars_cached() -> bool:
    """Whether the cache holds every jar in its full size."""
    folder = jars_folder()
    try:
        sizes = json.loads((folder / _MARKER).read_text())
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def maven_reaches_kafka() -> bool:
    """Whether `mvn` can resolve Kafka's own description (a few kilobytes; some seconds)."""
    mvn = shutil.which("mvn")
    if mvn is None:
        return False
    with tempfile.TemporaryDirectory(prefix="shadow-verifier-mvn-") as work:
        get = ManagedProcess(
            "mvn dependency:get",
            [mvn, "-B", "-ntp", "-q", f"{_PLUGIN}:get", "-Dtransitive=false"]
            + [f"-Dartifact=org.apache.kafka:kafka_{SCALA_VERSION}:{KAFKA_VERSION}:pom"],
            cwd=Path(work),
            log_path=Path(work) / "mvn.log",
        )
        try:
            run_to_end(get, PROBE_TIMEOUT_S)
        except StackError:
            return False
    return True


def fetch_jars(timeout_s: float = FETCH_TIMEOUT_S) -> Path:
    """The folder with Kafka's jars, fetched first when the cache has not got them whole.

    Raises StackError with the end of Maven's log when they cannot be had.
    """
    folder = jars_folder()
    if jars_cached():
        return folder
    mvn = shutil.which("mvn")
    if mvn is None:
        raise StackError(f"Kafka's jars are not in {folder} and there is no `mvn` to fetch them. {_HINT}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(folder.parent / f"{folder.name}.lock"):
        if not jars_cached():
            _fetch_into(folder, mvn, timeout_s)
    return folder


def _fetch_into(folder: Path, mvn: str, timeout_s: float) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.part-", dir=folder.parent) as part:
        work = Path(part)
        (work / "pom.xml").write_text(_POM)
        fresh = work / "jars"
        copy = ManagedProcess(
            "mvn (fetching Kafka's jars)",
            [mvn, "-B", "-ntp", f"{_PLUGIN}:copy-dependencies", "-DincludeScope=runtime"]
            + [f"-DoutputDirectory={fresh}"],
            cwd=work,
            log_path=work / "mvn.log",
            hint=_HINT,
        )
        run_to_end(copy, timeout_s)
        sizes = {jar.name: jar.stat().st_size for jar in sorted(fresh.glob("*.jar"))}
        if f"kafka_{SCALA_VERSION}-{KAFKA_VERSION}.jar" not in sizes:
            raise copy.failed("ended well but did not bring Kafka's own jar")
        (fresh / _MARKER).write_text(json.dumps(sizes, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)


@contextmanager
def _only_one(lock_path: Path) -> Iterator[None]:
    """Hold the lock file: of several processes that want the jars, one fetches and the rest wait for it."""
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
