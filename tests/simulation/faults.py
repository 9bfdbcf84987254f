"""Which faults a run may meet, and how it is set up: all drawn from the seed. Every seed switches some faults off."""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random

from verifier.stream.alignment import AlignmentConfig


@dataclass(frozen=True)
class Faults:
    """Faults of the records (first line) and of the machines. All off is a calm day."""

    duplicates: bool = False
    late: bool = False
    skew: bool = False
    missing: bool = False
    garbage: bool = False
    poison: bool = False
    idle: bool = False
    gaps: bool = False
    ties: bool = False
    hot: bool = False
    canary: bool = False
    unannounced: bool = False

    crash: bool = False
    rebalance: bool = False
    zombie: bool = False
    outage: bool = False
    memory_loss: bool = False
    lost_acks: bool = False
    slow: bool = False
    bound: bool = False

    def __str__(self) -> str:
        return " ".join(f.name for f in fields(self) if getattr(self, f.name)) or "none"


@dataclass(frozen=True)
class Setup:
    """Size, pace and bounds of a run. Durations in seconds of virtual time."""

    partitions: int
    processes: int
    requests: int
    produce_s: float
    join_timeout_s: float
    write_settle_s: float
    lateness_s: float
    idle_s: float
    tick_s: float
    ends_every_s: float
    idempotency_ttl_s: float
    conflict_timeout_s: float
    pending_requests_max: int
    inbox_records_max: int
    due_at_once_max: int
    counts_every_s: float
    alignment: AlignmentConfig
    tables_queue_max: int
    latency_s: float
    crash_share: float
    faults: Faults

    @property
    def closed_hold_s(self) -> float:
        return 2 * self.join_timeout_s


def draw_setup(rng: Random) -> Setup:
    """Draw a run's set-up; each fault is on in about half of the runs, one run in twelve is calm."""
    calm = rng.random() < 1 / 12
    share = rng.choice((0.3, 0.6))
    drawn = {f.name: rng.random() < share for f in fields(Faults)}
    faults = Faults() if calm else Faults(**drawn)
    return Setup(
        partitions=rng.choice((1, 2, 2, 3)),
        processes=rng.choice((1, 2, 2, 3)),
        requests=rng.randint(6, 26),
        produce_s=rng.choice((5.0, 20.0, 30.0)),
        join_timeout_s=rng.choice((4.0, 8.0)),
        write_settle_s=rng.choice((0.5, 1.0)),
        lateness_s=rng.choice((0.5, 2.0)),
        idle_s=rng.choice((0.5, 2.0)),
        tick_s=rng.choice((0.5, 1.5)),
        ends_every_s=rng.choice((0.5, 2.0)),
        idempotency_ttl_s=3600.0 if faults.memory_loss else rng.choice((3.0, 8.0, 3600.0)),
        conflict_timeout_s=rng.choice((2.0, 30.0)),
        pending_requests_max=rng.randint(2, 6) if faults.bound else 10_000,
        inbox_records_max=rng.choice((1, 4, 2_000)),
        due_at_once_max=rng.choice((2, 1_000, 1_000)),
        counts_every_s=rng.choice((0.0, 0.25, 3.0)),
        alignment=AlignmentConfig(
            apart_s=rng.choice((0.1, 2.0)), open_min=rng.choice((0, 3, 5_000)), open_max=20
        ),
        tables_queue_max=rng.choice((1, 3, 64)),
        latency_s=rng.choice((0.002, 0.02, 0.1)),
        crash_share=rng.choice((0.0, 0.004, 0.02)) if faults.crash else 0.0,
        faults=faults,
    )
