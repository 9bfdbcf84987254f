"""Settings that are each right and do not fit together: contradictions are refused, doubts are logged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from verifier.adapters.settings_blocks import Given, Problem
from verifier.adapters.settings_model import TOPIC_DEFAULTS, Settings

PREFIX = "VERIFIER_"
TOKEN_CHARS_MIN = 16

# The first should not be below the second.
_ORDERED = (
    ("idempotency_ttl_s", "conflict_timeout_s"),
    ("join_timeout_s", "write_settle_s"),
    ("join_timeout_s", "lateness_s"),
    ("write_settle_s", "write_behind_delay_s"),
)
# Of these, the pairs that make no sense at all when someone asks for both. The others only waste a wait.
_REFUSED = (("idempotency_ttl_s", "conflict_timeout_s"),)


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def contradictions(settings: Settings, given: Mapping[str, Given], wrong: Collection[str]) -> list[Problem]:
    """What cannot be used together. `wrong` names settings already reported, which stand at their defaults here."""
    source = _sources(given)
    found: list[Problem] = []
    for high, low in _REFUSED:
        if high in given and low in given and high not in wrong and low not in wrong:
            high_s, low_s = getattr(settings, high), getattr(settings, low)
            if high_s < low_s:
                expected = f"at least {source(low)} ({low_s:g} s)"
                found.append(Problem(name=source(high), expected=expected, given=f"{high_s:g} s"))
    routes = len(settings.route_templates)
    if routes > settings.routes_max and "routes_max" not in wrong:
        expected = f"at least the number of {source('route_templates')} ({routes})"
        found.append(Problem(name=source("routes_max"), expected=expected, given=str(settings.routes_max)))
    ids = [rule.rule_id for rule in settings.rules]
    for repeated in sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1}):
        found.append(Problem(name=source("rules"), expected="each rule's id once", given=repr(repeated)))
    return [*found, *_topic_collisions(settings, source), *_shared_databases(settings, source)]


def doubts(settings: Settings, given: Mapping[str, Given]) -> list[str]:
    """What works and is probably not meant, a sentence each."""
    source = _sources(given)
    found = [
        f"{source(high)}: {getattr(settings, high):g} s is below {source(low)} ({getattr(settings, low):g} s)"
        for high, low in _ORDERED
        if getattr(settings, high) < getattr(settings, low)
    ]
    settle, delay = given.get("write_settle_s"), given.get("write_behind_delay_s")
    if settle is not None and delay is not None and settle.source == delay.source:
        found.append(
            f"{delay.source}: so the verifier waits {settings.write_settle_s:g} s for unannounced writes"
        )
    if settings.api_token is None:
        found.append(f"the API is open to everyone who reaches it; {variable_of('api_token')} closes it")
    elif len(settings.api_token.get_secret_value()) < TOKEN_CHARS_MIN:
        found.append(f"{source('api_token')} is shorter than {TOKEN_CHARS_MIN} characters and can be guessed")
    return found


def _sources(given: Mapping[str, Given]) -> Callable[[str], str]:
    return lambda name: given[name].source if name in given else variable_of(name)


def _topic_collisions(settings: Settings, source: Callable[[str], str]) -> list[Problem]:
    """Kafka refuses a topic that differs from another only by '.' and '_': its metrics' names would be one."""
    found: list[Problem] = []
    owners: dict[str, str] = {}
    for name in TOPIC_DEFAULTS:
        topic = getattr(settings.topics, name)
        first = owners.setdefault(topic.replace(".", "_"), name)
        if first != name:
            place = source(f"topic_{name}")
            expected = (
                f"a topic of its own, also told apart from {source(f'topic_{first}')} without '.' and '_'"
            )
            found.append(Problem(name=place, expected=expected, given=topic))
    return found


def _shared_databases(settings: Settings, source: Callable[[str], str]) -> list[Problem]:
    """The shadow's writes must reach no row that users see. The canary may share main's database: it serves users."""
    found: list[Problem] = []
    owners: dict[tuple[str, int, str], str] = {}
    for side in ("main", "shadow", "canary"):
        target = getattr(settings, f"database_{side}")
        if target is None:
            continue
        first = owners.setdefault((target.host.lower(), target.port, target.name), side)
        if first != side and "shadow" in (first, side):
            found.append(
                Problem(
                    name=source(f"database_{side}"),
                    expected=f"another database than {first}'s: shadow writes must reach no live row",
                    given=f"{target.name} on {target.host}:{target.port}, as for {first}",
                )
            )
    return found
