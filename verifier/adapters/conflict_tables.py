"""Writing conflicts and idempotency keys to PostgreSQL, inside the store's transaction.

Partitions share these rows, so they are written in the order of their keys: two transactions then wait for
each other in one direction only.
"""

from __future__ import annotations

from typing import Any

from verifier.adapters.sql_arrays import Connection, columns_of, optional_text
from verifier.core.events import SIDE_RANK
from verifier.core.rollup import UNVERSIONED, Finding, KeyClaim
from verifier.core.storable import bounded_text, json_text
from verifier.core.views import claimant_view, key_result_view


async def write_findings(connection: Connection, findings: dict[str, Finding]) -> None:
    """Write conflicts and retractions; one of an older version than the stored one changes nothing."""
    if not findings:
        return
    # a retraction without a version cannot hold back an older finding, so it needs no row of its own
    plain = sorted(i for i, finding in findings.items() if finding.version == UNVERSIONED)
    if plain:
        await connection.execute(
            "UPDATE conflicts SET retracted = true WHERE id IN"
            " (SELECT id FROM conflicts WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE)",
            plain,
        )
    rows = [_finding_row(i, findings[i]) for i in sorted(findings.keys() - set(plain))]
    if not rows:
        return
    await connection.execute(
        """
        INSERT INTO conflicts AS c (id, scope, key, entity, kind, winner, loser, winner_request_id,
            loser_request_id, strategy, ts, version, retracted)
        SELECT id, scope, key, entity, kind, winner::jsonb, loser::jsonb, winner_id, loser_id, strategy, ts,
               version, retracted
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                    $8::text[], $9::text[], $10::text[], $11::float8[], $12::int8[], $13::bool[])
             AS t(id, scope, key, entity, kind, winner, loser, winner_id, loser_id, strategy, ts, version,
                  retracted)
        ON CONFLICT (id) DO UPDATE SET
            scope = excluded.scope, key = excluded.key, entity = excluded.entity, kind = excluded.kind,
            winner = excluded.winner, loser = excluded.loser,
            winner_request_id = excluded.winner_request_id, loser_request_id = excluded.loser_request_id,
            strategy = excluded.strategy, ts = excluded.ts,
            version = excluded.version, retracted = excluded.retracted
        WHERE excluded.version >= c.version
        """,
        *columns_of(rows, 13),
    )


def _finding_row(conflict_id: str, finding: Finding) -> tuple[Any, ...]:
    conflict = finding.conflict
    if conflict is None:  # holds back older findings until retention removes it
        return (conflict_id, "", "", None, "", "{}", "{}", "", "", "", finding.at, finding.version, True)
    return (
        conflict_id,
        conflict.scope,
        bounded_text(conflict.key),
        optional_text(conflict.entity),
        conflict.kind,
        json_text(claimant_view(conflict.winner)),
        json_text(claimant_view(conflict.loser)),
        conflict.winner.request_id,
        conflict.loser.request_id,
        conflict.strategy,
        conflict.ts,
        finding.version,
        False,
    )


async def write_keys(connection: Connection, claims: dict[str, KeyClaim], ttl_s: float) -> None:
    """Write who holds each idempotency key: the first in the total order, or that one's newer revision."""
    if not claims:
        return
    rows = [_key_row(key, claims[key], ttl_s) for key in sorted(claims)]
    await connection.execute(
        """
        INSERT INTO idempotency_keys AS k (key, operation_type, user_id, request_id, created_at, expires_at,
            processed_at, result, error)
        SELECT key, operation, user_id, request_id, to_timestamp(created), to_timestamp(expires),
               to_timestamp(processed), result::jsonb, error
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::float8[], $7::float8[],
                    $8::text[], $9::text[])
             AS t(key, operation, user_id, request_id, created, expires, processed, result, error)
        ON CONFLICT (key) DO UPDATE SET
            operation_type = excluded.operation_type, user_id = excluded.user_id,
            request_id = excluded.request_id, created_at = excluded.created_at,
            expires_at = excluded.expires_at, processed_at = excluded.processed_at,
            result = excluded.result, error = excluded.error
        WHERE CASE
            WHEN k.request_id = excluded.request_id AND k.result->>'side' = excluded.result->>'side'
            THEN (excluded.result->>'rev')::int8 >= (k.result->>'rev')::int8
            ELSE ((excluded.result->>'ts')::float8, array_position($10::text[], excluded.result->>'side'),
                  excluded.request_id, (excluded.result->>'seq')::int8)
               < ((k.result->>'ts')::float8, array_position($10::text[], k.result->>'side'),
                  k.request_id, (k.result->>'seq')::int8)
        END
        """,
        *columns_of(rows, 9),
        list(SIDE_RANK),
    )


def _key_row(key: str, found: KeyClaim, ttl_s: float) -> tuple[Any, ...]:
    claimant = found.claim.claimant
    return (
        key,
        optional_text(claimant.operation),
        optional_text(found.user_id),
        claimant.request_id,
        claimant.ts,
        claimant.ts + ttl_s,
        found.at,
        json_text(key_result_view(claimant, found.claim.rev)),
        optional_text(found.error),
    )
