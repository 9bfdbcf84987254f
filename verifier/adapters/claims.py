"""The live claims on conflict keys, in Redis: one scripted round trip for each batch.

Redis holds, for each conflict key, the set of its claimants (`core.conflict` has the theory and the merge the
script follows). Nothing here decides who wins: the script merges, and the caller reads the conflicts off the
merged set.

Every key belongs to one Redis, or to one with replicas behind a single primary; a Redis Cluster would need
the keys of a batch to share a slot.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, cast

import msgspec
from msgspec import Struct
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from verifier.core.conflict import (
    CLAIMANT_DATA_BYTES_MAX,
    CLAIMS_PER_KEY_MAX,
    keeps_oldest,
    order_key,
    stored_claimant,
)
from verifier.core.errors import DependencyDown
from verifier.core.outcome import Claim, Claimant

PREFIX = "idempotency:"
TIMEOUT_S = 5.0
CLAIMS_PER_CALL_MAX = 2_000
CONNECTIONS_MAX = 16
_KEY_BYTES_MAX = 256
_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
    OSError,
)
_SCRIPT = (resources.files("verifier.adapters") / "claims.lua").read_text(encoding="utf-8")
_SCRIPT_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

_encode = msgspec.json.Encoder(decimal_format="number").encode
_pack = msgspec.msgpack.encode
_unpack_answer = msgspec.msgpack.Decoder(tuple[str, int, list[tuple[int, int, list[str]]]]).decode
_decode_claimant = msgspec.json.Decoder(Claimant).decode


class ClaimSet(Struct):
    """All live claimants of one conflict key. `version` grows whenever the set changes."""

    scope: str
    key: str
    version: int
    claimants: Sequence[Claimant]


class ClaimResult(Struct):
    """What applying claims showed.

    `contested` are the touched keys with claimants of several requests. `epoch` names the life of the store's
    memory: when it is not the one seen before, earlier claims are lost and must be told again. `dropped`
    counts claimants that the bound on a set removed.
    """

    contested: Sequence[ClaimSet]
    epoch: str
    dropped: int = 0


class RedisClaims:
    """The claims of all workers. Every call raises DependencyDown while Redis is away.

    A set is forgotten `ttl_s` seconds after its last claim, or `entity_ttl_s` (as long, by default) when it
    is not about an idempotency key: both should exceed the time within which claims can conflict, plus what
    records may be late. Calls beyond `connections_max` at once wait for one another.
    """

    def __init__(
        self,
        url: str,
        prefix: str = PREFIX,
        ttl_s: float = 3600.0,
        *,
        entity_ttl_s: float | None = None,
        claims_per_key_max: int = CLAIMS_PER_KEY_MAX,
        timeout_s: float = TIMEOUT_S,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections_max,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1),
        )
        self._redis = Redis.from_pool(pool)
        self._prefix = prefix
        self._ttl_ms = _milliseconds(ttl_s)
        self._entity_ttl_ms = self._ttl_ms if entity_ttl_s is None else _milliseconds(entity_ttl_s)
        self._claims_per_key_max = claims_per_key_max

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Ask for a sign of life."""
        with _redis_errors():
            await cast(Any, self._redis.ping())

    async def eviction_policy(self) -> str | None:
        """What Redis does when its memory is full; None where it may not be asked."""
        with _redis_errors():
            try:
                answer = await cast(Any, self._redis.config_get("maxmemory-policy"))
            except ResponseError:  # managed services forbid CONFIG
                return None
        value = next(iter(answer.values()), None)
        return value.decode() if isinstance(value, bytes) else value

    async def apply(self, claims: Sequence[Claim]) -> ClaimResult:
        """Merge claims in, and return the touched keys that now have claimants of several requests.

        Claims of one batch may come in any order and more than once. A batch over 2000 claims takes several
        calls.
        """
        contested: dict[tuple[str, str], ClaimSet] = {}
        epoch, dropped = "", 0
        for start in range(0, max(1, len(claims)), CLAIMS_PER_CALL_MAX):
            result = await self._apply(claims[start : start + CLAIMS_PER_CALL_MAX])
            contested |= {(found.scope, found.key): found for found in result.contested}
            epoch, dropped = result.epoch, dropped + result.dropped
        return ClaimResult(list(contested.values()), epoch, dropped)

    async def _apply(self, claims: Sequence[Claim]) -> ClaimResult:
        numbers: dict[tuple[str, str], int] = {}
        rows: list[tuple[int, str, int, str, str]] = []
        for claim in claims:
            claimant = claim.claimant
            number = numbers.setdefault((claim.scope, claim.key), len(numbers) + 1)
            field = f"{claimant.side}|{claimant.request_id}"
            rows.append((number, field, claim.rev, order_key(claimant), _text_of(claimant)))
        hashes = [(self._redis_key(scope, key), *self._hash_options(scope)) for scope, key in numbers]
        answer = await self._call(
            [f"{self._prefix}epoch".encode()],
            [secrets.token_hex(8), self._claims_per_key_max, _pack(hashes), _pack(rows)],
        )
        epoch, dropped, sets = _unpack_answer(answer)
        places = list(numbers)
        return ClaimResult(
            [
                ClaimSet(*places[number - 1], version, [_decode_claimant(text) for text in texts])
                for number, version, texts in sets
            ],
            epoch,
            dropped,
        )

    async def versions(self, keys: Sequence[tuple[str, str]]) -> list[int]:
        """The version of each (scope, key) as it is now; 0 for a key without a set."""
        with _redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for scope, key in keys:
                pipeline.hget(self._redis_key(scope, key), "v")
            found = await pipeline.execute()
        return [0 if version is None else int(version) for version in found]

    async def _call(self, keys: Sequence[bytes], args: Sequence[str | int | bytes]) -> bytes:
        with _redis_errors():
            try:
                answer = await cast(Any, self._redis.evalsha(_SCRIPT_SHA, len(keys), *keys, *args))
            except NoScriptError:  # the first call, or Redis has been restarted
                answer = await cast(Any, self._redis.eval(_SCRIPT, len(keys), *keys, *args))
        return cast(bytes, answer)

    def _redis_key(self, scope: str, key: str) -> str:
        try:
            size = len(key) if key.isascii() else len(key.encode())
        except UnicodeEncodeError:  # a lone surrogate: no text for MessagePack
            size = _KEY_BYTES_MAX + 1
        if size > _KEY_BYTES_MAX:
            key = "#" + hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=32).hexdigest()
        return f"{self._prefix}{scope}:{key}"

    def _hash_options(self, scope: str) -> tuple[int, int]:
        oldest = keeps_oldest(scope)
        return (self._ttl_ms if oldest else self._entity_ttl_ms, int(oldest))


def _text_of(claimant: Claimant) -> str:
    """The claimant as it is kept: `stored_claimant`, without the care for what only PostgreSQL would refuse."""
    try:
        encoded = _encode(claimant)
    except UnicodeEncodeError:  # a lone surrogate
        return stored_claimant(claimant)
    return encoded.decode() if len(encoded) <= CLAIMANT_DATA_BYTES_MAX else stored_claimant(claimant)


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except _AWAY as error:
        raise DependencyDown("redis", f"{type(error).__name__}: {error}") from error
    except RedisError as error:
        if str(error).startswith(("LOADING", "MASTERDOWN", "NOREPLICAS", "BUSY", "MISCONF")):
            raise DependencyDown("redis", str(error)) from error
        raise


def _milliseconds(duration_s: float) -> int:
    return max(1, round(duration_s * 1000))
