"""What the claims promise, asked of Redis and of the in-memory twin alike."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.contract.conftest import CLAIMS_PER_KEY_MAX
from tests.contract.journal_entries import claim
from verifier.adapters.claims import CLAIMS_PER_CALL_MAX, ClaimResult, RedisClaims
from verifier.core.errors import DependencyDown
from verifier.core.outcome import Claim, Claimant
from verifier.demo.stack.redis import Redis
from verifier.testing_claims import MemoryClaims

pytestmark = pytest.mark.asyncio
Claims = RedisClaims | MemoryClaims
KEY = ("idempotency", "main:k")


def _sets(result: ClaimResult) -> dict[tuple[str, str], list[str]]:
    return {
        (found.scope, found.key): sorted(c.request_id for c in found.claimants) for found in result.contested
    }


async def test_a_key_of_one_request_is_not_contested(claims: Claims) -> None:
    both_sides = [claim("a", 1.0, scope="entity"), claim("a", 1.5, scope="entity", side="shadow")]
    result = await claims.apply(both_sides)
    assert result.contested == []
    assert result.epoch


async def test_a_key_of_two_requests_comes_back_with_every_claimant(claims: Claims) -> None:
    await claims.apply([claim("a", 1.0, entity="news", operation="POST /n", seq=3, data=[{"ü": 0.1}])])
    result = await claims.apply([claim("b", 2.0, digest=2**64 - 1), claim("c", 9.0, key="main:other")])
    (found,) = result.contested
    assert (found.scope, found.key) == KEY
    assert sorted(found.claimants, key=lambda c: c.ts) == [
        claim("a", 1.0, entity="news", operation="POST /n", seq=3, data=[{"ü": 0.1}]).claimant,
        claim("b", 2.0, digest=2**64 - 1).claimant,
    ]


async def test_the_version_grows_only_when_the_set_changes(claims: Claims) -> None:
    assert await claims.versions([KEY, ("entity", "none")]) == [0, 0]
    await claims.apply([claim("a", 1.0)])
    (first,) = await claims.versions([KEY])
    assert first > 0
    result = await claims.apply([claim("a", 1.0), claim("a", 1.0)])
    assert await claims.versions([KEY]) == [first]
    result = await claims.apply([claim("b", 2.0)])
    assert result.contested[0].version > first
    again = await claims.apply([claim("b", 2.0), claim("a", 1.0)])
    assert again.contested[0].version == result.contested[0].version
    assert _sets(again) == {KEY: ["a", "b"]}


async def test_the_higher_revision_of_a_claim_wins_in_either_order(claims: Claims) -> None:
    old, new = claim("a", 2.0, digest=1), claim("a", 1.0, rev=1, digest=2)
    other = claim("b", 3.0)
    for scope, batches in (
        ("s1", ([old], [new, other])),
        ("s2", ([new], [old, other])),
        ("s3", ([old, new, other],)),
    ):
        for batch in batches:
            result = await claims.apply([_moved(c, scope) for c in batch])
        (found,) = result.contested
        assert {c.request_id: (c.ts, c.digest) for c in found.claimants} == {"a": (1.0, 2), "b": (3.0, 1)}


def _moved(moved: Claim, scope: str) -> Claim:
    return Claim(scope=scope, key=moved.key, claimant=moved.claimant, rev=moved.rev)


async def test_a_full_set_keeps_the_oldest_of_an_idempotency_key_and_the_newest_of_an_entity(
    claims: Claims,
) -> None:
    order = list(range(7))
    random.Random(1).shuffle(order)
    for i in order:
        for scope in ("idempotency", "entity"):
            result = await claims.apply([claim(f"r{i}", float(i), scope=scope)])
            assert all(len(found.claimants) <= CLAIMS_PER_KEY_MAX for found in result.contested)
    result = await claims.apply([claim("r3", 3.0, scope=scope) for scope in ("idempotency", "entity")])
    assert _sets(result) == {KEY: ["r0", "r1", "r2", "r3"], ("entity", "main:k"): ["r3", "r4", "r5", "r6"]}


async def test_a_claim_that_comes_too_late_for_a_full_set_is_counted_and_changes_nothing(
    claims: Claims,
) -> None:
    await claims.apply([claim(f"r{i}", float(i)) for i in range(CLAIMS_PER_KEY_MAX)])
    (before,) = await claims.versions([KEY])
    result = await claims.apply([claim("late", 99.0)])
    assert result.dropped == 1
    assert result.contested[0].version == before
    result = await claims.apply([claim("early", -1.0)])
    assert (result.dropped, _sets(result)[KEY]) == (1, ["early", "r0", "r1", "r2"])
    assert result.contested[0].version > before


async def test_odd_keys_and_large_data_are_kept_apart_and_bounded(claims: Claims) -> None:
    keys = ["", "|", ":", "\0", "\ud800", "é" * 5000, "é" * 4999 + "x", "main:k"]
    batch = [claim(request, 1.0, key=key, data="x" * 100_000) for key in keys for request in ("a", "b")]
    result = await claims.apply(batch)
    assert [found.key for found in result.contested] == keys
    for found in result.contested:
        assert [set(c.data["$cut"]) for c in found.claimants] == [{"bytes", "begins"}] * 2


async def test_a_batch_of_many_claims_is_applied_whole(claims: Claims) -> None:
    count = CLAIMS_PER_CALL_MAX + 500
    batch = [claim(f"r{i}", float(i), key=f"main:{i % (count // 2)}") for i in range(count)]
    result = await claims.apply(batch)
    assert len(result.contested) == count // 2
    assert (await claims.apply([])).contested == []


async def test_redis_forgets_a_set_in_time_and_versions_go_on(redis: Redis) -> None:
    claims = RedisClaims(redis.url(1), prefix="ttl:", ttl_s=0.05, entity_ttl_s=3600.0)
    await claims.apply([claim("a", 1.0), claim("a", 1.0, scope="entity")])
    (first, entity) = await claims.versions([KEY, ("entity", "main:k")])
    async with asyncio.timeout(10):
        while (await claims.versions([KEY, ("entity", "main:k")])) != [0, entity]:
            await asyncio.sleep(0.01)
    await claims.apply([claim("b", 2.0)])
    assert (await claims.versions([KEY]))[0] > first
    await claims.close()


async def test_the_twin_forgets_a_set_in_time_and_versions_go_on() -> None:
    now = [0.0]
    claims = MemoryClaims(ttl_s=5.0, entity_ttl_s=50.0, monotonic=lambda: now[0])
    await claims.apply([claim("a", 1.0), claim("a", 1.0, scope="entity")])
    (first, entity) = await claims.versions([KEY, ("entity", "main:k")])
    now[0] = 5.0
    assert await claims.versions([KEY, ("entity", "main:k")]) == [0, entity]
    await claims.apply([claim("b", 2.0)])
    assert (await claims.versions([KEY]))[0] > first


async def test_lost_memory_shows_in_the_epoch() -> None:
    claims = MemoryClaims()
    before = await claims.apply([claim("a", 1.0)])
    assert (await claims.apply([claim("b", 2.0)])).epoch == before.epoch
    claims.lose_memory()
    after = await claims.apply([claim("b", 2.0)])
    assert after.epoch != before.epoch
    assert after.contested == []


@pytest.mark.parametrize("appendonly", [True, False])
async def test_an_outage_of_redis_is_named_and_shows_in_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, appendonly: bool
) -> None:
    monkeypatch.delenv("VERIFIER_REDIS", raising=False)  # a server given from outside is not ours to restart
    with Redis(tmp_path, appendonly=appendonly) as server:
        claims = RedisClaims(server.url(1), timeout_s=1.0)
        before = await claims.apply([claim("a", 1.0)])
        assert (await claims.apply([claim("a", 1.0)])).epoch == before.epoch
        server.pause()
        with pytest.raises(DependencyDown, match="redis"):
            await claims.apply([claim("b", 2.0)])
        server.resume()
        await claims.apply([claim("b", 2.0)])
        server.stop()
        for call in (lambda: claims.apply([claim("b", 2.0)]), lambda: claims.versions([KEY]), claims.ping):
            with pytest.raises(DependencyDown) as down:
                await call()
            assert down.value.dependency == "redis"
        server.start()
        after = await claims.apply([claim("c", 3.0)])  # the script is gone, too, and comes back by itself
        assert after.epoch != before.epoch
        assert _sets(after) == ({KEY: ["a", "b", "c"]} if appendonly else {})
        await claims.close()


@pytest.mark.parametrize("seed", range(5))
async def test_redis_and_its_twin_agree(redis: Redis, seed: int) -> None:
    chance = random.Random(seed)
    real = RedisClaims(redis.url(1), prefix=f"agree-{seed}:", claims_per_key_max=CLAIMS_PER_KEY_MAX)
    twin = MemoryClaims(claims_per_key_max=CLAIMS_PER_KEY_MAX)

    def some() -> Claim:
        rev = chance.randrange(3)
        ts = chance.choice((-2.5, -0.0, 0.0, 1e-9, 5.0, 1e9)) - rev
        side = chance.choice(("main", "canary", "shadow"))
        scope, key = chance.choice(("idempotency", "entity")), chance.choice("xyz")
        return claim(
            f"r{chance.randrange(9)}", ts, scope=scope, key=key, side=side, rev=rev,
            seq=chance.randrange(3), digest=chance.randrange(3),
        )  # fmt: skip

    versions = {real: dict[tuple[str, str], int](), twin: dict[tuple[str, str], int]()}
    for _ in range(60):
        batch = [some() for _ in range(chance.randrange(1, 6))]
        places = sorted({(c.scope, c.key) for c in batch})
        seen = []
        for claims in (real, twin):
            result = await claims.apply(batch)
            now = dict(zip(places, await claims.versions(places), strict=True))
            moved = {place for place in places if versions[claims].get(place) != now[place]}
            versions[claims] |= now
            sets = {(s.scope, s.key): sorted(s.claimants, key=_identity) for s in result.contested}
            seen.append((result.dropped, sets, moved))
        assert seen[0] == seen[1]
    await real.close()


def _identity(claimant: Claimant) -> tuple[str, str]:
    return (claimant.side, claimant.request_id)
