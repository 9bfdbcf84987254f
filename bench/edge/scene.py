"""The scene of the bench: backends that cost little, a shadow that hangs, and the edges to be compared."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from verifier.demo.stack.nginx import EdgeParams, Nginx
from verifier.demo.stack.ports import LOOPBACK, free_port
from verifier.demo.stack.process import ManagedProcess, port_open, wait_until

BODY = '{"items":[' + ",".join(f'{{"id":{n},"name":"item {n}","price":{n}.50}}' for n in range(24)) + "]}"
SCENARIOS = {
    "plain": "plain proxy",
    "mirror": "mirror",
    "mirror_hung": "mirror, shadow hung",
    "capture": "mirror, bodies captured",
    "capture_hung": "mirror, bodies captured, shadow hung",
}
COPIES_PER_S = 1_000_000  # no copy is shed for its rate: the full price of the mirror is to be seen
_FRAME = """user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  access_log off;
  keepalive_requests 1000000;
  {servers}
}}
"""
_BACKEND = """server {{
    listen {address} backlog=4096;
    location / {{ default_type application/json; return 200 '{body}'; }}
  }}"""
_PLAIN = """upstream main {{ server {main}; keepalive 64; }}
  log_format line escape=json '{{"ts":$msec,"method":"$request_method","uri":"$request_uri","status":$status,'
    '"upstream_time_s":"$upstream_response_time","side":"main"}}';
  server {{
    listen {address} backlog=4096;
    keepalive_requests 1000;
    location / {{
      access_log {folder}/edge.log.json line;
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_pass http://main$request_uri;
    }}
  }}"""


class HungShadow:
    """Accepts connections and requests and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, free_port()), backlog=4096)
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.address = f"{LOOPBACK}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for each in self._accepted:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._accepted.append(connection)
            if len(self._accepted) > 4000:  # the edge has given the oldest up long ago
                self._accepted.pop(0).close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A running NGINX: where it listens, its worker, and its log."""

    name: str
    address: str
    worker: int
    log_path: Path

    def cpu_s(self) -> float:
        """User and system time of its worker so far."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def scene(folder: Path, *, copies_per_s: int = COPIES_PER_S) -> Iterator[dict[str, Contestant]]:
    """Every scenario's NGINX, each of one worker, over the same backends."""
    with ExitStack() as stack:
        main, shadow = (f"{LOOPBACK}:{free_port()}" for _ in range(2))
        servers = "\n  ".join(_BACKEND.format(address=address, body=BODY) for address in (main, shadow))
        stack.enter_context(_nginx("backends", folder / "backends", servers, main))
        hung = stack.enter_context(HungShadow())
        address = f"{LOOPBACK}:{free_port()}"
        plain_folder = folder / "plain"
        plain = _PLAIN.format(main=main, address=address, folder=plain_folder)
        process = stack.enter_context(_nginx("plain", plain_folder, plain, address))
        found = {"plain": _contestant("plain", address, process.pid, plain_folder / "edge.log.json")}
        for name in SCENARIOS:
            if name != "plain":
                params = EdgeParams(
                    main=main,
                    shadow=hung.address if name.endswith("hung") else shadow,
                    shadow_rate_per_s=copies_per_s,
                    shadow_burst=copies_per_s,
                    capture=name.startswith("capture"),
                )
                edge = stack.enter_context(Nginx(folder / name, params))
                found[name] = _contestant(name, params.listen, edge.pid, edge.log_path)
        yield found


def _contestant(name: str, address: str, master: int, log_path: Path) -> Contestant:
    children = Path(f"/proc/{master}/task/{master}/children")
    workers = wait_until(lambda: children.read_text().split(), 5.0, f"a worker of {name}")
    return Contestant(name=name, address=address, worker=int(workers[0]), log_path=log_path)


@contextmanager
def _nginx(name: str, folder: Path, servers: str, address: str) -> Iterator[ManagedProcess]:
    folder.mkdir(parents=True)
    user = "root" if os.geteuid() == 0 else "nobody"
    config = folder / "nginx.conf"
    config.write_text(_FRAME.format(user=user, folder=folder, servers=servers))
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    process = ManagedProcess(
        name,
        [*command, "-g", "daemon off;"],
        log_path=folder / "out.log",
        ready=lambda: port_open(int(address.rpartition(":")[2])),
        ready_timeout_s=10.0,
    )
    with process:
        process.wait_ready()
        yield process
