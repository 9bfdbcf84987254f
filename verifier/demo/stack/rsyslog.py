"""The shipper on this machine: rsyslog with the shipped configuration, from the edge's log file to Kafka."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.nginx import MAIN_RESPONSES_LOG, SHADOW_RESPONSES_LOG, render, shipped_file
from verifier.demo.stack.process import ManagedProcess

START_TIMEOUT_S = 15.0
STOP_GRACE_S = 30.0  # while Kafka is away: its own time-outs add up to some 21 s, and a kill would lose lines

_BOOTSTRAP = re.compile(r"[A-Za-z0-9._\[\]:-]+:[0-9]{1,5}(?:,[A-Za-z0-9._\[\]:-]+:[0-9]{1,5})*")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Rsyslog:
    """Ships each line of `log_path` to `topic` (its full name, with any prefix) of the Kafka at `bootstrap`.

    The response records that the edge writes beside it go to the topics of responses.
    Its place in the file, what it held at a stop and its own log (`error_log_path`) are under `data_dir` and
    outlast a stop: the next start goes on where this one ended. While Kafka is away the lines wait in the log
    file. It opens no system socket. A context manager: started and stopped. Raises StackError when a
    parameter is wrong or rsyslog cannot be run.
    """

    def __init__(
        self,
        data_dir: Path,
        log_path: Path,
        bootstrap: str,
        topic: str,
        *,
        main_responses_topic: str = "main.responses",
        shadow_responses_topic: str = "shadow.responses",
    ) -> None:
        for name, value, form in (
            ("bootstrap", bootstrap, _BOOTSTRAP),
            ("topic", topic, _TOPIC),
            ("main_responses_topic", main_responses_topic, _TOPIC),
            ("shadow_responses_topic", shadow_responses_topic, _TOPIC),
        ):
            if not form.fullmatch(value):
                raise StackError(f"{name} cannot be {value!r}: rsyslog would misread it")
        self.data_dir = data_dir.resolve()
        self.log_path = log_path.resolve()
        self.work_dir = self.data_dir / "work"
        self.config_path = self.data_dir / "rsyslog.conf"
        self.error_log_path = self.data_dir / "rsyslog.log"
        self._pid_path = self.data_dir / "rsyslog.pid"
        self._values = {
            "SHIP_WORK_DIR": str(self.work_dir),
            "SHIP_ERROR_LOG": str(self.error_log_path),
            "SHIP_LOG_PATH": str(self.log_path),
            "SHIP_KAFKA": bootstrap,
            "SHIP_TOPIC": topic,
            "SHIP_MAIN_RESPONSES_LOG_PATH": str(self.log_path.with_name(MAIN_RESPONSES_LOG)),
            "SHIP_MAIN_RESPONSES_TOPIC": main_responses_topic,
            "SHIP_SHADOW_RESPONSES_LOG_PATH": str(self.log_path.with_name(SHADOW_RESPONSES_LOG)),
            "SHIP_SHADOW_RESPONSES_TOPIC": shadow_responses_topic,
        }
        self._process: ManagedProcess | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.running

    def start(self) -> Self:
        """Render, start, and wait until rsyslog has read its configuration."""
        program = shutil.which("rsyslogd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise StackError("rsyslogd is not installed: apt-get install rsyslog rsyslog-kafka")
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self._pid_path.unlink(missing_ok=True)
        self.config_path.write_text(render(shipped_file("rsyslog.conf.template").read_text(), self._values))
        process = ManagedProcess(
            "rsyslog",
            [program, "-n", "-f", str(self.config_path), "-i", str(self._pid_path)],
            log_path=self.data_dir / "rsyslog.out",
            ready=self._pid_path.exists,
            ready_timeout_s=START_TIMEOUT_S,
            hint=f"Look at {self.error_log_path}; Debian's packages are rsyslog and rsyslog-kafka.",
        )
        self._process = process.start()
        process.wait_ready()
        return self

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Flush to Kafka, or to disk if Kafka does not answer, and end."""
        if self._process is not None:
            self._process.stop(grace_s)
            self._process = None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
