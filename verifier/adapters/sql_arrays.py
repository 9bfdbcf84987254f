"""Rows as arrays: how many rows travel to PostgreSQL as the parameters of one statement (`unnest`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from verifier.core.storable import bounded_text

if TYPE_CHECKING:
    Connection: TypeAlias = (
        asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )
else:
    Connection = asyncpg.Connection  # not generic at run time

_SEPARATOR = "\x1f"


def columns_of(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """The columns of rows that are all `width` wide."""
    return [[row[place] for row in rows] for place in range(width)]


def listed(texts: Sequence[str]) -> str:
    """A list as one text, parted by U+001F for `string_to_array`: an array cannot hold ragged arrays."""
    return _SEPARATOR.join([bounded_text(text) for text in texts]) if texts else ""


def optional_text(text: str | None) -> str | None:
    """`bounded_text`, or None."""
    return None if text is None else bounded_text(text)
