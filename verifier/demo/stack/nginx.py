"""The edge on this machine: the NGINX files that are shipped, rendered, run and reloaded."""

from __future__ import annotations

import http
import http.client
import os
import pwd
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.ports import LOOPBACK, free_port
from verifier.demo.stack.process import ManagedProcess, wait_until

NJS_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
CONNECTIONS_PER_COPY = 4  # edge to hop, hop to relay (both ends), relay to shadow
USERS_MIN = 1000  # connections, theirs and to main
SOCKET_PATH_BYTES_MAX = 107  # sun_path holds 108 with the closing zero

EDGE_LOG, MAIN_RESPONSES_LOG = "edge.log.json", "main.responses.json"
SHADOW_RESPONSES_LOG, ERROR_LOG = "shadow.responses.json", "error.log"

_PARAMETER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_SIZE = re.compile(r"[0-9]+[kKmMgG]?")
CAPTURE_BODY_BYTES_MAX = 131_072  # as base64 and with its headers, a body this long still fits into a line


def shipped_file(name: str) -> Path:
    """A file of `k8s/shadow-proxy`, from the installed package or a checkout. Raises StackError if absent."""
    here = Path(__file__).resolve()
    folders = (here.parent / "shadow-proxy", here.parents[3] / "k8s" / "shadow-proxy")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise StackError(f"{name} is in neither {folders[0]} nor {folders[1]}: run from a checkout or reinstall")


