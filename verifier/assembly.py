"""Puts the parts together from the settings: what the commands and the demo start from."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from verifier.adapters.claims import RedisClaims
from verifier.adapters.clock import SystemClock
from verifier.adapters.kafka import KafkaJournal, KafkaReader, KafkaWriter
from verifier.adapters.metrics import Metrics
from verifier.adapters.packing import LZ4
from verifier.adapters.postgres import PostgresStore
from verifier.adapters.redaction import Redactor
from verifier.adapters.settings import Settings
from verifier.core.dated_judge import judge_by_date
from verifier.core.engine import Engine
from verifier.core.events import Source
from verifier.core.join import JoinConfig
from verifier.core.journal import Entry
from verifier.core.policy import Policy
from verifier.core.routes import Router
from verifier.core.rules import Rule, rule_from_dict, unexpired
from verifier.core.verdict import Judge, JudgeConfig
from verifier.core.watermark import Watermark
from verifier.stream.alignment import AlignmentConfig
from verifier.stream.app import AppConfig
from verifier.stream.codec import Codec, CodecConfig
from verifier.stream.outputs import Outputs, OutputTopics
from verifier.stream.partition import PartitionConfig, PartitionWorker, Ports
from verifier.stream.tables import TablesWriter
from verifier.stream.worker import Worker, WorkerConfig
from verifier.web.ports import Readiness, WebDeps
from verifier.web.records import RecordRedactor


def rules_of(settings: Settings) -> list[Rule]:
    """The configured rules, for the core."""
    return [
        rule_from_dict({**spec.model_dump(mode="json", exclude_none=True), "id": spec.rule_id})
        for spec in settings.rules
    ]


def policy_of(settings: Settings, *, at_s: float | None = None) -> Policy:
    """The default rules and the configured ones over them: those in force at `at_s` (Unix seconds), or all there are.

    A policy of all is for `judge_of`, which heeds when each expires.
    """
    rules = rules_of(settings)
    return Policy.default(rules if at_s is None else unexpired(rules, at_s), redact=settings.redact)


def judge_of(settings: Settings, policy: Policy) -> Judge:
    """A judge by the settings, for which each rule of the policy holds until it expires, by the requests' own time."""
    config = JudgeConfig(
        expect_edge="edge" in settings.expect, expect_responses="responses" in settings.expect
    )
    router = Router(settings.route_templates, routes_max=settings.routes_max)
    return judge_by_date(policy, lambda dated: Judge(dated, router, config))


def engine_maker(settings: Settings, judge: Judge, now: Callable[[], float]) -> Callable[[int], Engine]:
    """Return what makes a fresh engine for a partition index."""
    join = JoinConfig(
        join_timeout_s=settings.join_timeout_s,
        write_settle_s=settings.write_settle_s + settings.write_behind_delay_s,
        expect_edge="edge" in settings.expect,
        expect_responses="responses" in settings.expect,
        closed_hold_s=2 * settings.join_timeout_s,
        closed_requests_max=settings.closed_requests_max,
        pending_requests_max=settings.pending_requests_max,
        packing=LZ4,
    )

    def make(partition: int) -> Engine:
        watermark = Watermark(len(Source), lateness_s=settings.lateness_s, idle_s=settings.idle_s, now=now())
        return Engine(partition, join, judge, watermark)

    return make


def codec_of(settings: Settings, partitions: int) -> Codec:
    """The codec by the settings."""
    return Codec(
        CodecConfig(
            partitions=partitions,
            record_bytes_max=settings.record_bytes_max,
            request_id_column=settings.request_id_column,
        )
    )


def output_topics_of(settings: Settings) -> OutputTopics:
    """The names of the topics, for the outputs."""
    topics = settings.topics
    return OutputTopics(
        sources=topics.sources,
        divergences=topics.divergences,
        conflicts=topics.conflicts,
        rejected=topics.rejected,
    )


