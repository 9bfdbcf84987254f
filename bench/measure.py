"""A program run and measured: CPU time of the whole process as the kernel counted it, wall time, peak memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.1
STOP_GRACE_S = 15.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class RunFailed(Exception):
    """A measured program ended badly or not in time; the message has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a program took, all of it, its start included: seconds and megabytes (10^6 bytes)."""

    user_s: float
    system_s: float
    wall_s: float
    peak_rss_mb: float

    @property
    def cpu_s(self) -> float:
        """User and system time."""
        return self.user_s + self.system_s


class Measured:
    """A started program. `cores` pins it. End it with `finish` or `stop`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        cores: Sequence[int] = (),
    ) -> None:
        pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores and shutil.which("taskset") else []
        self._command = [*pinned, *command]
        self._log_path = log_path
        self._peak_kb = 0
        self._began = time.monotonic()
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._usage: Usage | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet; notes its peak memory in passing."""
        if self._usage is not None:
            return False
        self._peak_kb = max(self._peak_kb, _status_kb(self.pid, "VmHWM"))
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return True
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._usage = Usage(
            user_s=usage.ru_utime,
            system_s=usage.ru_stime,
            wall_s=time.monotonic() - self._began,
            peak_rss_mb=self._peak_kb * 1024 / 1e6,
        )
        return False

    def cpu_s(self) -> float:
        """CPU time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def rss_mb(self) -> float:
        """Resident memory now."""
        return _status_kb(self.pid, "VmRSS") * 1024 / 1e6

    def wait_until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Poll the condition. Raises RunFailed when the program ends first, or time runs out."""
        give_up_at = time.monotonic() + within_s
        while not condition():
            if not self.running:
                raise self.failed(f"ended before {what}")
            if time.monotonic() > give_up_at:
                raise self.failed(f"not within {within_s:.0f} s: {what}")
            time.sleep(POLL_S)

    def finish(self, within_s: float) -> Usage:
        """Wait for its end. Raises RunFailed if it does not come, or with another status than 0."""
        self.wait_until(lambda: not self.running, within_s, "its end")
        assert self._usage is not None
        if self._process.returncode != 0:
            raise self.failed(f"ended with status {self._process.returncode}")
        return self._usage

    def stop(self) -> Usage:
        """Ask it to end, kill it if it does not; returns what it took."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            give_up_at = time.monotonic() + STOP_GRACE_S
            while self.running:
                if time.monotonic() > give_up_at:
                    self._process.kill()
                time.sleep(POLL_S)
        assert self._usage is not None
        return self._usage

    def failed(self, reason: str) -> RunFailed:
        """An error that says what was run and shows the end of its log."""
        end = self._log_path.read_text(errors="replace")[-3_000:]
        return RunFailed(f"{' '.join(self._command)}\n{reason}; its log ends:\n{end}")


def _status_kb(pid: int, name: str) -> int:
    """A size in /proc/PID/status, 0 once it has gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
