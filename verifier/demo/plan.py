"""Which requests the demo sends, and which of them meet a fault: a pure function of a seed.

Requests come in blocks of 25: one fault in each (about 4 %), in every second block a client's honest retry, and
ordinary traffic. The kinds of fault take turns in a shuffled order, so each comes about as often. The successor knows
a request by its id, which carries its number and a hash of number and seed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, Final, Literal

from verifier.demo.faults import BY_NAME, FAULTS, Fault

Role = Literal["single", "first", "retry", "second"]

BLOCK: Final = 25
SEED: Final = 7
USERS: Final = 200
_ID: Final = re.compile(r"demo-(\d{1,8})-([0-9a-f]{12})")
_RETRIED: Final = ("market_fetch", "news_fetch", "source_connect", "market_buffer", "news_buffer")
_ORDINARY: Final[dict[str, int]] = {
    "market_get": 16,
    "news_list": 10,
    "news_item": 9,
    "news_item_absent": 2,
    "source_get": 7,
    "search": 8,
    "market_report": 5,
    "market_convert": 5,
    "market_sparkline": 4,
    "market_fetch": 7,
    "news_fetch": 6,
    "source_connect": 5,
    "market_buffer": 5,
    "news_buffer": 5,
    "source_delete": 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One request to be sent. `subject` is the number whose rows and user it has: its own, or its partner's.

    `variant` 1 sends other data for the same rows. `role` says how it goes with its partner: `retry` has the first's
    idempotency key, `second` follows the first at once on the same row.
    """

    number: int
    request_id: str
    operation: str
    subject: int
    user_id: str
    role: Role = "single"
    variant: int = 0
    partner: int | None = None
    fault: str | None = None


class Plan:
    """All requests of one seed. Every answer is a function of the seed and a request's number alone."""

    def __init__(self, seed: int = SEED) -> None:
        self.seed = seed
        self._block = lru_cache(64)(self._make_block)

    def request(self, number: int) -> Planned:
        """The request of this number, from 0."""
        return self._block(number // BLOCK)[number % BLOCK]

    def requests(self, count: int) -> Iterator[Planned]:
        """The first `count` requests, taken up to the end of a block."""
        for block in range(blocks_for(count)):
            yield from self._block(block)

    def lookup(self, request_id: str) -> Planned | None:
        """The planned request of this id; None for an id that this seed did not make."""
        match = _ID.fullmatch(request_id)
        if match is None or self.request_id(int(match[1])) != request_id:
            return None
        return self.request(int(match[1]))

    def request_id(self, number: int) -> str:
        """The id of request `number`."""
        digest = hashlib.blake2b(f"{self.seed}:{number}".encode(), digest_size=6).hexdigest()
        return f"demo-{number:05d}-{digest}"

    def fault_of(self, request_id: str) -> Fault | None:
        """The fault this request meets, if any."""
        planned = self.lookup(request_id)
        return None if planned is None or planned.fault is None else BY_NAME[planned.fault]

    def truth(self, count: int) -> list[dict[str, Any]]:
        """What was planted in the first `count` requests: a row a fault, as the truth file has it.

        `touches` are the requests the fault may show at: its own and its partner's.
        """
        rows = []
        for planned in self.requests(count):
            if planned.fault is None:
                continue
            fault = BY_NAME[planned.fault]
            touches = [planned.request_id]
            if planned.partner is not None:
                touches.append(self.request_id(planned.partner))
            rows.append(
                {
                    "request_id": planned.request_id,
                    "fault": fault.name,
                    "operation": planned.operation,
                    "description": fault.description,
                    "touches": touches,
                    "expect": fault.expect.as_json(),
                }
            )
        return rows

    def _make_block(self, block: int) -> tuple[Planned, ...]:
        rng = Random(f"{self.seed}:block:{block}")
        fault = self._fault_of_block(block)
        at = rng.randrange(11)
        planned = {request.number: request for request in self._faulty(block * BLOCK + at, fault, rng)}
        if block % 2:
            first = block * BLOCK + rng.randrange(13, 24)
            operation = rng.choice(_RETRIED)
            planned |= {r.number: r for r in self._pair(first, operation, role="retry", variant=0)}
        names, weights = list(_ORDINARY), list(_ORDINARY.values())
        for number in range(block * BLOCK, (block + 1) * BLOCK):
            if number not in planned:
                planned[number] = self._single(number, rng.choices(names, weights)[0])
        return tuple(planned[number] for number in sorted(planned))

    def _fault_of_block(self, block: int) -> Fault:
        turn, place = divmod(block, len(FAULTS))
        order = Random(f"{self.seed}:turn:{turn}").sample(range(len(FAULTS)), len(FAULTS))
        return FAULTS[order[place]]

    def _faulty(self, number: int, fault: Fault, rng: Random) -> tuple[Planned, ...]:
        operation = rng.choice(fault.operations)
        if fault.pairing is None:
            return (self._single(number, operation, fault=fault.name),)
        if fault.pairing == "same_row":
            return self._pair(number, operation, role="second", variant=1, fault_of_first=fault.name)
        variant = 1 if fault.pairing == "retry_with_other_data" else 0
        return self._pair(number, operation, role="retry", variant=variant, fault_of_follower=fault.name)

    def _pair(
        self,
        number: int,
        operation: str,
        *,
        role: Role,
        variant: int,
        fault_of_first: str | None = None,
        fault_of_follower: str | None = None,
    ) -> tuple[Planned, ...]:
        user_id = self._user(number)
        return (
            Planned(
                number=number,
                request_id=self.request_id(number),
                operation=operation,
                subject=number,
                user_id=user_id,
                role="first",
                partner=number + 1,
                fault=fault_of_first,
            ),
            Planned(
                number=number + 1,
                request_id=self.request_id(number + 1),
                operation=operation,
                subject=number,
                user_id=user_id,
                role=role,
                variant=variant,
                partner=number,
                fault=fault_of_follower,
            ),
        )

    def _single(self, number: int, operation: str, *, fault: str | None = None) -> Planned:
        return Planned(
            number=number,
            request_id=self.request_id(number),
            operation=operation,
            subject=number,
            user_id=self._user(number),
            fault=fault,
        )

    def _user(self, number: int) -> str:
        return f"user-{Random(f'{self.seed}:user:{number}').randrange(USERS):03d}"


def blocks_for(count: int) -> int:
    """How many whole blocks hold `count` requests."""
    return -(-count // BLOCK)
