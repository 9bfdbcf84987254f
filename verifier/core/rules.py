"""One rule: what may differ where, by whose word and until when; read from settings and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from verifier.core import tolerance
from verifier.core.errors import VerifierError
from verifier.core.patterns import PATTERN_CHARS_MAX, PatternError, name_regex, pointer_regex, route_regex

KINDS = ("status", "header", "body", "write", "*")
EXACT, IGNORE, PRESENCE, TYPE = "exact", "ignore", "presence", "type"
UNORDERED, GENERATED_ID = "unordered", "generated_id"
_PARAMS: dict[str, frozenset[str]] = {
    EXACT: frozenset(),
    IGNORE: frozenset(),
    PRESENCE: frozenset(),
    TYPE: frozenset(),
    "tolerance": frozenset(("abs", "rel")),
    "time_tolerance": frozenset(("seconds", "unit", "naive")),
    "pattern": frozenset(("regex", "pattern")),
    UNORDERED: frozenset(("key",)),
    GENERATED_ID: frozenset(("space",)),
}
ACTIONS = tuple(_PARAMS)
STATUS_ACTIONS = (EXACT, IGNORE, "pattern")
_CHECKS = {
    "tolerance": tolerance.tolerance,
    "time_tolerance": tolerance.time_tolerance,
    "pattern": tolerance.pattern,
}
_KEYS = frozenset(("id", "route", "kind", "field", "action", "params", "owner", "reason", "expires_at"))


class RuleError(VerifierError):
    """A rule cannot be used. `field` names its wrong part, `expected` says what that should be."""

    def __init__(self, field: str, expected: str, *, rule: str = "") -> None:
        super().__init__(f"rule{f' {rule!r}' if rule else ''}: {field}: expected {expected}")
        self.field = field
        self.expected = expected


class Rule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule. `route` and `field` are patterns (`verifier.core.patterns`); None means every route, or the whole kind.

    Actions: `exact` compares exactly, and so takes a place back from a broader rule; `ignore` lets anything differ;
    `presence` wants a value other than null on both sides; `type` the same JSON type; these three hold for all that
    lies below the field, too. `tolerance` (params abs, rel), `time_tolerance` (seconds, unit, naive), `pattern` (regex)
    and `generated_id` (space) hold for values of the field itself; `unordered` (key) for an array or header list.
    Only `ignore` excuses what is missing, extra or doubled. `expires_at` is Unix seconds: see `unexpired`.
    """

    id: str
    kind: str
    action: str
    route: str | None = None
    field: str | None = None
    params: dict[str, Any] = {}
    owner: str | None = None
    reason: str | None = None
    expires_at: float | None = None


def unexpired(rules: Iterable[Rule], at_s: float) -> tuple[Rule, ...]:
    """Return the rules still in force at a time (Unix seconds)."""
    return tuple(rule for rule in rules if rule.expires_at is None or rule.expires_at > at_s)


def rule_from_dict(given: Mapping[str, Any]) -> Rule:
    """Read and check a rule as settings or REST give it. Raises RuleError naming the field and what is expected."""
    parts = {key: value for key, value in given.items() if value is not None}
    name = str(parts.get("id", ""))
    unknown = sorted(str(key) for key in parts.keys() - _KEYS)
    if unknown:
        raise RuleError(unknown[0], f"one of {', '.join(sorted(_KEYS))}", rule=name)
    for key in parts.keys() - {"params", "expires_at"}:
        if not isinstance(parts[key], str):
            raise RuleError(key, "a text", rule=name)
    for key in ("kind", "action"):
        if key not in parts:
            raise RuleError(key, f"one of {', '.join(KINDS if key == 'kind' else ACTIONS)}", rule=name)
    params = parts.get("params", {})
    if not isinstance(params, Mapping):
        raise RuleError("params", "a mapping of names to values", rule=name)
    route, field = parts.get("route"), parts.get("field")
    if parts["kind"] == "header" and field is not None:
        field = field.lower()
    made = f"{parts['kind']}:{field if field is not None else '**'}:{parts['action']}" + (
        f"@{route}" if route else ""
    )
    rule = Rule(
        id=name or made,
        kind=parts["kind"],
        action=parts["action"],
        route=route,
        field=field,
        params=dict(params),
        owner=parts.get("owner"),
        reason=parts.get("reason"),
        expires_at=_moment(parts.get("expires_at"), name),
    )
    check_rule(rule)
    return rule


def check_rule(rule: Rule) -> None:
    """Raise RuleError if a part of the rule is wrong or its parts do not fit together."""
    if rule.kind not in KINDS:
        raise RuleError("kind", f"one of {', '.join(KINDS)}", rule=rule.id)
    if rule.action not in ACTIONS:
        raise RuleError("action", f"one of {', '.join(ACTIONS)}", rule=rule.id)
    if rule.kind == "status" and rule.action not in STATUS_ACTIONS:
        raise RuleError("action", f"one of {', '.join(STATUS_ACTIONS)} for a status", rule=rule.id)
    if rule.kind == "status" and rule.field:
        raise RuleError("field", "nothing, for a status has no fields", rule=rule.id)
    wrong = "field"
    try:
        field_regex(rule)
        wrong = "route"
        route_regex(rule.route or "")
    except PatternError as error:
        raise RuleError(wrong, str(error).removeprefix("expected "), rule=rule.id) from None
    unknown = sorted(str(key) for key in rule.params.keys() - _PARAMS[rule.action])
    if unknown:
        known = ", ".join(sorted(_PARAMS[rule.action])) or "none"
        raise RuleError(f"params.{unknown[0]}", f"for {rule.action} one of: {known}", rule=rule.id)
    compile_check(rule)
    key = rule.params.get("key", "/id")
    if not isinstance(key, str) or not key.startswith("/") or len(key) > PATTERN_CHARS_MAX:
        raise RuleError("params.key", "a JSON Pointer into each element, such as /id", rule=rule.id)
    if not isinstance(rule.params.get("space", ""), str):
        raise RuleError("params.space", "a name", rule=rule.id)


def field_regex(rule: Rule) -> str:
    """Return the expression a difference's field must match. Raises PatternError."""
    if rule.field is None:
        return ".*"
    if rule.kind == "header" or (rule.kind == "*" and rule.field and rule.field[0] not in "/*"):
        return name_regex(rule.field)
    return pointer_regex(rule.field)


def compile_check(rule: Rule) -> tolerance.Check | None:
    """Return the comparison of two values the rule asks for, None if it needs none. Raises RuleError."""
    make = _CHECKS.get(rule.action)
    if make is None:
        return None
    try:
        return make(rule.params)
    except tolerance.ParamError as error:
        raise RuleError(f"params.{error.param}", error.expected, rule=rule.id) from None


def _moment(given: object, name: str) -> float | None:
    if given is None:
        return None
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    try:
        read = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    except ValueError:
        raise RuleError("expires_at", "an ISO 8601 time or Unix seconds", rule=name) from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
