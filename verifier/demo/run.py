"""The demo: the whole system on this machine, from users to verdicts, with a true account of what was found.

Real NGINX in front of two sample systems with their own databases, real Kafka, Redis and PostgreSQL, two workers; the
verifier is the installed program, reached through its REST API like anyone else's.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml

from verifier.demo import faults
from verifier.demo.database import prepare
from verifier.demo.findings import Findings, HttpReads, gather
from verifier.demo.legacy import ROUTE_TEMPLATES
from verifier.demo.plan import Plan
from verifier.demo.score import Score, score
from verifier.demo.scored import planted_sections
from verifier.demo.stack.nginx import EdgeParams, Nginx
from verifier.demo.stack.ports import LOOPBACK, free_port
from verifier.demo.stack.process import ManagedProcess, port_open, wait_until
from verifier.demo.stack.rsyslog import Rsyslog
from verifier.demo.stack.stack import LocalStack
from verifier.demo.traffic import Sent, TrafficError, traffic
from verifier.report import Background, Report, read_report

Say = Callable[[str], None]
WORKERS = 2
VERDICTS_WITHIN_S = 90.0
JOIN_TIMEOUT_S = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a run does. `faults` False makes both sides the same in all that counts: an A/A run."""

    requests: int = 5000
    rate_per_s: float = 200.0
    seed: int = 7
    faults: bool = True
    data_dir: Path | None = None


@dataclass(slots=True, kw_only=True)
class Running:
    """The system while it runs: where to look at it."""

    edge_url: str
    api_urls: list[str]
    main_url: str
    shadow_url: str
    dsn: str
    kafka: str
    redis: str
    data_dir: Path
    processes: list[ManagedProcess] = field(default_factory=list)

    def places(self) -> list[tuple[str, str]]:
        """(what, where) for people."""
        return [
            ("dashboard", f"{self.api_urls[0]}/"),
            ("summary", f"{self.api_urls[0]}/v1/summary"),
            ("fields", f"{self.api_urls[0]}/v1/fields"),
            ("divergences", f"{self.api_urls[0]}/v1/divergences"),
            ("metrics", f"{self.api_urls[1]}/metrics"),
            ("the edge, for requests of your own", self.edge_url),
            ("Kafka", self.kafka),
            ("PostgreSQL", self.dsn),
            ("Redis", self.redis),
            ("logs and data", str(self.data_dir)),
        ]


@contextmanager
def running_system(options: DemoOptions, say: Say) -> Iterator[Running]:
    """Start everything, and stop everything at the end, whatever happens."""
    with ExitStack() as stack:
        if options.data_dir is None:
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="verifier-demo-")))
        else:
            data_dir = options.data_dir
            data_dir.mkdir(parents=True, exist_ok=True)
        say("starting Kafka, Redis and PostgreSQL")
        servers = stack.enter_context(LocalStack(data_dir / "servers", on_progress=say))
        dsns = {
            name: servers.postgres.create_database(name)
            for name in ("market_intel", "market_intel_shadow", "verifier")
        }
        say("seeding the two systems' databases")
        asyncio.run(_prepare(dsns))
        environment = _environment(servers, dsns["verifier"], data_dir)
        _init(environment, data_dir)
        running = Running(
            edge_url="",
            api_urls=[],
            main_url="",
            shadow_url="",
            dsn=dsns["verifier"],
            kafka=servers.kafka.bootstrap,
            redis=servers.redis.url(1),
            data_dir=data_dir,
        )
        say("starting two workers, the legacy API and its successor, NGINX and rsyslog")
        started = [*_workers(environment, data_dir, running), *_backends(dsns, options, data_dir, running)]
        for process in started:
            stack.enter_context(process)
        for process in started:
            process.wait_ready()
        running.processes += started
        params = EdgeParams(
            main=running.main_url,
            shadow=running.shadow_url,
            shadow_rate_per_s=10_000,
            shadow_burst=10_000,
        )
        edge = stack.enter_context(Nginx(data_dir / "edge", params))
        running.edge_url = edge.url
        stack.enter_context(
            Rsyslog(data_dir / "rsyslog", edge.log_path, servers.kafka.bootstrap, "edge.requests")
        )
        yield running
        say("stopping")


async def _prepare(dsns: dict[str, str]) -> None:
    await asyncio.gather(prepare(dsns["market_intel"]), prepare(dsns["market_intel_shadow"]))


def _environment(servers: LocalStack, dsn: str, data_dir: Path) -> dict[str, str]:
    config = data_dir / "verifier.yaml"
    config.write_text(yaml.safe_dump({"rules": faults.demo_rules(), "routes": list(ROUTE_TEMPLATES)}))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VERIFIER_")}
    return {
        **inherited,
        "VERIFIER_CONFIG": str(config),
        "VERIFIER_KAFKA": servers.kafka.bootstrap,
        "VERIFIER_REDIS": servers.redis.url(1),
        "VERIFIER_POSTGRES": dsn,
        "VERIFIER_HTTP_HOST": LOOPBACK,
        "VERIFIER_JOIN_TIMEOUT_S": str(JOIN_TIMEOUT_S),
        "VERIFIER_DATA_DIR": str(data_dir / "worker"),
    }


