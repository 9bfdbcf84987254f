"""Loading the settings: environment over YAML over the migration's own blocks, every error reported at once.

    settings = load_settings(os.environ)

Which source wins: a `VERIFIER_*` variable, then the verifier's own key in the YAML file, then what the blocks
`idempotency:`, `shadowing:` and `database:` imply, then the default. An empty variable counts as not set.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from verifier.adapters.redaction import Redactor
from verifier.adapters.settings_blocks import Given, Problem, read_blocks
from verifier.adapters.settings_checks import contradictions, doubts, variable_of
from verifier.adapters.settings_file import read_document
from verifier.adapters.settings_model import (
    TOPIC_DEFAULTS,
    DatabaseTarget,
    EventKind,
    Phase,
    RuleSpec,
    Settings,
    Topics,
)
from verifier.adapters.settings_values import route_shape
from verifier.core.errors import VerifierError

__all__ = [
    "DatabaseTarget",
    "EventKind",
    "Phase",
    "Problem",
    "RuleSpec",
    "Settings",
    "SettingsError",
    "Topics",
    "load_settings",
]

PREFIX = "VERIFIER_"
REQUIRED = ("kafka", "postgres")
GIVEN_CHARS_MAX = 120

_MADE_HERE = ("warnings", "extras")
_NAMES = tuple(name for name in Settings.model_fields if name not in _MADE_HERE)
_ALIASES = {"routes": "route_templates"}
_SECRET = ("redis", "postgres", "api_token", "database_main", "database_shadow", "database_canary")
_SHOWN_INSIDE_SECRET = ("host", "port", "name", "sslmode")

# Kubernetes gives every pod such variables for each Service of its namespace, so also for one named verifier-….
_SERVICE_LINK = re.compile(
    r"VERIFIER_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT_VALUE = re.compile(r"(?:tcp|udp|sctp)://\S+:\d+")


class SettingsError(VerifierError):
    """The settings cannot be used. `problems` has all of them; no text here contains a secret."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{count} in the settings:", *(f"  {problem}" for problem in problems)]))


def load_settings(
    environ: Mapping[str, str], *, config_path: Path | None = None, require: Collection[str] = REQUIRED
) -> Settings:
    """Read, check and freeze the settings.

    `config_path` stands in for `VERIFIER_CONFIG`. `require` names the settings without a default that this command
    needs (`kafka`, `postgres`). Raises SettingsError with every problem found.
    """
    problems: list[Problem] = []
    from_environment = _read_environment(environ, problems)
    if config_path is not None:
        from_environment["config"] = Given(value=config_path, source="the configuration file")
    given: dict[str, Given] = {}
    warnings: list[str] = []
    extras: list[tuple[str, object]] = []
    config = from_environment.get("config")
    if config is not None:
        path = Path(str(config.value))
        document = read_document(path, environ, problems, source=config.source)
        blocks = read_blocks(document.blocks, environ, file=path.name)
        problems.extend(blocks.problems)
        warnings.extend(blocks.warnings)
        extras.extend(blocks.extras)
        own = _own_keys(document.keys, path.name, problems)
        given = {**blocks.values, **own}
    given.update(from_environment)
    settings, wrong = _validate(given, problems)
    for name in require:
        if name not in given and name not in wrong:
            problems.append(
                Problem(
                    name=variable_of(name), expected=_expected(name), hint="it has no default and is not set"
                )
            )
    settings = _with_operations_as_routes(settings)
    problems.extend(contradictions(settings, given, wrong))
    if problems:
        raise SettingsError(problems)
    warnings.extend(doubts(settings, given))
    return settings.model_copy(update={"warnings": tuple(warnings), "extras": tuple(extras)})


def _with_operations_as_routes(settings: Settings) -> Settings:
    """An operation is a route template too, unless a template for the same requests is there already."""
    known = {route_shape(route) for route in settings.route_templates}
    more = tuple(route for route in settings.idempotency_operations if route_shape(route) not in known)
    return settings.model_copy(update={"route_templates": settings.route_templates + more})


def _expected(name: str) -> str:
    extra = Settings.model_fields[name].json_schema_extra
    return str(extra["expected"]) if isinstance(extra, dict) else name


