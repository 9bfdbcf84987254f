-- The transactional outbox: a service inserts here in the same transaction as the write itself, so a write is
-- announced exactly when it commits. The relay publishes and deletes the rows.
CREATE TABLE IF NOT EXISTS verifier_outbox (
    id              bigserial   PRIMARY KEY,
    request_id      text        NOT NULL,
    side            text        NOT NULL,
    entity          text        NOT NULL,
    key             jsonb       NOT NULL,
    op              text        NOT NULL CHECK (op IN ('insert', 'update', 'upsert', 'delete')),
    seq             integer     NOT NULL CHECK (seq >= 0),
    data            jsonb,
    before          jsonb,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    operation       text,
    user_id         text,
    idempotency_key text,
    refused         text -- why the relay could not publish this row; such a row stays for someone to look at
);

CREATE INDEX IF NOT EXISTS verifier_outbox_waiting ON verifier_outbox (id) WHERE refused IS NULL;
