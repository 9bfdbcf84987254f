"""`verifier check`: configuration, connections, topics, tables; says what to mend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

from msgspec import Struct

from verifier.adapters.claims import RedisClaims
from verifier.adapters.migrations import pending_migrations
from verifier.adapters.settings import Settings
from verifier.adapters.topics import TopicsWrong, check_counts, partition_counts, topic_configs
from verifier.assembly import policy_of
from verifier.core.errors import DependencyDown, VerifierError

EXIT_WRONG = 2
EXIT_AWAY = 3


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    AWAY = "away"


class Finding(Struct, frozen=True, kw_only=True):
    """What was looked at, how it is, and what to do about it."""

    what: str
    state: State
    detail: str


async def run_check(settings: Settings) -> list[Finding]:
    """Check everything that can be checked from here; one thing wrong hides nothing else."""
    findings = [Finding(what="settings", state=State.OK, detail="complete and consistent")]
    findings += [
        Finding(what="settings", state=State.WARNING, detail=warning) for warning in settings.warnings
    ]
    for what, check in (
        ("rules", _check_rules),
        ("kafka", _check_topics),
        ("kafka retention", _check_retention),
        ("postgres", _check_tables),
        ("redis", _check_redis),
    ):
        findings.append(await _guarded(what, check, settings))
    return findings


def exit_code(findings: list[Finding]) -> int:
    """0 fine, 2 something is wrong, 3 something cannot be reached."""
    states = {finding.state for finding in findings}
    if State.WRONG in states:
        return EXIT_WRONG
    return EXIT_AWAY if State.AWAY in states else 0


async def _guarded(
    what: str, check: Callable[[Settings], Awaitable[tuple[State, str]]], settings: Settings
) -> Finding:
    try:
        state, detail = await check(settings)
    except DependencyDown as down:
        state, detail = State.AWAY, f"{down}; is the address right, is it running, may this host reach it?"
    except VerifierError as error:
        state, detail = State.WRONG, str(error)
    return Finding(what=what, state=state, detail=detail)


async def _check_rules(settings: Settings) -> tuple[State, str]:
    rules = policy_of(settings).describe()
    return State.OK, f"{len(rules)} rules in force, {len(settings.rules)} of them configured"


async def _check_topics(settings: Settings) -> tuple[State, str]:
    partitions = check_counts(settings, await partition_counts(settings))
    detail = f"all topics there, {partitions} partitions each"
    if partitions != settings.partitions:
        return State.WARNING, f"{detail}; VERIFIER_PARTITIONS says {settings.partitions}, the topics decide"
    return State.OK, detail


async def _check_retention(settings: Settings) -> tuple[State, str]:
    """The source topics are the join's log: what a restart or a revision reads again must still be there."""
    needed_s = 3 * settings.join_timeout_s + settings.lateness_s
    counts = await partition_counts(settings)
    names = [name for name in settings.topics.sources if name in counts]
    if not names:
        raise TopicsWrong("no source topic is there; run `verifier init`")
    short: list[str] = []
    compacted: list[str] = []
    for name, config in (await topic_configs(settings, names)).items():
        retention_ms = int(config.get("retention.ms") or -1)
        if 0 <= retention_ms < needed_s * 1000:
            short.append(f"{name} keeps {retention_ms / 1000:.0f} s")
        if "compact" in (config.get("cleanup.policy") or ""):
            compacted.append(name)
    if compacted:
        return State.WRONG, (
            f"{', '.join(compacted)} is compacted, which drops records of a request: set cleanup.policy=delete"
        )
    if short:
        return State.WRONG, f"{', '.join(short)}; at least {needed_s:.0f} s are needed (retention.ms)"
    return State.OK, f"source topics keep records longer than the {needed_s:.0f} s that a restart reads again"


async def _check_tables(settings: Settings) -> tuple[State, str]:
    pending = await pending_migrations(settings.postgres.get_secret_value())
    if pending:
        return State.WRONG, f"migrations {', '.join(map(str, pending))} are not applied; run `verifier init`"
    return State.OK, "answers, tables up to date"


async def _check_redis(settings: Settings) -> tuple[State, str]:
    claims = RedisClaims(settings.redis.get_secret_value(), prefix=settings.idempotency_prefix)
    try:
        await claims.ping()
        policy = await claims.eviction_policy()
    finally:
        await claims.close()
    if policy not in (None, "noeviction") and not policy.startswith("volatile-ttl"):
        return State.WARNING, (
            f"answers, but maxmemory-policy is {policy}: claims may be evicted before their time; set noeviction"
        )
    return State.OK, "answers"
