"""A worker process: partition workers under a supervised Faust application, and the writer of the tables."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import faust
import structlog
from msgspec import Struct

from verifier.core.errors import DependencyDown, VerifierError
from verifier.core.events import Source
from verifier.core.journal import Entry
from verifier.stream.app import AppConfig, Callbacks, build_app
from verifier.stream.codec import Record
from verifier.stream.live_tables import LiveTables
from verifier.stream.partition import PartitionWorker
from verifier.stream.ports import Clock, Records
from verifier.stream.tables import TablesWriter

_NAMES = {"kafka": "Kafka", "postgres": "PostgreSQL", "redis": "Redis"}
_log = structlog.get_logger(__name__)


class WorkerConfig(Struct, frozen=True, kw_only=True):
    """Pace of a worker.

    `ends_every_s`: how often the ends of the topics are asked for. `probe_every_s`: how often servers that may have
    nothing to do at the moment are asked for a sign of life. A stop waits for the steps in work at most `finish_s`,
    then for the group to be left `app_stop_s`, then for the tables `drain_s`.
    """

    app: AppConfig
    ends_every_s: float = 0.5
    restart_s: float = 1.0
    lag_ready_max: int = 100_000
    probe_every_s: float = 2.0
    finish_s: float = 1.5
    app_stop_s: float = 4.0
    drain_s: float = 1.5
    cancel_again_s: float = 1.0


class LeftBehind(VerifierError):
    """A former life of the application did not end: it may stay in the consumer group as long as the process lives."""


class Worker:
    """Runs the application, again and again if it crashes, until told to stop."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        make_partition: Callable[[int, Callable[[Entry], None]], PartitionWorker],
        tables: TablesWriter,
        records: Records,
        clock: Clock,
        probes: Mapping[str, Callable[[], Awaitable[object]]] | None = None,
    ) -> None:
        """Make a worker; `probes` raise `DependencyDown` while the server they are named after is away."""
        self._config = config
        self._make_partition = make_partition
        self._tables = tables
        self._records = records
        self._clock = clock
        self._partitions: dict[int, tuple[PartitionWorker, asyncio.Task[None]]] = {}
        self._live: LiveTables | None = None
        self._app: faust.App | None = None
        self._stopping = asyncio.Event()
        self._assigned_once = False
        self._settled = asyncio.Event()
        self._settled.set()
        self._probes = dict(probes or {})
        self.down: dict[str, str] = {}
        self.left_behind = False
        self.kafka_up = False
        self.ends: dict[int, list[int]] = {}

    # -- what others ask -------------------------------------------------------------------------------------

    @property
    def partitions(self) -> dict[int, PartitionWorker]:
        """The partition workers by partition index."""
        return {partition: worker for partition, (worker, _) in self._partitions.items()}

    def not_ready(self) -> list[str]:
        """Reasons why this worker is not ready; none when it is."""
        reasons: list[str] = []
        if not self.kafka_up:
            reasons.append("Kafka does not answer")
        if not self._assigned_once:
            reasons.append("not in the consumer group yet")
        waiting = {
            _NAMES.get(server, server) for w in self.partitions.values() if (server := w.patience.waiting_for)
        }
        waiting |= {_NAMES.get(dependency, dependency) for dependency in self.down}
        if self._tables.waiting:
            waiting.add(_NAMES["postgres"])
        if not self.kafka_up:
            waiting.discard(_NAMES["kafka"])
        reasons += [f"{dependency} does not answer" for dependency in sorted(waiting)]
        if self._tables.blocked is not None:
            reasons.append(f"the tables cannot be written: {self._tables.blocked}")
        reasons += [f"partition {p}: {w.blocked}" for p, w in sorted(self.partitions.items()) if w.blocked]
        held = sorted(p for p, w in self.partitions.items() if w.turns.held)
        if held:
            reasons.append(f"the group is being rebalanced; held meanwhile: partitions {held}")
        recovering = sorted(p for p, w in self.partitions.items() if not w.recovered and not w.blocked)
        if recovering:
            reasons.append(f"recovering partitions {recovering}")
        for partition, worker in sorted(self.partitions.items()):
            if worker.progress.stuck_s:
                reasons.append(
                    f"partition {partition} has got no further for {worker.progress.stuck_s:.0f} s, with"
                    f" {worker.progress.lag} records waiting; it is {worker.progress.doing}"
                )
        lag = sum(worker.progress.lag for worker in self.partitions.values())
        if lag > self._config.lag_ready_max:
            reasons.append(f"{lag} records behind, at most {self._config.lag_ready_max} is ready")
        return reasons

    def states(self) -> Counter[str]:
        """How many partitions are `working`, and how many are `blocked`, `waiting` for a server, or `recovering`."""
        return Counter(_state(worker) for worker in self.partitions.values())

    def lag_by_source(self) -> dict[Source, int]:
        """Unread records of each source over the partitions owned."""
        totals = dict.fromkeys(Source, 0)
        for worker in self.partitions.values():
            for source, lag in worker.progress.lag_by_source().items():
                totals[source] += lag
        return totals

    # -- life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `stop`. Raises `LeftBehind` when only the end of the process lets the group go on."""
        writing = asyncio.create_task(self._tables.run())
        background = [writing, asyncio.create_task(self._poll_ends()), asyncio.create_task(self._probe())]
        try:
            while not self._stopping.is_set():
                await self._one_life()
                if self.left_behind and not self._stopping.is_set():
                    raise LeftBehind("the application did not stop; its consumer may still be in the group")
                if not self._stopping.is_set():
                    await self._clock.sleep(self._config.restart_s)
        finally:
            await self._assigned(set())
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._tables.drain(self._config.drain_s)

    def stop(self) -> None:
        """Ask the worker to finish: what is in work is finished, offsets are committed, the group is left."""
        self._stopping.set()

    async def _one_life(self) -> None:
        callbacks = Callbacks(
            deliver=self._deliver,
            wanted=self._wanted,
            revoking=self._hold,
            assigned=self._joined,
            committable=self._committable,
        )
        self._app, self._live = build_app(self._config.app, callbacks)
        app = self._app
        try:
            app.finalize()
            if await self._started(app):
                _log.info("worker_started", group=self._config.app.group)
                stopped = asyncio.create_task(self._stopping.wait())
                ended = asyncio.create_task(app.wait_until_stopped())
                crashed = asyncio.create_task(app._crashed.wait())
                await asyncio.wait({stopped, ended, crashed}, return_when=asyncio.FIRST_COMPLETED)
                for task in (stopped, ended, crashed):
                    task.cancel()
        except Exception:
            # whatever ends one life of the application, the next takes up from the journal
            _log.exception("application_failed")
        if app.crash_reason is not None:
            _log.error("application_crashed", reason=repr(app.crash_reason))
        if self._stopping.is_set():
            await self._finish()
        else:
            await self._assigned(set())
        try:
            async with asyncio.timeout(self._config.app_stop_s):
                await app.stop()
        except TimeoutError:
            self.left_behind = True
            _log.error("application_left", detail=f"it did not stop within {self._config.app_stop_s} s")
        except Exception:
            _log.exception("application_did_not_stop")

    async def _started(self, app: faust.App) -> bool:
        """Start the application; not if it is to stop before it has started."""
        starting = asyncio.ensure_future(app.start())
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=self._config.finish_s)
            return False
        await starting
        return True

    async def _finish(self) -> None:
        """Let every partition finish the step it is at, and begin no other: what is done can still be committed.

        Not in the middle of a rebalance: the group takes no commit then.
        """
        for worker, _ in self._partitions.values():
            worker.turns.finish()
            worker.intake.close()
        settled = asyncio.create_task(self._settled.wait())
        waiting = {settled, *(task for _, task in self._partitions.values())}
        _, late = await asyncio.wait(waiting, timeout=self._config.finish_s)
        settled.cancel()
        if late:
            _log.warning("stopping_in_mid_work", tasks=len(late), detail="it is done again from the journal")

    async def _poll_ends(self) -> None:
        while True:
            try:
                owned = sorted(self._partitions)
                self.ends = await self._records.ends(owned or [0])
                if not self.kafka_up:
                    _log.info("going_on", dependency="kafka")
                self.kafka_up = True
                for partition, (worker, _) in self._partitions.items():
                    if partition in self.ends:
                        worker.note_ends(self.ends[partition])
                if self._live is not None:
                    self._live.flush(self._partitions)
            except DependencyDown as down:
                if self.kafka_up:
                    _log.warning("waiting", dependency=down.dependency, detail=down.detail)
                self.kafka_up = False
            except Exception:
                # without the ends nothing comes to an end, so asking must go on whatever it met
                _log.exception("ends_not_known")
                self.kafka_up = False
            await self._clock.sleep(self._config.ends_every_s)

    async def _probe(self) -> None:
        while self._probes:
            for name, probe in self._probes.items():
                try:
                    await probe()
                except DependencyDown as down:
                    if name not in self.down:
                        _log.warning("waiting", dependency=down.dependency, detail=down.detail)
                    self.down[name] = down.detail
                else:
                    if self.down.pop(name, None) is not None:
                        _log.info("going_on", dependency=name)
            await self._clock.sleep(self._config.probe_every_s)

    # -- callbacks of the application ------------------------------------------------------------------------

    async def _deliver(self, source: Source, partition: int, records: Sequence[Record]) -> None:
        held = self._partitions.get(partition)
        if held is not None:
            held[0].intake.put(source, records)

    def _wanted(self, source: Source, partition: int) -> bool:
        """Whether more is to be fetched; asked from the consumer's thread."""
        held = self._partitions.get(partition)
        return held is not None and held[0].intake.wants(source)

    def _committable(self, source: Source, partition: int) -> int | None:
        held = self._partitions.get(partition)
        return None if held is None else held[0].committable(source)

    def _hold(self) -> None:
        """Begin nothing more until the group says which partitions are ours: others may have them by now."""
        _log.info("partitions_held", partitions=sorted(self._partitions))
        self._settled.clear()
        for worker, _ in self._partitions.values():
            worker.turns.hold()

    async def _joined(self, partitions: set[int]) -> None:
        """Take the partitions the group gave us; none is fine, too: then we stand by."""
        self._assigned_once = True
        await self._assigned(partitions)
        self._settled.set()
        for worker, _ in self._partitions.values():
            worker.turns.go_on()

    async def _assigned(self, partitions: set[int]) -> None:
        """Stop the workers of partitions that are no longer ours, start those of new ones."""
        for partition in sorted(set(self._partitions) - partitions):
            worker, task = self._partitions.pop(partition)
            worker.intake.close()
            await self._ended(task)
            if not self._stopping.is_set():
                self._tables.forget(partition)
        for partition in sorted(partitions - set(self._partitions)):
            worker = self._make_partition(partition, self._fold)
            self._partitions[partition] = (worker, asyncio.create_task(self._supervise(partition, worker)))
        _log.info("partitions_assigned", partitions=sorted(partitions))

    async def _ended(self, task: asyncio.Task[None]) -> None:
        """Cancel a partition's task until it ends: a library may take a cancellation for its own, and go on.

        The group waits for this: a task that lived on would hold a rebalance up for ever.
        """
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=self._config.cancel_again_s)
        await asyncio.gather(task, return_exceptions=True)

    async def _supervise(self, partition: int, worker: PartitionWorker) -> None:
        while True:
            try:
                await worker.run()
            except Exception:
                # the worker starts again from the journal, so nothing is lost or counted twice
                _log.exception("partition_failed", partition=partition)
                worker.recovered = False
                await self._clock.sleep(self._config.restart_s)
            else:
                return

    def _fold(self, entry: Entry) -> None:
        if self._live is not None:
            self._live.fold(entry)


def _state(worker: PartitionWorker) -> str:
    if worker.blocked:
        return "blocked"
    if worker.patience.waiting_for or worker.turns.held:
        return "waiting"
    return "working" if worker.recovered else "recovering"
