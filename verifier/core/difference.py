"""What differs: the closed taxonomy of differences (the public contract's section 3)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct


class Kind(StrEnum):
    """Which part of the answer differs."""

    STATUS = "status"
    HEADER = "header"
    BODY = "body"
    WRITE = "write"


class Change(StrEnum):
    """In which way it differs. `missing`: main has it and the other side does not; `extra`: the reverse."""

    VALUE = "value"
    TYPE = "type"
    MISSING = "missing"
    EXTRA = "extra"
    LENGTH = "length"
    ORDER = "order"
    DUPLICATE = "duplicate"


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One difference, with both values as its witness.

    `path` is an RFC 6901 JSON Pointer ("" for the whole body or the status), a header's name, or
    `/{entity}/{key}/{pointer}` for a write. `field` is the path with array indexes and write keys replaced by `*`.
    `main` and `shadow` are JSON values, cut to a bound; None on the side that lacks it. `rule` names the rule that
    explains the difference away: such a difference is counted as ignored and never decides a verdict.
    """

    kind: str
    path: str
    field: str
    change: str
    main: Any = None
    shadow: Any = None
    rule: str | None = None


class Comparison(Struct, frozen=True, kw_only=True):
    """What comparing two sides found.

    `differences` decide the verdict, `ignored` are those a rule explains. `doubts` are the reasons why parts could not
    be compared fairly (`body_truncated`, `capture_gap`, ...): without differences, a doubt makes the pair
    incomparable. `dropped` and `ignored_dropped` count those beyond the bound on how many are kept.
    """

    differences: tuple[Difference, ...] = ()
    ignored: tuple[Difference, ...] = ()
    doubts: tuple[str, ...] = ()
    dropped: int = 0
    ignored_dropped: int = 0


NOTHING = Comparison()