def render(template: str, values: Mapping[str, str]) -> str:
    """Put `values` in the place of each `${NAME}` of capitals; all else, NGINX's `$name` too, stays as it is.

    Raises StackError, naming all of them, for names of the template without a value, values that the template
    does not know, and values with a line break or a `$`, which would be read as configuration.
    """
    wanted = set(_PARAMETER.findall(template))
    faults = [f"{name} has no value" for name in sorted(wanted - values.keys())]
    faults += [f"{name} is not in the template" for name in sorted(values.keys() - wanted)]
    faults += [
        f"{name} holds a line break or a $" for name in sorted(values) if re.search(r"[\r\n$]", values[name])
    ]
    if faults:
        raise StackError("the template cannot be rendered: " + "; ".join(faults))
    return _PARAMETER.sub(lambda found: values[found[1]], template)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeParams:
    """What can be set about the edge. Addresses are `host:port`, rates requests a second, times seconds.

    The defaults are the migration's shadow phase: everything is mirrored, and the canary serves no one:
    `canary_weight_percent` is 0, and `canary_opt_in` is off, so that no header or cookie chooses it either.
    Raises StackError, naming every fault.
    """

    main: str
    shadow: str
    canary: str | None = None  # the shadow's address, when there is no other
    listen: str = field(default_factory=lambda: f"{LOOPBACK}:{free_port()}")
    shadow_target: str = "go-api"
    user_id_header: str = "X-User-ID"
    sample_percent: float = 100.0
    shadow_rate_per_s: int = 100
    shadow_burst: int = 200
    shadow_in_flight_max: int = 1000
    canary_serves: bool = True  # off: main serves everyone, whatever the next three say
    canary_weight_percent: float = 0.0
    canary_opt_in: bool = False
    canary_cookie: str = "market-intel-canary"
    canary_rate_per_s: int = 50
    canary_burst: int = 100
    connect_timeout_s: float = 1.0
    main_timeout_s: float = 60.0
    shadow_timeout_s: float = 10.0
    upstream_idle_s: float = 4.0
    body_size_max: str = "10m"
    workers: int = 1
    worker_connections: int = 16384
    http2: bool = False  # without TLS, which ends before the edge
    capture: bool = True
    capture_body_bytes_max: int = 65_536
    capture_redact: tuple[str, ...] = ()
    shadow_body_bytes_max: int = 8 * 1024 * 1024
    shadow_answer_s_max: float = 25.0

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be host:port, not {value!r}"
            for name, value in (
                ("main", self.main),
                ("shadow", self.shadow),
                ("canary", self.canary),
                ("listen", self.listen),
            )
            if value is not None and not _ADDRESS.fullmatch(value)
        ]
        faults += [
            f"{name} must be letters, digits and hyphens, not {value!r}"
            for name, value in (
                ("shadow_target", self.shadow_target),
                ("user_id_header", self.user_id_header),
                ("canary_cookie", self.canary_cookie),
                *(("capture_redact", name) for name in self.capture_redact),
            )
            if not _HEADER.fullmatch(value)
        ]
        faults += [
            f"{name} must be from 0 to 100, not {value}"
            for name, value in (
                ("sample_percent", self.sample_percent),
                ("canary_weight_percent", self.canary_weight_percent),
            )
            if not 0 <= value <= 100
        ]
        faults += [
            f"{name} must be more than 0, not {value}"
            for name, value in self._positive().items()
            if value <= 0
        ]
        if self.worker_connections < (least := CONNECTIONS_PER_COPY * self.shadow_in_flight_max + USERS_MIN):
            faults.append(
                f"worker_connections must be at least {least}, so that a hung shadow leaves users room"
            )
        if self.capture_body_bytes_max > CAPTURE_BODY_BYTES_MAX:
            faults.append(
                f"capture_body_bytes_max must be at most {CAPTURE_BODY_BYTES_MAX},"
                f" not {self.capture_body_bytes_max}"
            )
        if not _SIZE.fullmatch(self.body_size_max):
            faults.append(f"body_size_max must be a size such as 10m, not {self.body_size_max!r}")
        if faults:
            raise StackError("the edge's parameters are wrong: " + "; ".join(faults))

    def _positive(self) -> dict[str, float]:
        return {
            "shadow_rate_per_s": self.shadow_rate_per_s,
            "shadow_burst": self.shadow_burst,
            "shadow_in_flight_max": self.shadow_in_flight_max,
            "canary_rate_per_s": self.canary_rate_per_s,
            "canary_burst": self.canary_burst,
            "connect_timeout_s": self.connect_timeout_s,
            "main_timeout_s": self.main_timeout_s,
            "shadow_timeout_s": self.shadow_timeout_s,
            "upstream_idle_s": self.upstream_idle_s,
            "workers": self.workers,
            "worker_connections": self.worker_connections,
            "capture_body_bytes_max": self.capture_body_bytes_max,
            "shadow_body_bytes_max": self.shadow_body_bytes_max,
            "shadow_answer_s_max": self.shadow_answer_s_max,
        }

    def values(self, *, run_dir: Path, log_dir: Path) -> dict[str, str]:
        """The template's values, as they are listed in k8s/shadow-proxy/README.md."""
        account = (
            pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() == 0 else "nobody"
        )  # only root's workers change it
        files_max = min(4 * self.worker_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        return {
            "EDGE_NJS_MODULE": str(NJS_MODULE),
            "EDGE_JS_DIR": str(shipped_file("edge.js").parent),
            "EDGE_RUN_DIR": str(run_dir),
            "EDGE_ACCESS_LOG": str(log_dir / EDGE_LOG),
            "EDGE_MAIN_RESPONSES_LOG": str(log_dir / MAIN_RESPONSES_LOG),
            "EDGE_SHADOW_RESPONSES_LOG": str(log_dir / SHADOW_RESPONSES_LOG),
            "EDGE_ERROR_LOG": str(log_dir / ERROR_LOG),
            "EDGE_USER": account,
            "EDGE_WORKERS": str(self.workers),
            "EDGE_WORKER_CONNECTIONS": str(self.worker_connections),
            "EDGE_FILES_MAX": str(files_max),
            "EDGE_LISTEN": f"{self.listen} http2" if self.http2 else self.listen,
            "EDGE_MAIN_ADDR": self.main,
            "EDGE_SHADOW_ADDR": self.shadow,
            "EDGE_CANARY_ADDR": self.canary or self.shadow,
            "EDGE_SHADOW_TARGET": self.shadow_target,
            "EDGE_USER_ID_HEADER": self.user_id_header.lower().replace("-", "_"),
            "EDGE_SAMPLE_SPLIT": _split(self.sample_percent, "1"),
            "EDGE_SHADOW_RATE": str(self.shadow_rate_per_s),
            "EDGE_SHADOW_BURST": str(self.shadow_burst),
            "EDGE_SHADOW_IN_FLIGHT_MAX": str(self.shadow_in_flight_max),
            "EDGE_CANARY": "on" if self.canary_serves else "off",
            "EDGE_CANARY_WEIGHT": f"{self.canary_weight_percent:g}",
            "EDGE_CANARY_SPLIT": _split(self.canary_weight_percent, "canary"),
            "EDGE_CANARY_OPT_IN": "on" if self.canary_opt_in else "off",
            "EDGE_CANARY_COOKIE": self.canary_cookie,
            "EDGE_CANARY_RATE": str(self.canary_rate_per_s),
            "EDGE_CANARY_BURST": str(self.canary_burst),
            "EDGE_CONNECT_TIMEOUT": _milliseconds(self.connect_timeout_s),
            "EDGE_MAIN_TIMEOUT": _milliseconds(self.main_timeout_s),
            "EDGE_SHADOW_TIMEOUT": _milliseconds(self.shadow_timeout_s),
            "EDGE_UPSTREAM_IDLE": _milliseconds(self.upstream_idle_s),
            "EDGE_BODY_SIZE_MAX": self.body_size_max,
            "EDGE_CAPTURE": "on" if self.capture else "off",
            "EDGE_CAPTURE_BODY_MAX": str(self.capture_body_bytes_max),
            "EDGE_CAPTURE_REDACT": ",".join(self.capture_redact),
            "EDGE_SHADOW_BODY_MAX": str(self.shadow_body_bytes_max),
            "EDGE_SHADOW_ANSWER_S_MAX": f"{self.shadow_answer_s_max:g}",
        }


def _split(percent: float, name: str) -> str:
    """A line of split_clients, which knows two decimals and refuses 0 %: then there is no line."""
    return f"{percent:.2f}% {name};" if round(percent, 2) > 0 else ""


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _shutting_down(worker: int) -> bool:
    try:
        return b"shutting down" in Path(f"/proc/{worker}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True


class Nginx:
    """The edge as a child process, its files under `data_dir`. A context manager: started, ready, stopped.

    `log_path` is the JSON access log, `main_responses_path` and `shadow_responses_path` the captured responses. Raises
    StackError as ManagedProcess does.
    """

    def __init__(self, data_dir: Path, params: EdgeParams) -> None:
        self.data_dir = data_dir.resolve()
        self.params = params
        self.run_dir = self.data_dir / "run"
        self.log_path = self.data_dir / EDGE_LOG
        self.main_responses_path = self.data_dir / MAIN_RESPONSES_LOG
        self.shadow_responses_path = self.data_dir / SHADOW_RESPONSES_LOG
        self.error_log_path = self.data_dir / ERROR_LOG
        self.config_path = self.data_dir / "nginx.conf"
        self._process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        """Where users reach the edge, without a closing slash."""
        return f"http://{self.params.listen}"

    @property
    def pid(self) -> int:
        """The master process. Raises StackError when it was never started."""
        if self._process is None:
            raise StackError("nginx does not run: start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the master process lives."""
        return self._process is not None and self._process.running

    def start(self) -> Self:
        """Render, start, and wait until /healthz answers."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for name in ("hop.sock", "relay.sock"):
            path = self.run_dir / name
            if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
                raise StackError(f"{path} is too long for a socket: give the edge a shorter data_dir")
            path.unlink(missing_ok=True)  # a killed NGINX leaves it, and the next could not bind
        self._write_config(self.params)
        process = ManagedProcess(
            "nginx",
            [*self._command(), "-g", "daemon off;"],
            log_path=self.data_dir / "nginx.out",
            ready=self._healthy,
            ready_timeout_s=15.0,
            stop_signal=signal.SIGQUIT,  # requests under way are finished, and their lines written
            hint=f"Look at {self.error_log_path}; Debian's packages are nginx and libnginx-mod-http-js.",
        )
        self._process = process.start()
        process.wait_ready()
        return self

    def stop(self, grace_s: float | None = None) -> None:
        """Finish what is under way, for at most `grace_s` seconds, and end.

        By default as long as the shadow may take; what is still under way then loses its lines.
        """
        if self._process is not None:
            self._process.stop(self.params.shadow_timeout_s + 2.0 if grace_s is None else grace_s)
            self._process = None

    def reload(self, params: EdgeParams | None = None) -> None:
        """Take up new parameters without losing a request; returns once new workers alone take connections.

        Raises StackError, and leaves the running edge as it was, when NGINX refuses the configuration, or
        when `listen` would change.
        """
        if self._process is None or not self._process.running:
            raise StackError("nginx does not run: start it before reload")
        if params is not None and params.listen != self.params.listen:
            raise StackError("reload cannot move the edge to another address: keep `listen`")
        before = self._workers()
        kept = self.config_path.read_text()
        self._write_config(params or self.params)
        tested = subprocess.run(
            [*self._command(), "-t"], capture_output=True, text=True, timeout=30, check=False
        )
        if tested.returncode != 0:
            self.config_path.write_text(kept)
            raise StackError(f"nginx refuses the configuration:\n{tested.stderr}")
        self.params = params or self.params
        self._signal(signal.SIGHUP)
        wait_until(lambda: self._replaced(before), 15.0, "nginx to replace its workers")

    def reopen_log(self) -> None:
        """Write to a new file at `log_path`, after the old one was moved away."""
        self._signal(signal.SIGUSR1)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_config(self, params: EdgeParams) -> None:
        values = params.values(run_dir=self.run_dir, log_dir=self.data_dir)
        self.config_path.write_text(render(shipped_file("nginx.conf.template").read_text(), values))

    def _command(self) -> list[str]:
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise StackError("nginx is not installed: apt-get install nginx libnginx-mod-http-js")
        return [
            program,
            "-p",
            str(self.data_dir),
            "-e",
            str(self.error_log_path),
            "-c",
            str(self.config_path),
        ]

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(self.params.listen, timeout=1.0)
        try:
            if self.params.http2:  # without TLS such a port speaks nothing else: that it listens must do
                connection.connect()
                return True
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _workers(self) -> frozenset[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return frozenset(map(int, children.split()))

    def _replaced(self, before: frozenset[int]) -> bool:
        """Whether there are new workers, and each old one has ended or closed its listening sockets."""
        workers = self._workers()
        return bool(workers - before) and all(map(_shutting_down, workers & before)) and self._healthy()

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
