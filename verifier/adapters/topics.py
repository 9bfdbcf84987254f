"""The topics on the broker: creating them, and saying what is wrong with those that are there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from verifier.adapters.settings import Settings
from verifier.core.errors import DependencyDown, VerifierError

_MIB = 1024 * 1024
_REPLICAS_MAX = 3
# Records are stamped by the broker: a producer's clock then decides neither retention nor what counts as the future.
_SOURCE = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(16 * _MIB)}
_JOURNAL = {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": str(32 * _MIB)}
_COMPACTED = {"cleanup.policy": "compact", "max.message.bytes": str(16 * _MIB)}
_REJECTED = {"cleanup.policy": "delete", "max.message.bytes": str(32 * _MIB)}


class TopicsWrong(VerifierError):
    """The topics are not as the verifier needs them; the message says which and what to do."""


def wanted_topics(settings: Settings) -> dict[str, dict[str, str]]:
    """The topics of a deployment with the configuration each is created with."""
    topics = settings.topics
    return {
        **dict.fromkeys(topics.sources, _SOURCE),
        topics.journal: _JOURNAL,
        topics.divergences: _COMPACTED,
        topics.conflicts: _COMPACTED,
        topics.rejected: _REJECTED,
    }


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    timeout_ms = int(settings.dependency_timeout_s * 1000)
    admin = AIOKafkaAdminClient(bootstrap_servers=list(settings.kafka), request_timeout_ms=timeout_ms)
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        raise DependencyDown("kafka", f"{type(error).__name__} {error}") from error
    finally:
        await admin.close()


async def partition_counts(settings: Settings) -> dict[str, int]:
    """Return the partition count of every wanted topic that exists."""
    async with _admin(settings) as admin:
        described = await admin.describe_topics(list(wanted_topics(settings)))
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}


async def create_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing and return their names. Raises `TopicsWrong`, `DependencyDown`."""
    wanted = wanted_topics(settings)
    counts = await partition_counts(settings)
    missing = [name for name in wanted if name not in counts]
    async with _admin(settings) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        new = [
            NewTopic(name, settings.partitions, min(_REPLICAS_MAX, brokers), topic_configs=wanted[name])
            for name in missing
        ]
        if new:
            answer = await admin.create_topics(new)
            for name, code, *rest in answer.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise TopicsWrong(f"topic {name} cannot be created: {for_code(code).__name__} {rest}")
    check_counts(settings, {**counts, **dict.fromkeys(missing, settings.partitions)})
    return missing


def check_counts(settings: Settings, counts: Mapping[str, int]) -> int:
    """Return the one partition count of sources and journal. Raises `TopicsWrong` if some lack or differ."""
    needed = (*settings.topics.sources, *settings.topics.outputs)
    missing = [name for name in needed if name not in counts]
    if missing:
        raise TopicsWrong(f"topics are missing: {', '.join(missing)}; run `verifier init`")
    copartitioned = (*settings.topics.sources, settings.topics.journal, settings.topics.divergences)
    found = {name: counts[name] for name in copartitioned}
    if len(set(found.values())) != 1:
        listed = ", ".join(f"{name} has {n}" for name, n in found.items())
        raise TopicsWrong(
            f"the five source topics, the journal and the divergences need the same partition count, but {listed}; "
            "create them anew with one count (records of one request must meet on one partition)"
        )
    return next(iter(found.values()))


async def topic_configs(settings: Settings, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the configuration of topics as the broker has it."""
    async with _admin(settings) as admin:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        responses = await admin.describe_configs(resources)
    configs: dict[str, dict[str, str]] = {}
    for response in responses:
        for _code, _message, _kind, name, entries in response.resources:
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return configs
