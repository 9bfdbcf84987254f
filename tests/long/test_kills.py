"""Hundreds of thousands of requests while workers are killed, frozen, added and removed, and every server restarts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, WorkerProcess, wait_for
from tests.acceptance.conftest import NewCluster
from tests.long.conftest import Say
from tests.long.pouring import Pouring
from tests.long.traffic import Traffic
from tests.long.truth_check import (
    check_journal,
    check_lists,
    check_postgres,
    check_summary,
    check_topics,
)

REQUESTS = int(os.environ.get("LONG_REQUESTS", "200000"))
SEED = int(os.environ.get("LONG_SEED", "1"))
KILLS, FREEZES = 20, 3
REQUESTS_A_SECOND = 400.0
HUNG_AFTER_S = 60.0  # how quick a stop is in peace, the acceptance tests say; here only that it ends
FROZEN_S = (12.0, 15.0)  # the session timeout is 10 s
PAUSE_S = (3.0, 13.0)
SHORT_REQUESTS, SHORT_REQUESTS_A_SECOND = 10_000, 200.0
SHORT_PAUSE_S = (0.5, 3.0)


class Chaos:
    """What befalls a cluster, drawn from a seed."""

    def __init__(self, cluster: Cluster, seed: int, say: Say) -> None:
        self._cluster, self._random, self._say = cluster, random.Random(seed), say
        self.hung: list[Path] = []
        self.done: Counter[str] = Counter()

    def short_plan(self) -> list[str]:
        """One of each, and a few kills: two workers, then three."""
        first = ["kill", "restart_redis", "restart_postgres", "kill"]
        second = ["kill", "freeze", "restart_kafka", "kill"]
        self._random.shuffle(first)
        self._random.shuffle(second)
        return [*first, "add", *second, "replace"]

    def plan(self) -> list[str]:
        """Two workers for the first half, then three."""
        kills, random_ = ["kill"] * (KILLS // 2), self._random
        first = [*kills, "freeze", "restart_redis", "restart_postgres", "replace"]
        second = [*kills, *["freeze"] * (FREEZES - 1), "restart_kafka", "kill_kafka", "kill_postgres"]
        second += ["replace", "kill_all"]
        random_.shuffle(first)
        random_.shuffle(second)
        return [*first, "add", *second]

    def befall(self, what: str) -> None:
        getattr(self, f"_{what}")()
        self.done[what] += 1

    def pause(self, least_s: float, most_s: float) -> None:
        """Let it run a little: the moments are what is random, so this is no wait for anything."""
        time.sleep(self._random.uniform(least_s, most_s))

    def _one(self) -> WorkerProcess:
        return self._random.choice(self._cluster.workers)

    def _kill(self) -> None:
        worker = self._one()
        worker.kill()
        time.sleep(self._random.uniform(0.0, 1.0))
        worker.start()

    def _kill_all(self) -> None:
        for worker in self._cluster.workers:
            worker.kill()
        for worker in self._cluster.workers:
            worker.start()

    def _freeze(self) -> None:
        worker = self._one()
        worker.pause()
        time.sleep(self._random.uniform(*FROZEN_S))
        worker.resume()

    def _add(self) -> None:
        self._cluster.add_worker()

    def _replace(self) -> None:
        """A new worker comes, an old one goes in good order."""
        self._add()
        old = self._cluster.workers.pop(self._random.randrange(len(self._cluster.workers) - 1))
        wait_for("the one that goes to be up", lambda: old.get("/healthz"), 60.0)
        old.process.terminate()
        try:
            assert old.process.wait(HUNG_AFTER_S) == 0, old.state()
        except subprocess.TimeoutExpired:
            old.process.send_signal(signal.SIGABRT)  # its log then says what every thread was at
            old.process.wait()
            self.hung.append(old.log_path)

    def _restart_redis(self) -> None:
        self._cluster.servers.redis.restart()

    def _restart_postgres(self) -> None:
        self._cluster.servers.postgres.restart()

    def _kill_postgres(self) -> None:
        self._cluster.servers.postgres.kill()
        self._cluster.servers.postgres.start()

    def _restart_kafka(self) -> None:
        self._cluster.servers.kafka.restart()

    def _kill_kafka(self) -> None:
        self._cluster.servers.kafka.kill()
        self._cluster.servers.kafka.start()


def standing(cluster: Cluster) -> str:
    """Where the tables stand, for whoever watches."""
    row = cluster.sql("SELECT coalesce(sum(n), 0)::bigint AS n FROM verdict_counts")[0]
    return f"{row['n']} verdicts"


class Run:
    """A cluster, the traffic poured into it, and what befalls it meanwhile."""

    def __init__(
        self, new_cluster: NewCluster, say: Say, requests: int, *, pace: float = REQUESTS_A_SECOND
    ) -> None:
        self.say, self.requests, self.pace, seed = say, requests, pace, SEED
        self.cluster = new_cluster(
            partitions=4, VERIFIER_JOIN_TIMEOUT_S="8", VERIFIER_LOG_CONFLICTS="false", PYTHONFAULTHANDLER="1"
        )
        self.cluster.start(2)
        say(f"two workers ready; seed {seed}")
        self.traffic = Traffic(seed, time.time(), pace)
        self.chaos = Chaos(self.cluster, seed, say)

    def befall(self, plan: list[str], pause_s: tuple[float, float]) -> None:
        """Pour all requests; meanwhile let everything of the plan befall the cluster."""
        with Pouring(self.cluster, self.traffic, self.requests, pace=self.pace) as pouring:
            for what in plan:
                self.chaos.pause(*pause_s)
                self.chaos.befall(what)
                self.say(f"{what}: {pouring.poured} requests poured, {len(self.cluster.workers)} workers")
            while pouring.running:
                self.say(f"{pouring.poured} requests poured, {standing(self.cluster)}")
                pouring.join(20.0)
        self.say("all poured")

    def check(self, *, settled_within_s: float) -> None:
        """Hold every place against the truth."""
        cluster, truth = self.cluster, self.traffic.truth
        summary = cluster.settle(
            len(truth.verdicts), records=truth.records.total(), within_s=settled_within_s
        )
        cluster.wait_ready(120.0)
        self.say(f"settled: {summary['requests']}")
        wait_for("conflicts told again", lambda: cluster.summary()["conflicts"] == len(truth.conflicts), 30.0)
        check_summary(cluster.summary(), cluster, truth)
        check_lists(cluster, truth)
        check_postgres(cluster, truth)
        passed_over = check_journal(cluster, truth)
        check_topics(cluster, truth)
        self.say(
            f"exact in REST, PostgreSQL, journal and topics; {passed_over} entries of fenced workers;"
            f" {dict(self.chaos.done)}\n"
        )
        assert not self.chaos.hung, "\n".join(path.read_text()[-6_000:] for path in self.chaos.hung)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_place_tells_the_exact_truth_after_kills_freezes_and_restarts(
    new_cluster: NewCluster, say: Say
) -> None:
    run = Run(new_cluster, say, REQUESTS)
    run.befall(run.chaos.plan(), PAUSE_S)
    assert run.chaos.done["kill"] >= KILLS and run.chaos.done["freeze"] >= FREEZES
    run.check(settled_within_s=600.0)


@pytest.mark.timeout(400)
def test_a_minute_of_kills_a_freeze_and_restarts_changes_nothing(new_cluster: NewCluster, say: Say) -> None:
    run = Run(new_cluster, say, SHORT_REQUESTS, pace=SHORT_REQUESTS_A_SECOND)
    run.befall(run.chaos.short_plan(), SHORT_PAUSE_S)
    run.check(settled_within_s=180.0)
