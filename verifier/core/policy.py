"""The rules in force, compiled once: what may differ at a place, and which values are never shown.

Which rule wins: of all rules that match a difference, the most specific. First counts the route (exact before a
pattern before any), then the field (no wildcard before `*` before `**`, then the number of literal segments), then the
kind (named before `*`). Among equals the later wins, and a rule replaces an earlier one of the same id. So a configured
rule overrides a default one for the same header, and a narrow rule is safe from a broad one wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from verifier.core import patterns
from verifier.core.canonical import NotJson, parse
from verifier.core.default_rules import DEFAULT_RULES, REDACTED_NAMES
from verifier.core.limits import Limits
from verifier.core.rules import (
    EXACT,
    GENERATED_ID,
    IGNORE,
    PRESENCE,
    STATUS_ACTIONS,
    TYPE,
    Rule,
    RuleError,
    check_rule,
    compile_check,
    field_regex,
    rule_from_dict,
    unexpired,
)
from verifier.core.tolerance import Check
from verifier.core.witness import REDACTED, redacted_copy

__all__ = ["Limits", "Match", "Policy", "Rule", "RuleError", "rule_from_dict", "unexpired"]

_COVERS_BELOW = frozenset((IGNORE, PRESENCE, TYPE))
_LOOKUPS_MAX = 16_384
_ROUTES_MAX = 4_096
_CACHED_FIELD_CHARS_MAX = 512


class Compiled:
    """A rule ready to be asked. `check` compares two values where the action needs that."""

    __slots__ = ("_covered", "_field", "_route", "check", "rank", "rule")

    def __init__(self, rule: Rule, position: int) -> None:
        check_rule(rule)
        self.rule = rule
        self.check: Check | None = compile_check(rule)
        field = field_regex(rule)
        self._field = re.compile(field, re.DOTALL)
        below = rule.action in _COVERS_BELOW and rule.kind not in ("header", "status")
        self._covered = re.compile(f"(?:{field})(?:/.*)?", re.DOTALL) if below else None
        self._route = None if rule.route is None else re.compile(patterns.route_regex(rule.route), re.DOTALL)
        route_rank = 0 if rule.route is None else 1 if "*" in rule.route else 2
        field_rank = (0, 0) if rule.field is None else patterns.specificity(rule.field)
        self.rank = (route_rank, *field_rank, rule.kind != "*", position)

    def concerns(self, route: str, kind: str) -> bool:
        """Say whether the rule is about this kind of difference on this route."""
        if self.rule.kind not in ("*", kind) or (kind == "status" and self.rule.action not in STATUS_ACTIONS):
            return False
        return self._route is None or self._route.fullmatch(route) is not None

    def match(self, field: str) -> Match | None:
        """Return how the rule meets a field: at it, from above it, or not at all."""
        if self._field.fullmatch(field):
            return Match(self, True)
        if self._covered is not None and self._covered.fullmatch(field):
            return Match(self, False)
        return None


class Match(NamedTuple):
    """The rule that decides at a field. `at` is False when the rule is of a field above it."""

    compiled: Compiled
    at: bool

    @property
    def rule(self) -> Rule:
        return self.compiled.rule

    @property
    def action(self) -> str:
        return self.compiled.rule.action

    @property
    def excuses_absence(self) -> bool:
        """Whether something may be there on one side alone: if ignored, or below a value of which less is asked."""
        return self.action == IGNORE or (not self.at and self.action in (PRESENCE, TYPE))


class Policy:
    """Rules compiled once. Look-ups are cached, with a bound; equal policies give equal answers in any order."""

    def __init__(self, rules: Sequence[Rule] = (), *, redact: Iterable[str] = ()) -> None:
        """Compile the rules; `redact` adds names of fields and headers never to be shown. Raises RuleError."""
        by_id: dict[str, Rule] = {}
        for rule in rules:
            by_id.pop(rule.id, None)
            by_id[rule.id] = rule
        self.rules: tuple[Rule, ...] = tuple(by_id.values())
        compiled = [Compiled(rule, position) for position, rule in enumerate(self.rules)]
        self._compiled = sorted(compiled, key=lambda each: each.rank, reverse=True)
        names = {_folded(name) for name in (*REDACTED_NAMES, *redact)}
        self.redact = frozenset(name for name in names if name)
        self._secret = tuple(
            name.encode()
            for name in sorted(self.redact)
            if not any(part in name for part in self.redact - {name})
        )
        self._of_route = lru_cache(_ROUTES_MAX)(self._find_route)
        self._lookup = lru_cache(_LOOKUPS_MAX)(self._find)
        self._hides = lru_cache(_LOOKUPS_MAX)(self._find_hidden)
        self.tracks_ids = lru_cache(_ROUTES_MAX)(self._find_ids)

    @classmethod
    def default(cls, rules: Sequence[Rule] = (), *, redact: Iterable[str] = ()) -> Policy:
        """Return the default rules with the given ones after them."""
        return cls((*DEFAULT_RULES, *rules), redact=redact)

    def lookup(self, route: str, kind: str, field: str) -> Match | None:
        """Return the rule that decides at a field of this kind on this route; None if it is compared exactly."""
        if len(field) > _CACHED_FIELD_CHARS_MAX:
            return self._find(route, kind, field)
        return self._lookup(route, kind, field)

    def has_rules(self, route: str, kind: str) -> bool:
        """Say whether any rule is about this kind of difference on this route."""
        return bool(self._of_route(route, kind))

    def describe(self) -> list[dict[str, Any]]:
        """Return all rules as plain values, the one that wins first."""
        defaults = {rule.id: rule for rule in DEFAULT_RULES}
        return [
            {
                "id": rule.id,
                "route": rule.route,
                "kind": rule.kind,
                "field": rule.field,
                "action": rule.action,
                "params": dict(rule.params),
                "owner": rule.owner,
                "reason": rule.reason,
                "expires_at": rule.expires_at,
                "origin": "default" if defaults.get(rule.id) == rule else "configured",
            }
            for rule in (each.rule for each in self._compiled)
        ]

    def hides(self, path: str) -> bool:
        """Say whether a segment of a pointer, or a header's name, is one whose values are never shown."""
        if len(path) > _CACHED_FIELD_CHARS_MAX:
            return self._find_hidden(path)
        return self._hides(path)

    def mentions_secret(self, raw: bytes) -> bool:
        """Say whether a text might hold a redacted name (quick, never wrongly False except for escaped names)."""
        folded = raw.lower().replace(b"-", b"_")
        for name in self._secret:
            if name in folded:
                return True
        return b"\\u" in raw

    def redacted(self, raw: bytes) -> Any:
        """Return a JSON text's value with redacted members hidden; what cannot be read is hidden whole."""
        try:
            return redacted_copy(parse(raw), self.redact)
        except NotJson:
            return REDACTED

    def _find_route(self, route: str, kind: str) -> tuple[Compiled, ...]:
        return tuple(each for each in self._compiled if each.concerns(route, kind))

    def _find(self, route: str, kind: str, field: str) -> Match | None:
        for compiled in self._of_route(route, kind):
            found = compiled.match(field)
            if found is not None:
                return None if found.action == EXACT else found
        return None

    def _find_hidden(self, path: str) -> bool:
        return any(_folded(segment) in self.redact for segment in path.split("/"))

    def _find_ids(self, route: str, kind: str) -> bool:
        return any(each.rule.action == GENERATED_ID for each in self._of_route(route, kind))


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")
