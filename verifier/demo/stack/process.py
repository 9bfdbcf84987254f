"""One child server: started, waited for, stopped, and never left behind.

Three things end a child. `stop()`, by whoever owns it; the atexit hook, when the owner forgot (Ctrl-C, an
exception); and the kernel's parent-death signal, when the owner died without a word (SIGKILL).

The parent-death signal is bound to the *thread* that forked, not to its process: a child forked by a worker
thread would be killed when that thread ends. So all children are forked by one daemon thread that lives as
long as the process does.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pwd
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Self, TypeVar

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.ports import LOOPBACK, free_port, port_open

__all__ = ["LOOPBACK", "ManagedProcess", "StackError", "free_port", "port_open", "run_to_end", "wait_until"]

T = TypeVar("T")
_Fork = Callable[[], subprocess.Popen[bytes]]

LOG_TAIL_BYTES_MAX = 65_536
POLL_INTERVAL_S = 0.02
_KILL_WAIT_S = 10.0
_GROUP_GONE_S = 2.0
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def wait_until(
    predicate: Callable[[], T], timeout_s: float, what: str, *, interval_s: float = POLL_INTERVAL_S
) -> T:
    """Poll `predicate` until it gives something truthy, and return that.

    Raises StackError naming `what` when `timeout_s` seconds have passed. What the predicate raises passes
    through.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise StackError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(interval_s)


class _Launcher:
    """The one thread that forks (see the module's comment)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[_Fork, Future[subprocess.Popen[bytes]]]]
        self._pid = 0

    def launch(self, job: _Fork) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._pid != os.getpid():  # first use, or the first since this process itself was forked
                self._pid = os.getpid()
                self._jobs = queue.SimpleQueue()
                threading.Thread(target=self._run, name="server-launcher", daemon=True).start()
        done: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, done))
        return done.result()

    def _run(self) -> None:
        while True:
            job, done = self._jobs.get()
            try:
                done.set_result(job())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who waits for it
                done.set_exception(error)


_launcher = _Launcher()
_started: dict[int, ManagedProcess] = {}  # by id(), in order of start


def _bind_to_parent(parent_pid: int, death_signal: int) -> Callable[[], None]:
    """What the child runs before exec: two system calls only, for it is a fork of a threaded process."""

    def bind() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent_pid:  # the parent died before the call above
            os._exit(1)

    return bind


class ManagedProcess:
    """One server as a child of this process, the leader of its own session and process group.

    `ready` is polled until it is true, for at most `ready_timeout_s` seconds. `user` (a name or uid) is whom
    the server runs as when this process is root; otherwise it must be None or ourselves. `stop_signal` asks
    the server to end in good order; `death_signal` reaches it when this process dies: SIGKILL suits a server
    of one process, the default SIGTERM one that has to end workers of its own. `hint` tells the reader of an
    error what to do.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log_path: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
        ready_timeout_s: float = 30.0,
        user: str | int | None = None,
        stop_signal: int = signal.SIGTERM,
        death_signal: int = signal.SIGTERM,
        hint: str = "",
    ) -> None:
        self.name = name
        self.argv = [os.fspath(part) for part in argv]
        self.log_path = log_path
        self.cwd = cwd
        self.env = dict(env) if env is not None else None
        self.ready = ready
        self.ready_timeout_s = ready_timeout_s
        self.user = user
        self.stop_signal = stop_signal
        self.death_signal = death_signal
        self.hint = hint
        self._lock = threading.RLock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0

    @property
    def pid(self) -> int:
        """The process id. Raises StackError when it was never started or has been stopped."""
        if self._popen is None:
            raise StackError(f"{self.name} is not started")
        return self._popen.pid

    def is_ours(self) -> bool:
        """Whether this very process started it: a forked copy of its owner must not end it."""
        return self._owner_pid == os.getpid()

    @property
    def running(self) -> bool:
        """Whether the process lives (a paused one does)."""
        popen = self._popen
        return popen is not None and not _exited(popen)

    def start(self) -> ManagedProcess:
        """Fork and exec, without waiting for the server. Raises StackError when the program cannot be run."""
        with self._lock:
            if self.running:
                raise StackError(f"{self.name} already runs with pid {self.pid}")
            self._reap()
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._popen = _launcher.launch(self._fork)
            except (OSError, subprocess.SubprocessError) as error:
                raise self.failed(f"cannot be run: {error}") from error
            self._owner_pid = os.getpid()
            _started[id(self)] = self
        return self

    def _fork(self) -> subprocess.Popen[bytes]:
        account = _account(self.user)
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self.argv,
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                # runs after setuid, which would clear the signal
                preexec_fn=_bind_to_parent(os.getpid(), self.death_signal),  # noqa: PLW1509
            )

    def wait_ready(self) -> ManagedProcess:
        """Wait until `ready` says so.

        Raises StackError when the process exits first, or takes too long (then it is ended).
        """
        deadline = time.monotonic() + self.ready_timeout_s
        while True:
            if not self.running:
                code = self._reap()
                raise self.failed(f"ended while starting, {_ending(code)}")
            if self.ready is None or self.ready():
                return self
            if time.monotonic() >= deadline:
                self.kill()
                raise self.failed(f"was not ready within {self.ready_timeout_s:g} s and was ended")
            time.sleep(POLL_INTERVAL_S)

    def stop(self, grace_s: float = 10.0) -> int | None:
        """Ask the server to end, wait `grace_s` seconds, then kill its whole group. Safe to repeat.

        Returns the exit status (negative: the signal's number), or None if it was not started.
        """
        with self._lock:
            popen = self._popen
            if popen is None:
                return None
            if not _exited(popen):
                self._signal_group(signal.SIGCONT)  # a paused process would not hear the next one
                with contextlib.suppress(ProcessLookupError):
                    os.kill(popen.pid, self.stop_signal)
                deadline = time.monotonic() + grace_s
                while not _exited(popen) and time.monotonic() < deadline:
                    time.sleep(POLL_INTERVAL_S)
            return self._reap()

    def kill(self) -> int | None:
        """End the whole process group at once with SIGKILL and reap it. Returns as `stop` does."""
        with self._lock:
            return self._reap()

    def pause(self) -> None:
        """Freeze the server and its workers (SIGSTOP); connections stay open and nothing answers."""
        self._require_running()
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._require_running()
        self._signal_group(signal.SIGCONT)

    def restart(self, grace_s: float = 10.0) -> ManagedProcess:
        """Stop (in good order), start with the same arguments, and wait until ready. Raises StackError."""
        with self._lock:
            self.stop(grace_s)
            return self.start().wait_ready()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the server's output ('' when there is none)."""
        try:
            with self.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - LOG_TAIL_BYTES_MAX))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def __enter__(self) -> Self:
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _require_running(self) -> None:
        if not self.running:
            raise self.failed("is not running")

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _reap(self) -> int | None:
        """Kill what is left of the group, then collect the leader: before that its id cannot be reused."""
        popen = self._popen
        if popen is None:
            return None
        if self.is_ours():
            self._signal_group(signal.SIGKILL)
        code = popen.wait(_KILL_WAIT_S)
        self._popen = None
        _started.pop(id(self), None)
        deadline = time.monotonic() + _GROUP_GONE_S
        while _group_lives(popen.pid) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)  # its workers die a moment later, and hold the port until then
        return code

    def failed(self, what: str) -> StackError:
        """The error that says `what` of this server, with its hint and the end of its log."""
        tail = self.log_tail()
        log = f"\nThe end of {self.log_path}:\n{tail}" if tail else f"\n{self.log_path} is empty."
        return StackError(f"{self.name} {what}." + (f" {self.hint}" if self.hint else "") + log)


