"""Runs one seed: draws a set-up and traffic, lets faults happen, then peace, and holds the result against the truth."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
import traceback
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from random import Random
from typing import Any

import structlog

from tests.simulation import verdicts
from tests.simulation.cluster import TOPICS, Cluster, Poisoned, task_factory
from tests.simulation.faults import Setup, draw_setup
from tests.simulation.invariants import Violated, Watch, must
from tests.simulation.links import Servers
from tests.simulation.oracle import compute
from tests.simulation.traffic import Produced, make_traffic
from tests.simulation.virtual_loop import Deadlock, Livelock, VirtualLoop
from verifier.core.errors import DependencyDown
from verifier.core.events import Source
from verifier.testing import MemoryTopics

_DEFECTS = frozenset(
    (
        "partition_failed",
        "partition_blocked",
        "topic_went_back",
        "tables_failed",
        "tables_blocked",
        "judge_failed",
        "decode_failed",
    )
    + ("resurfaced_not_judged_again", "entry_too_large")
)
"""What the product logs when it meets a mistake of its own."""

QUIET_S = 4
PEACE_S = 120.0
"""Virtual time within which everything must be resolved once nothing goes wrong any more."""


@dataclass(frozen=True)
class Result:
    """What came of a seed. `trace_hash` is equal for equal runs; `failure` is None when all is well."""

    seed: int
    setup: Setup
    failure: str | None
    trace_hash: str
    trace: list[str]
    virtual_s: float


def run_seed(seed: int, change: Callable[[Setup], Setup] | None = None) -> Result:
    """Run one seed from beginning to end. Never raises for what it finds: see `failure`."""
    rng = Random(seed)
    setup = draw_setup(rng)
    if change is not None:
        setup = change(setup)
    loop = VirtualLoop()
    simulation = _Simulation(rng, setup, loop)
    failure: str | None = None
    configured = structlog.get_config()
    structlog.configure(processors=[simulation.take_log], cache_logger_on_first_use=False)
    collecting = gc.isenabled()
    gc.disable()  # a run is small, and looking for cycles in all that is loaded costs a fifth of it
    try:
        loop.run_until_complete(simulation.run())
    except (Violated, Deadlock, Livelock) as found:
        failure = f"{type(found).__name__}: {found}"
    finally:
        structlog.configure(**configured)
        _close(loop)
        if collecting:
            gc.enable()
    text = "\n".join(simulation.servers.trace).encode()
    return Result(
        seed=seed,
        setup=setup,
        failure=failure,
        trace_hash=hashlib.blake2b(text, digest_size=16).hexdigest(),
        trace=simulation.servers.trace,
        virtual_s=loop.elapsed_s,
    )


def _close(loop: VirtualLoop) -> None:
    for _ in range(3):
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
    loop.close()


class _Simulation:
    def __init__(self, rng: Random, setup: Setup, loop: VirtualLoop) -> None:
        self._rng = rng
        self._setup = setup
        self._loop = loop
        loop.set_task_factory(task_factory)
        loop.set_exception_handler(self._unhandled)
        self.servers = Servers(rng, loop, MemoryTopics(setup.partitions))
        self._watch = Watch(setup, loop.time)
        self.servers.on_append = self._watch.journaled
        self._cluster = Cluster(setup, self.servers, self._watch)
        self._traffic = make_traffic(rng, setup)
        self._written: dict[str, Produced] = {}
        self._failed: BaseException | None = None

    # -- errors --------------------------------------------------------------------------------------------

    def take_log(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        """Look at what the product logs: a partition that fails for any reason but a server's absence is a defect."""
        if event["event"] in _DEFECTS:
            error = sys.exc_info()[1]
            if not isinstance(error, DependencyDown | Poisoned):
                self._failed = self._failed or error or Violated(f"{event}")
        raise structlog.DropEvent

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self._failed = self._failed or error

    def _check(self) -> None:
        for process in self._cluster.live():
            for task in process.background:
                if task.done() and not task.cancelled() and task.exception() is not None:
                    self._failed = self._failed or task.exception()
        if isinstance(self._failed, Violated):
            raise self._failed
        if self._failed is not None:
            place = traceback.extract_tb(self._failed.__traceback__)[-1]
            raise Violated(f"{type(self._failed).__name__}: {self._failed} at {place.name}:{place.lineno}")

    # -- the run -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Produce, disturb, calm down, compare."""
        setup, cluster = self._setup, self._cluster
        for _ in range(setup.processes):
            cluster.start_process()
        cluster.rebalance(zombies=False)
        helpers = [asyncio.create_task(cluster.commit_for_ever())]
        disturbing = asyncio.create_task(self._disturb())
        await self._produce()
        self._raise_from([*helpers])
        await disturbing
        await self._peace()
        self._raise_from(helpers)
        self._compare()

    def _raise_from(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def _produce(self) -> None:
        topics = self.servers.topics
        for record in self._traffic:
            delay_s = record.at_s - self._loop.time()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            self._check()
            if self._setup.faults.gaps and self._rng.random() < 0.05:
                topics.skip(record.source, record.partition, self._rng.randint(1, 3))
            partition, offset = topics.produce(record.source, record.value, partition=record.partition)
            self._watch.produced(record.source, partition, offset, record.truth)
            self._written[f"{TOPICS.sources[record.source]}/{partition}/{offset}"] = record

    async def _disturb(self) -> None:
        faults, rng = self._setup.faults, self._rng
        until_s = self._setup.produce_s + 15.0
        acts: list[Callable[[], None]] = []
        if faults.crash:
            acts.append(self._crash)
        if faults.rebalance:
            acts.append(self._rebalance)
        if faults.zombie:
            acts += [self._zombie, self._stop_one]
        if faults.outage:
            acts.append(self._outage)
        if faults.memory_loss:
            acts.append(self._lose_memory)
        if faults.slow:
            acts.append(self._slow_down)
        self.servers.lost_acks_share = 0.04 if faults.lost_acks else 0.0
        self.servers.crash_share = self._setup.crash_share
        self.servers.stop_share = rng.choice((0.05, 0.3)) if faults.zombie else 0.0
        while self._loop.time() < until_s:
            await asyncio.sleep(rng.expovariate(1 / 3.0))
            self._check()
            if acts:
                rng.choice(acts)()
            self._replace_dead()

    def _crash(self) -> None:
        mortal = [process for process in self._cluster.live() if process.mortal]
        if mortal:
            self._rng.choice(mortal).crash()

    def _replace_dead(self) -> None:
        cluster = self._cluster
        if any(not owner.alive for owner in cluster.owner.values()):
            if len(cluster.live()) < self._setup.processes:
                cluster.start_process()
            cluster.rebalance(zombies=False)

    def _rebalance(self) -> None:
        if self._rng.random() < 0.3 and len(self._cluster.live()) < 4:
            self._cluster.start_process()
        self._cluster.rebalance(zombies=False)

    def _zombie(self) -> None:
        self._cluster.rebalance(zombies=True)

    def _stop_one(self) -> None:
        going = [p for p in self._cluster.live() if not p.stopped]
        if len(going) < 2:
            self._cluster.start_process()
            return
        self._rng.choice(going).stop()

    def _outage(self) -> None:
        server = self._rng.choice(("kafka", "redis", "postgres"))
        self.servers.down.add(server)
        self.servers.note("world", f"{server} is away")
        self._loop.call_later(self._rng.uniform(0.2, 8.0), self.servers.down.discard, server)

    def _lose_memory(self) -> None:
        self.servers.note("world", "redis forgets")
        self.servers.claims.lose_memory()

    def _slow_down(self) -> None:
        """Hand over nothing of one source for a while."""
        self.servers.slow = self._rng.choice(list(Source))
        self.servers.note("world", f"{self.servers.slow.name} is slow")
        self._loop.call_later(self._rng.uniform(5.0, 20.0), self._speed_up)

    def _speed_up(self) -> None:
        self.servers.slow = None

    async def _peace(self) -> None:
        cluster = self._cluster
        self.servers.lost_acks_share = self.servers.crash_share = self.servers.stop_share = 0.0
        self.servers.down.clear()
        self._speed_up()
        for process in cluster.live():
            process.go_on()
        self._replace_dead()
        began_s = self._loop.time()
        quiet_for = 0
        while quiet_for < QUIET_S:
            await asyncio.sleep(1.0)
            self._check()
            self._replace_dead()
            quiet_for = quiet_for + 1 if cluster.quiet else 0
            must(
                self._loop.time() - began_s < PEACE_S,
                f"not everything is resolved {PEACE_S} s after the last fault",
            )

    def _compare(self) -> None:
        setup = self._setup
        answer = compute(
            self._traffic, ttl_s=setup.idempotency_ttl_s, conflict_timeout_s=setup.conflict_timeout_s
        )
        verdicts.compare(answer, setup, self.servers, self._watch, self._written)