@dataclass(slots=True)
class Service:
    """Everything one worker process runs, over real servers."""

    settings: Settings
    partitions: int
    store: PostgresStore
    metrics: Metrics
    clock: SystemClock = field(default_factory=SystemClock)
    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}")

    def __post_init__(self) -> None:
        settings = self.settings
        self.policy = policy_of(settings)
        self.writer = KafkaWriter(settings.kafka, settings.topics.journal)
        self.reader = KafkaReader(settings.kafka, settings.topics.sources, settings.topics.journal)
        self.journal = KafkaJournal(self.writer, self.reader)
        self.claims = RedisClaims(
            settings.redis.get_secret_value(),
            prefix=settings.idempotency_prefix,
            ttl_s=int(settings.idempotency_ttl_s),
            connections_max=settings.redis_connections_max,
        )
        self.tables = TablesWriter(self.store, self.journal, self.clock, bound_met=self.metrics.add_bound_met)
        self.metrics.start(settings.topics.sources)
        self._judge = judge_of(settings, self.policy)
        self.worker = Worker(
            WorkerConfig(app=self._app_config()),
            make_partition=self._make_partition,
            tables=self.tables,
            records=self.reader,
            clock=self.clock,
            probes={"redis": self.claims.ping},
        )

    # the instance attributes made above
    policy: Policy = field(init=False)
    writer: KafkaWriter = field(init=False)
    reader: KafkaReader = field(init=False)
    journal: KafkaJournal = field(init=False)
    claims: RedisClaims = field(init=False)
    tables: TablesWriter = field(init=False)
    worker: Worker = field(init=False)
    _judge: Judge = field(init=False)

    def _app_config(self) -> AppConfig:
        settings = self.settings
        return AppConfig(
            group=settings.group,
            brokers=settings.kafka,
            sources=settings.topics.sources,
            partitions=self.partitions,
            data_dir=str(settings.data_dir),
            fetch_records_max=settings.batch_records_max,
            session_timeout_s=settings.session_timeout_s,
            rebalance_timeout_s=max(30.0, settings.session_timeout_s),
            instance_id=settings.instance_id,
        )

    def _make_partition(self, partition: int, on_entry: Callable[[Entry], None]) -> PartitionWorker:
        settings = self.settings
        ports = Ports(
            journal=self.journal,
            records=self.reader,
            publisher=self.writer,
            claims=self.claims,
            tables=self.tables,
            clock=self.clock,
        )
        return PartitionWorker(
            partition,
            make_engine=engine_maker(settings, self._judge, self.clock.monotonic),
            codec=codec_of(settings, self.partitions),
            outputs=Outputs(output_topics_of(settings), self.metrics, on_entry=on_entry),
            ports=ports,
            config=PartitionConfig(
                worker=self.name,
                idempotency_ttl_s=settings.idempotency_ttl_s,
                conflict_timeout_s=settings.conflict_timeout_s,
                log_conflicts=settings.log_conflicts,
                claim_idempotency_keys=settings.idempotency_enabled,
                alignment=AlignmentConfig(open_max=settings.pending_requests_max // 2),
            ),
        )

    def web_deps(self) -> WebDeps:
        """What the REST API stands on."""
        token = self.settings.api_token
        redactor = Redactor(self.settings.redact)
        return WebDeps(
            store=self.store,
            records=self,
            journal=self.journal,
            metrics=self,
            health=self,
            topics=dict(enumerate(self.settings.topics.sources)),
            policy=policy_of(self.settings, at_s=self.clock.now()),
            redact=RecordRedactor(redactor),
            api_token=token.get_secret_value() if token is not None else None,
        )

    # -- ports of the web layer ------------------------------------------------------------------------------

    async def fetch(self, refs: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """The values of the records at (topic, partition, offset)."""
        records = await self.reader.fetch_places(refs)
        return [None if record is None else record.value for record in records]

    def ready(self) -> Readiness:
        """Whether this worker is ready, and if not why."""
        reasons = self.worker.not_ready()
        return Readiness(ok=not reasons, reasons=tuple(reasons))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics, with the state of this moment."""
        workers = self.worker.partitions.values()
        self.metrics.set_pending(sum(worker.pending for worker in workers))
        self.metrics.set_tables_queue(self.tables.queued)
        sources = self.settings.topics.sources
        self.metrics.set_lag({sources[source]: lag for source, lag in self.worker.lag_by_source().items()})
        through = [worker.progress.verified_through for worker in workers if worker.progress.verified_through]
        self.metrics.set_verified_through(min(through, default=None))
        self.metrics.set_stuck(max((worker.progress.stuck_s for worker in workers), default=0.0))
        self.metrics.set_partitions(self.worker.states(), of_topic=self.partitions)
        self.metrics.set_ready(ready=not self.worker.not_ready())
        self.metrics.set_dependency_up("kafka", up=self.worker.kafka_up)
        self.metrics.set_dependency_up("postgres", up=not self.tables.waiting)
        redis_down = "redis" in self.worker.down or any(
            worker.patience.waiting_for == "redis" for worker in workers
        )
        self.metrics.set_dependency_up("redis", up=not redis_down)
        return self.metrics.render(accept)

    async def close(self) -> None:
        """Close every connection."""
        await self.writer.stop()
        await self.reader.stop()
        await self.claims.close()
        await self.store.close()