def _read_environment(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        name = _ALIASES.get(name, name)
        if name not in _NAMES:
            if not _SERVICE_LINK.fullmatch(variable) and not _SERVICE_PORT_VALUE.fullmatch(value):
                problems.append(
                    _unknown(variable, [variable_of(known) for known in _NAMES], "a VERIFIER_ variable")
                )
        elif name in given:
            problems.append(
                Problem(name=variable, expected=f"to be given once; also given: {given[name].source}")
            )
        elif value.strip():
            given[name] = Given(value=value.strip(), source=variable)
    return given


def _own_keys(keys: Mapping[str, object], file: str, problems: list[Problem]) -> dict[str, Given]:
    """The verifier's own keys of the YAML file, the `topics:` mapping laid flat."""
    flat: list[tuple[str, str, object]] = []
    for key, value in keys.items():
        if key != "topics":
            flat.append((_ALIASES.get(key, key), key, value))
        elif isinstance(value, Mapping):
            flat.extend(
                (f"topic_{str(topic).replace('.', '_')}", f"topics.{topic}", v) for topic, v in value.items()
            )
        elif value is not None:
            problems.append(
                Problem(name=f"{file}: topics", expected="a mapping such as {edge_requests: edge.requests}")
            )
    known = [
        *(name for name in _NAMES if name != "config"),
        *_ALIASES,
        "topics",
        "idempotency",
        "shadowing",
        "database",
    ]
    given: dict[str, Given] = {}
    for name, key, value in flat:
        source = f"{file}: {key}"
        if name not in known:
            inner = [f"topics.{topic}" for topic in TOPIC_DEFAULTS] if key.startswith("topics.") else known
            problems.append(_unknown(key, inner, "a key of the configuration file", source=source))
        elif name in given:
            problems.append(
                Problem(name=source, expected=f"to be given once; also given: {given[name].source}")
            )
        elif value is not None:
            given[name] = Given(value=value, source=source)
    return given


def _unknown(name: str, known: list[str], what: str, *, source: str | None = None) -> Problem:
    # Without the prefix all share, which would make every name look close. A name cut short is the likeliest slip.
    bare = {candidate.removeprefix(PREFIX): candidate for candidate in known}
    wanted = name.removeprefix(PREFIX)
    longer = [candidate for candidate in bare if candidate.startswith(wanted)]
    close = [bare[match] for match in longer[:1] or difflib.get_close_matches(wanted, bare, n=1, cutoff=0.6)]
    hint = f"did you mean {close[0]}?" if close else "docs/settings.md lists them all"
    return Problem(name=source or name, expected=f"{what} that the verifier knows", hint=hint)


def _validate(given: Mapping[str, Given], problems: list[Problem]) -> tuple[Settings, set[str]]:
    """The settings, with the defaults in the place of what is wrong, and the names of what is wrong."""
    values: dict[str, Any] = {name: item.value for name, item in given.items()}
    try:
        return Settings(**values), set()
    except ValidationError as error:
        details = error.errors(include_url=False)
    # One message a value: for a union or a list pydantic may give several about the same place.
    seen: set[str] = set()
    for detail in details:
        problem = _problem(detail, given)
        if problem.name not in seen:
            seen.add(problem.name)
            problems.append(problem)
    wrong = {str(detail["loc"][0]) for detail in details}
    return Settings(**{name: value for name, value in values.items() if name not in wrong}), wrong


def _problem(detail: ErrorDetails, given: Mapping[str, Given]) -> Problem:
    name, *inside = detail["loc"]
    field = str(name)
    item = given[field]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)
    hint = detail["msg"].removeprefix("Value error, ")
    shown = _shown(detail["input"])
    value = detail["input"]
    if detail["type"] == "missing":
        shown = "nothing"
    elif field in _SECRET and not (inside and inside[-1] in _SHOWN_INSIDE_SECRET):
        shown = "(hidden)"
    elif isinstance(value, str) and _SERVICE_PORT_VALUE.fullmatch(value):
        hint = "Kubernetes set this for a Service of that name: set enableServiceLinks: false on the pod"
    return Problem(
        name=item.source + place, expected=_expected(field), given=shown, hint=Redactor().text(hint)
    )


def _shown(value: object) -> str:
    """What was given, for a message: without secrets and short."""
    safe = Redactor().value(value.get_secret_value() if isinstance(value, SecretStr) else value)
    text = safe if isinstance(safe, str) else repr(safe)
    return repr(text[:GIVEN_CHARS_MAX]) + ("…" if len(text) > GIVEN_CHARS_MAX else "")