def run_to_end(process: ManagedProcess, timeout_s: float) -> None:
    """Run a program that ends by itself. Raises StackError when it fails or exceeds `timeout_s` seconds."""
    process.start()
    try:
        wait_until(lambda: not process.running, timeout_s, f"{process.name} to end")
    except StackError as error:
        raise process.failed(str(error)) from error
    finally:
        code = process.kill()
    if code != 0:
        raise process.failed(f"ended {_ending(code)}")


def _exited(popen: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended, leaving it unreaped so that its id, and its group's, stay its own."""
    if popen.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _group_lives(group: int) -> bool:
    """Whether the process group has a member that is more than a zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, member_of = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(member_of) == group and state not in "ZX":
                return True
    return False


def _ending(code: int | None) -> str:
    if code is None:
        return "in an unknown way"
    return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"


def _account(user: str | int | None) -> pwd.struct_passwd | None:
    """The account to change to, None when that is who we are. Raises StackError for an unknown one."""
    if user is None:
        return None
    try:
        account = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError as error:
        raise StackError(f"no account {user!r} on this machine: create it or name another") from error
    return None if account.pw_uid == os.geteuid() else account


@atexit.register
def _stop_all() -> None:
    """End whatever its owner left running, last started first. A forked copy of this process owns nothing."""
    for process in reversed(list(_started.values())):
        if process.is_ours():
            process.stop(grace_s=5.0)
