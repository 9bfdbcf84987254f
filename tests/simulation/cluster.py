"""Simulated worker processes, the group's coordinator, and what goes wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from random import Random
from typing import Any, cast

from tests.simulation.faults import Setup
from tests.simulation.invariants import Watch, must
from tests.simulation.links import (
    IN_FLIGHT_S,
    ClaimsLink,
    JournalLink,
    PublisherLink,
    RecordsLink,
    Servers,
    StoreLink,
)
from tests.simulation.traffic import POISON, POISON_TO_THE_ENGINE, ROUTES
from tests.simulation.virtual_loop import VirtualLoop
from verifier.adapters.packing import LZ4
from verifier.core.engine import Engine, Slice
from verifier.core.events import Source
from verifier.core.join import JoinConfig
from verifier.core.policy import Policy
from verifier.core.routes import Router
from verifier.core.verdict import Judge, JudgeConfig
from verifier.core.watermark import Watermark
from verifier.stream.app import AppConfig
from verifier.stream.codec import Codec, CodecConfig
from verifier.stream.metrics_port import MetricsPort
from verifier.stream.outputs import Outputs, OutputTopics
from verifier.stream.partition import PartitionConfig, PartitionWorker, Ports
from verifier.stream.tables import TablesWriter
from verifier.stream.worker import Worker, WorkerConfig
from verifier.testing import TS

TOPICS = OutputTopics(
    sources=("edge.requests", "main.responses", "shadow.responses", "main.writes", "shadow.writes"),
    divergences="verifier.divergences",
    conflicts="verifier.conflicts",
    rejected="verifier.rejected",
)
_SOURCES = tuple(Source)
_POISON = f'"{POISON}"'.encode()
_OWNER: ContextVar[Process] = ContextVar("process")
_JUDGE = Judge(Policy.default(), Router(ROUTES, routes_max=100), JudgeConfig())


class NoMetrics:
    """Counts nothing: the simulator looks at the journal, the topics and the tables."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_kwargs: None


class Poisoned(Exception):
    """The mistake of `FailingCodec` and `FailingEngine`."""


class FailingCodec(Codec):
    """The real one with a mistake: a few records make it fail, and whatever is decoded with them."""

    def decode(self, source: Source, partition: int, records: Sequence[Any], known: Any = ()) -> Any:
        if any(_POISON in (record.value or b"") for record in records):
            raise Poisoned
        return super().decode(source, partition, records, known)


class FailingEngine(Engine):
    """The real one with a mistake: a few events make it fail, when half of what they do is done."""

    def feed(self, batch: Slice, now: float, *, ceiling: float = float("inf")) -> None:
        super().feed(batch, now, ceiling=ceiling)
        self._fail_of(batch)

    def refeed(self, batch: Slice) -> None:
        super().refeed(batch)
        self._fail_of(batch)

    def _fail_of(self, batch: Slice) -> None:
        if any(seen.event.request_id.startswith(POISON_TO_THE_ENGINE) for seen in batch.seen):
            raise Poisoned


