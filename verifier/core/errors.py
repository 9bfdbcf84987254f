"""What can go wrong, as types: one root, and a message that says what is wrong, where, and what to do."""

from __future__ import annotations


class VerifierError(Exception):
    """Root of all errors the verifier raises on purpose."""


class DependencyDown(VerifierError):
    """A server this work cannot go on without does not answer; trying again later is right.

    `dependency` is its short name (`postgres`, `redis`, `kafka`).
    """

    def __init__(self, dependency: str, detail: str) -> None:
        super().__init__(f"{dependency} is not available: {detail}")
        self.dependency = dependency
        self.detail = detail


class StaleApply(VerifierError):
    """The tables stand elsewhere than thought: another worker owns the partition, or did this before.

    `expected_n` is the entry number the batch would follow, `actual_n` the one the tables have (-1: none).
    """

    def __init__(self, partition: int, expected_n: int, actual_n: int) -> None:
        super().__init__(
            f"partition {partition}: the tables stand at entry {actual_n}, not at {expected_n}:"
            " read the position again before applying more"
        )
        self.partition = partition
        self.expected_n = expected_n
        self.actual_n = actual_n
