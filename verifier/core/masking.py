"""Elements without what rules let differ, to find which elements of two arrays belong together."""

from __future__ import annotations

from collections.abc import Callable

from verifier.core.canonical import Json, canonical, json_type
from verifier.core.policy import Match
from verifier.core.rules import IGNORE, UNORDERED
from verifier.core.witness import segment

RuleAt = Callable[[str], Match | None]
_DEPTH_MAX = 64


def masked(value: Json, field: str, rule_at: RuleAt, depth: int = 0) -> Json:
    """Return a value with ignored members left out and tolerated ones replaced by their type.

    The copy only serves to label elements: those paired by it are compared in full afterwards. Deeper than 64 levels
    nothing is replaced.
    """
    found = rule_at(field)
    if found is not None and found.action == UNORDERED and found.at and isinstance(value, list):
        items = [masked(item, field + "/*", rule_at, depth + 1) for item in value]
        return sorted(items, key=canonical) if depth < _DEPTH_MAX else value
    if found is not None and found.action != UNORDERED:
        # No number's text begins with "*", so the mask equals nothing but itself.
        return b"*" if found.action == IGNORE else b"*" + json_type(value).encode()
    if depth >= _DEPTH_MAX:
        return value
    if isinstance(value, list):
        return [masked(item, field + "/*", rule_at, depth + 1) for item in value]
    if isinstance(value, dict):
        return _masked_members(value, field, rule_at, depth)
    return value


def _masked_members(value: dict[str, Json], field: str, rule_at: RuleAt, depth: int) -> Json:
    made: dict[str, Json] = {}
    for name, member in value.items():
        below = f"{field}/{segment(name)}"
        found = rule_at(below)
        if found is None or found.action != IGNORE:
            made[name] = masked(member, below, rule_at, depth + 1)
    return made