def program(*arguments: str) -> list[str]:
    """The command line of the installed `verifier`."""
    return [sys.executable, "-m", "verifier", *arguments]


def _init(environment: dict[str, str], data_dir: Path) -> None:
    process = ManagedProcess(
        "verifier init", program("init"), log_path=data_dir / "init.log", env=environment
    )
    process.start()
    wait_until(lambda: not process.running, 60.0, "verifier init to finish")
    process.stop()


def _workers(environment: dict[str, str], data_dir: Path, running: Running) -> Iterator[ManagedProcess]:
    for number in range(1, WORKERS + 1):
        port = free_port()
        url = f"http://{LOOPBACK}:{port}"
        running.api_urls.append(url)
        yield ManagedProcess(
            f"worker {number}",
            program("worker"),
            log_path=data_dir / f"worker-{number}.log",
            env={**environment, "VERIFIER_HTTP_PORT": str(port)},
            ready=lambda url=url: _is_ready(url),  # type: ignore[misc]
            ready_timeout_s=60.0,
        )


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def _backends(
    dsns: dict[str, str], options: DemoOptions, data_dir: Path, running: Running
) -> Iterator[ManagedProcess]:
    target = ["--kafka", running.kafka]
    running.main_url, legacy = backend("legacy", dsns["market_intel"], target, options, data_dir)
    yield legacy
    running.shadow_url, successor = backend(
        "successor", dsns["market_intel_shadow"], target, options, data_dir
    )
    yield successor


def backend(
    name: str, dsn: str, target: Sequence[str], options: DemoOptions, data_dir: Path
) -> tuple[str, ManagedProcess]:
    """One of the two sample systems over its seeded database: its address, and the process to be started."""
    port = free_port()
    faulty = ["--faults", "on" if options.faults else "off", "--seed", str(options.seed)]
    command = [sys.executable, "-m", f"verifier.demo.{name}", "--port", str(port), "--dsn", dsn]
    process = ManagedProcess(
        f"{name} API",
        [*command, "--prepared", "--responses", "edge", *target, *(faulty if name == "successor" else [])],
        log_path=data_dir / f"{name}.log",
        env=dict(os.environ),
        ready=lambda: port_open(port),
        ready_timeout_s=30.0,
    )
    return f"{LOOPBACK}:{port}", process


async def send_through(
    edge_url: str, shadow_address: str, options: DemoOptions, progress: Callable[[int], None]
) -> list[Sent]:
    """Send the users' requests and check that each was served by the legacy system. Raises `TrafficError`."""
    sent: list[Sent] = []
    async for one in traffic(
        edge_url,
        Plan(options.seed),
        count=options.requests,
        rate_per_s=options.rate_per_s,
        in_flight_max=16,
        shadow_url=f"http://{shadow_address}",
    ):
        sent.append(one)
        progress(len(sent))
    failed = [one for one in sent if not one.served]
    if failed:
        raise TrafficError(failed)
    return sent


async def wait_for_verdicts(running: Running, expected: int, progress: Callable[[int], None]) -> bool:
    """Wait until every request has its verdict and nothing is pending; False when that takes too long."""
    deadline = time.monotonic() + VERDICTS_WITHIN_S
    async with httpx.AsyncClient(base_url=running.api_urls[0], timeout=10.0) as client:
        while time.monotonic() < deadline:
            response = await client.get("/v1/summary")
            if response.status_code == 200:
                summary = response.json()
                progress(summary["requests"]["total"])
                if (
                    summary["requests"]["total"] >= expected
                    and summary["pending"] == 0
                    and summary["lag"] == 0
                ):
                    return True
            await asyncio.sleep(0.5)
    return False


async def look(running: Running, options: DemoOptions) -> tuple[Report, Score]:
    """Read all that the verifier says, over its REST API, and hold it against what was planted."""
    async with httpx.AsyncClient(base_url=running.api_urls[1], timeout=30.0) as client:
        reads = HttpReads(client)
        found = await gather(reads, latency_faults(options))
        scored = score_of(options, found)
        background = Background(
            unverified=found.unverified(),
            conflict_kinds=found.conflict_kinds(),
            sections=planted_sections(scored, faults=options.faults),
        )
        return await read_report(reads, {}, background), scored


def latency_faults(options: DemoOptions) -> list[str]:
    """The requests whose planted fault shows in latency alone: they have to be looked at one by one."""
    if not options.faults:
        return []
    truth = Plan(options.seed).truth(options.requests)
    return [row["request_id"] for row in truth if "latency_s" in row["expect"]]


def score_of(options: DemoOptions, found: Findings) -> Score:
    """Hold what was found against what was planted."""
    truth = Plan(options.seed).truth(options.requests) if options.faults else []
    return score(truth, found.verdicts, found.conflicts, latencies=found.latencies(truth))