class VirtualTime:
    """The clock of a process: that of the loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return TS + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, duration_s: float) -> None:
        await self._loop.after(duration_s)


class Process:
    """A worker process: the real Worker, TablesWriter and PartitionWorkers over links that fail."""

    def __init__(
        self, name: str, setup: Setup, servers: Servers, watch: Watch, lost: Callable[[], None]
    ) -> None:
        self.name = name
        self._lost = lost
        self.alive = True
        self.told: set[int] = set()
        self.immortal_until_s = 0.0
        self._setup = setup
        self._servers = servers
        self._watch = watch
        self._tasks: set[asyncio.Task[Any]] = set()
        self._going = asyncio.Event()
        self._going.set()
        self.stopped = False
        self._positions: dict[tuple[Source, int], int] = {}
        self._membership = asyncio.Lock()
        self._lives = 0
        self.background: list[asyncio.Task[None]] = []
        latency_s = setup.latency_s
        self._clock = VirtualTime(servers.loop)
        journal = JournalLink(self, servers, latency_s)
        self._records = RecordsLink(self, servers, latency_s)
        self.tables = TablesWriter(
            cast(Any, StoreLink(self, servers, latency_s)),
            journal,
            self._clock,
            queue_max=setup.tables_queue_max,
        )
        self._ports = Ports(
            journal=journal,
            records=self._records,
            publisher=PublisherLink(self, servers, latency_s),
            claims=ClaimsLink(self, servers, latency_s),
            tables=self.tables,
            clock=self._clock,
        )
        app = AppConfig(
            group="g", brokers=(), sources=TOPICS.sources, partitions=setup.partitions, data_dir=""
        )
        self.worker = Worker(
            WorkerConfig(app=app, ends_every_s=setup.ends_every_s),
            make_partition=lambda partition, _fold: self._make_partition(partition),
            tables=self.tables,
            records=self._records,
            clock=self._clock,
        )

    def start(self) -> None:
        """Start what a worker runs beside its partitions."""
        work = (self.tables.run(), self.worker._poll_ends(), self._consume())
        self.background = [self.spawn(each) for each in work]

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a part of this process: it and all that it starts die with it."""
        token = _OWNER.set(self)
        try:
            return asyncio.create_task(work)
        finally:
            _OWNER.reset(token)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Note a task that this process has started."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what goes wrong -----------------------------------------------------------------------------------

    async def going(self) -> None:
        """Wait while the process is stopped."""
        while self.stopped:
            await self._going.wait()

    def stop(self) -> None:
        """Stop the process as SIGSTOP does, for longer than its session: others take over, then it goes on."""
        if self.stopped or not self.alive:
            return
        self._going.clear()
        self.stopped = True
        self.spare_for(float("inf"))
        self._servers.note(self.name, "stopped")
        loop, rng = self._servers.loop, self._servers.rng
        loop.call_later(1.0, self._lost)
        loop.call_later(rng.uniform(3.0, 9.0), self.go_on)

    def go_on(self) -> None:
        """Let it go on as if nothing had been: what it does takes effect again."""
        if self.stopped:
            self._going.set()
            self.stopped = False
            self.immortal_until_s = 0.0
            self.spare_for(5.0)
            self._servers.note(self.name, "goes on")

    def maybe_crash(self) -> None:
        """Crash here in some runs; a call of a dead process takes no effect."""
        servers = self._servers
        if servers.crash_share and self.mortal and servers.rng.random() < servers.crash_share:
            self.crash()
        if not self.alive:
            raise asyncio.CancelledError

    def spare_for(self, duration_s: float) -> None:
        """Let it live that long: who has just been a zombie has to mend what it published late."""
        self.immortal_until_s = max(self.immortal_until_s, self._servers.loop.time() + duration_s)

    @property
    def mortal(self) -> bool:
        """Whether it may crash now."""
        return self.alive and self._servers.loop.time() >= self.immortal_until_s

    def crash(self) -> None:
        """Die as by SIGKILL."""
        self.alive = False
        self._servers.note(self.name, "dies")
        current = asyncio.current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()

    # -- membership ----------------------------------------------------------------------------------------

    async def learn(self, partitions: set[int], committed: dict[tuple[Source, int], int]) -> None:
        """Be told by the coordinator which partitions are ours now."""
        async with self._membership:
            fresh = partitions - self.told
            self.told = set(partitions)
            for partition in sorted(fresh):
                for source in _SOURCES:
                    self._positions[source, partition] = committed.get((source, partition), 0)
            await self.worker._assigned(set(partitions))

    async def _consume(self) -> None:
        """Deliver fetch batches as the application does, one at a time."""
        servers, rng, after = self._servers, self._servers.rng, self._servers.loop.after
        while True:
            await after(rng.expovariate(1 / 0.08))
            if self.stopped:
                await self.going()
            if "kafka" in servers.down:
                continue
            places = [(s, p) for p in sorted(self.told) for s in _SOURCES if s is not servers.slow]
            rng.shuffle(places)
            for place in places:
                if servers.topics._ends[place] <= self._positions[place]:
                    continue
                source, partition = place
                if (
                    not self.worker._wanted(source, partition) and rng.random() < 0.8
                ):  # else it was on its way
                    continue
                records = servers.topics.records(source, partition, self._positions[place])
                if records:
                    taken = records[: rng.randint(1, 12)]
                    self._positions[source, partition] = taken[-1].offset + 1
                    await self.worker._deliver(source, partition, taken)
                    break
            else:
                await after(0.5)

    def _make_partition(self, partition: int) -> PartitionWorker:
        setup = self._setup
        config = PartitionConfig(
            worker=self.name,
            tick_s=setup.tick_s,
            inbox_records_max=setup.inbox_records_max,
            counts_every_s=setup.counts_every_s,
            alignment=setup.alignment,
            idempotency_ttl_s=setup.idempotency_ttl_s,
            conflict_timeout_s=setup.conflict_timeout_s,
        )
        codec = FailingCodec if setup.faults.poison else Codec
        return PartitionWorker(
            partition,
            make_engine=self._make_engine,
            codec=codec(CodecConfig(partitions=setup.partitions)),
            outputs=Outputs(TOPICS, cast(MetricsPort, NoMetrics())),
            ports=self._ports,
            config=config,
        )

    def _make_engine(self, partition: int) -> Engine:
        self._watch.recovers(partition, self.name)
        setup = self._setup
        join = JoinConfig(
            join_timeout_s=setup.join_timeout_s,
            write_settle_s=setup.write_settle_s,
            closed_hold_s=setup.closed_hold_s,
            pending_requests_max=setup.pending_requests_max,
            due_at_once_max=setup.due_at_once_max,
            unfolded_requests_max=2,
            packing=LZ4,
        )
        self._lives += 1
        watermark = _Watched(
            len(Source), lateness_s=setup.lateness_s, idle_s=setup.idle_s, now=self._clock.monotonic()
        )
        watermark.watch = lambda value, life=self._lives: self._watch.watermark(f"{self.name}/{life}", value)
        engine = FailingEngine if setup.faults.poison else Engine
        return engine(partition, join, _JUDGE, watermark)

    @property
    def settled(self) -> bool:
        """Whether everything read is journaled and written."""
        return not self.tables.queued


