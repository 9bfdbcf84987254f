"""Which of PostgreSQL's errors mean that it is away, so that trying again later is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from verifier.core.errors import DependencyDown, VerifierError

# OSError covers refused and reset connections and, since Python 3.11, every timeout
AWAY = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,  # a failover has left us on the standby
)
LOST_RACE = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)


class SchemaMissing(VerifierError):
    """The database answers but lacks our tables, or has those of another version."""


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Turn errors that mean "away for now" into DependencyDown, missing tables into SchemaMissing.

    Every other error passes through: it is a mistake of ours, not the server's state.
    """
    try:
        yield
    except (*AWAY, *LOST_RACE) as error:
        raise DependencyDown("postgres", f"{type(error).__name__}: {error}") from error
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise SchemaMissing(f"{error}: run `verifier init` to bring the database up to date") from error
    except asyncpg.InternalClientError as error:
        # what asyncpg says when the server dies while it reads an answer: its protocol is left between two states
        if "state" not in str(error):
            raise
        raise DependencyDown("postgres", f"{type(error).__name__}: {error}") from error
    except asyncpg.InterfaceError as error:
        # asyncpg has one type for a connection that broke under a call and for misuse of its API
        if "clos" not in str(error) and "connection" not in str(error):
            raise
        raise DependencyDown("postgres", f"{type(error).__name__}: {error}") from error
