-- First write wins: who lost to whom, who holds each idempotency key, and what both sides wrote.

-- Partitions share conflict keys, so findings of one key may be stored out of order: the key's version decides, and a
-- retracted conflict keeps its row, unseen, to hold back older findings.
CREATE TABLE conflicts (
    id text COLLATE "C" PRIMARY KEY,
    scope text NOT NULL,
    key text NOT NULL,
    entity text COLLATE "C",
    kind text COLLATE "C" NOT NULL,
    winner jsonb NOT NULL,
    loser jsonb NOT NULL,
    winner_request_id text COLLATE "C" NOT NULL,
    loser_request_id text COLLATE "C" NOT NULL,
    strategy text NOT NULL,
    ts double precision NOT NULL,
    version bigint NOT NULL,
    retracted boolean NOT NULL
);
CREATE INDEX conflicts_newest ON conflicts (ts, id) WHERE NOT retracted;
CREATE INDEX conflicts_of_entity ON conflicts (entity, ts, id) WHERE NOT retracted;
CREATE INDEX conflicts_of_winner ON conflicts (winner_request_id) WHERE NOT retracted;
CREATE INDEX conflicts_of_loser ON conflicts (loser_request_id) WHERE NOT retracted;
CREATE INDEX conflicts_ts ON conflicts USING brin (ts);

-- Conflicts that retention removed still count.
CREATE TABLE purged_conflicts (
    scope text NOT NULL,
    kind text NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (scope, kind)
);

CREATE TABLE idempotency_keys (
    key text COLLATE "C" PRIMARY KEY,
    operation_type text,
    user_id text,
    request_id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    processed_at timestamptz,
    result jsonb NOT NULL,
    error text
);
CREATE INDEX idempotency_keys_user ON idempotency_keys (user_id);
CREATE INDEX idempotency_keys_operation ON idempotency_keys (operation_type);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE TABLE shadow_writes (
    operation_type text NOT NULL,
    user_id text,
    request_id text COLLATE "C" PRIMARY KEY,
    shadow_request_id text COLLATE "C",
    main_request_id text COLLATE "C",
    shadow_data jsonb,
    main_data jsonb,
    shadow_status integer,
    main_status integer,
    created_at timestamptz NOT NULL,
    processed_at timestamptz,
    error text
);
CREATE INDEX shadow_writes_user ON shadow_writes (user_id);
CREATE INDEX shadow_writes_status ON shadow_writes (shadow_status, main_status);
CREATE INDEX shadow_writes_created ON shadow_writes (created_at);
