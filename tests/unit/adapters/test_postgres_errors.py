"""Which errors mean that PostgreSQL is away, and which are mistakes of ours."""

from __future__ import annotations

import asyncpg
import pytest

from verifier.adapters.postgres_errors import SchemaMissing, postgres_errors
from verifier.core.errors import DependencyDown


@pytest.mark.parametrize(
    ("error", "told_as"),
    [
        (ConnectionResetError("reset"), DependencyDown),
        (asyncpg.AdminShutdownError("terminating"), DependencyDown),
        (asyncpg.DeadlockDetectedError("deadlock"), DependencyDown),
        (asyncpg.InterfaceError("the underlying connection is closed"), DependencyDown),
        (asyncpg.InternalClientError("cannot switch to state 15; another operation"), DependencyDown),
        (asyncpg.InternalClientError("something else"), asyncpg.InternalClientError),
        (asyncpg.InterfaceError("wrong number of arguments"), asyncpg.InterfaceError),
        (asyncpg.UndefinedTableError("no table"), SchemaMissing),
        (asyncpg.NumericValueOutOfRangeError("too large"), asyncpg.NumericValueOutOfRangeError),
    ],
)
def test_an_error_is_told_as_what_it_is(error: Exception, told_as: type[Exception]) -> None:
    with pytest.raises(told_as), postgres_errors():
        raise error