class _Watched(Watermark):
    """The real watermark, looked at whenever it moves."""

    watch: Any = None

    def advance(self, now: float) -> float:
        value = super().advance(now)
        self.watch(value)
        return value


class Cluster:
    """All processes and their coordinator."""

    def __init__(self, setup: Setup, servers: Servers, watch: Watch) -> None:
        self._setup = setup
        self._servers = servers
        self._rng: Random = servers.rng
        self._watch = watch
        self.processes: list[Process] = []
        self.owner: dict[int, Process] = {}
        self.committed: dict[tuple[Source, int], int] = {}
        self._started = 0
        self._epoch = 0

    def start_process(self) -> Process:
        """Start one more process; it owns nothing yet."""
        self._started += 1
        process = Process(
            f"w{self._started}",
            self._setup,
            self._servers,
            self._watch,
            self._give_up_stopped,
        )
        self.processes.append(process)
        process.start()
        return process

    def live(self) -> list[Process]:
        """The processes that have not died."""
        return [process for process in self.processes if process.alive]

    def _give_up_stopped(self) -> None:
        """The session of a stopped process has ended: others take its partitions, if need be a new one."""
        if not any(not process.stopped for process in self.live()):
            self.start_process()
        self.rebalance(zombies=True)

    def rebalance(self, *, zombies: bool) -> None:
        """Hand the partitions out anew; with `zombies`, who loses some learns it only later."""
        rng, loop = self._rng, self._servers.loop
        members = [p for p in self.live() if not p.stopped] or self.live()
        if not members:
            return
        self._epoch += 1
        epoch = self._epoch
        self.owner = {partition: rng.choice(members) for partition in range(self._setup.partitions)}
        self._servers.note("coordinator", str({p: w.name for p, w in self.owner.items()}))
        for process in self.live():
            mine = {p for p, owner in self.owner.items() if owner is process}
            keeps = process.told & mine
            if process.told - mine:
                delay_s = rng.uniform(0.5, 12.0) if zombies else 0.0
                process.spare_for(delay_s + 5.0 if zombies else 0.0)
                loop.call_later(delay_s, self._tell, process, keeps, epoch)
            if mine - keeps:
                loop.call_later(IN_FLIGHT_S + rng.uniform(0.1, 1.0), self._tell, process, mine, epoch)

    def _tell(self, process: Process, partitions: set[int], epoch: int) -> None:
        if not process.alive:
            return
        if epoch != self._epoch:  # an older decision: only what is still ours, and what we have
            partitions = {p for p, owner in self.owner.items() if owner is process} & process.told
        now_mine = {p for p, owner in self.owner.items() if owner is process}
        process.spawn(process.learn(partitions | (process.told & now_mine), dict(self.committed)))

    async def commit_for_ever(self) -> None:
        """Commit offsets now and then, for owners only: the broker refuses the commits of zombies."""
        while True:
            await self._servers.loop.after(self._rng.uniform(0.5, 3.0))
            for partition, process in self.owner.items():
                if not process.alive or partition not in process.told:
                    continue
                for source in _SOURCES:
                    offset = process.worker._committable(source, partition)
                    if offset is not None:
                        chain = self._watch.chains[partition]
                        safe = chain[-1][1].safe[source] if chain else 0
                        must(offset <= safe, f"committed {offset} of {source.name}, only {safe} is safe")
                        self.committed[source, partition] = offset

    @property
    def quiet(self) -> bool:
        """Whether everything written is read, concluded, journaled and in the tables."""
        for process in self.live():
            if process.told != {p for p, owner in self.owner.items() if owner is process}:
                return False
        for partition in range(self._setup.partitions):
            process = self.owner[partition]
            worker = process.worker.partitions.get(partition)
            if worker is None or not worker.recovered or worker.pending or not process.settled:
                return False
            contests = worker._contests
            if contests.found or contests._known_epoch not in ("", self._servers.claims._epoch):
                return False
            ends = self._servers.topics._ends
            if any(worker._engine.positions[s] < ends[s, partition] for s in _SOURCES):
                return False
            if worker._engine._strays:  # read again in a recovery, and the tables not yet asked
                return False
            chain = self._watch.chains[partition]
            position = self._servers.store._partitions.get(partition)
            if chain and (position is None or position.n != chain[-1][1].n):
                return False
        return True


def task_factory(loop: asyncio.AbstractEventLoop, work: Any, context: Any = None) -> asyncio.Task[Any]:
    """Make tasks that belong to the process which starts them."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    process = _OWNER.get(None)
    if process is not None:
        process.adopt(task)
    return task
