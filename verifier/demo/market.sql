-- The sample systems' own database: what reads see (seeded, never changed), and what requests write.
-- Each written row has a key taken from the request, so that no request meets another one's row.

DROP SCHEMA IF EXISTS market CASCADE;
CREATE SCHEMA market;

CREATE TABLE market.quotes (
    symbol text PRIMARY KEY,
    name text NOT NULL,
    currency text NOT NULL,
    price double precision NOT NULL,
    previous_close double precision NOT NULL,
    change_pct double precision NOT NULL,
    volume bigint NOT NULL,
    market_cap bigint NOT NULL,
    active boolean NOT NULL,
    as_of timestamptz NOT NULL,
    trading_day date NOT NULL,
    closed_at timestamptz
);

CREATE TABLE market.news (
    news_id text PRIMARY KEY,
    topic text NOT NULL,
    rank integer NOT NULL,
    headline text NOT NULL,
    summary text NOT NULL,
    sentiment double precision NOT NULL,
    published_at timestamptz NOT NULL
);
CREATE INDEX news_by_rank ON market.news (topic, rank);

CREATE TABLE market.data_sources (
    source_id text PRIMARY KEY,
    name text NOT NULL,
    kind text NOT NULL,
    url text NOT NULL,
    status text NOT NULL CHECK (status IN ('pending', 'active')),
    enabled boolean NOT NULL,
    connection_id uuid NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE market.market_data_fetches (
    fetch_key text PRIMARY KEY,
    batch text NOT NULL,
    symbol text NOT NULL,
    price double precision NOT NULL,
    volume bigint NOT NULL,
    fetch_id uuid NOT NULL,
    fetched_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE market.news_fetches (
    fetch_key text PRIMARY KEY,
    batch text NOT NULL,
    news_id text NOT NULL,
    position integer NOT NULL,
    fetch_id uuid NOT NULL,
    fetched_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE market.market_data_buffer (
    buffer_id text NOT NULL,
    symbol text NOT NULL,
    price double precision NOT NULL,
    volume bigint NOT NULL CHECK (volume >= 0),
    PRIMARY KEY (buffer_id, symbol)
);

CREATE TABLE market.news_buffer (
    buffer_id text PRIMARY KEY,
    topic text NOT NULL,
    headlines jsonb NOT NULL,
    item_count integer NOT NULL
);

-- A request with an idempotency key that is known is answered from here and writes nothing.
CREATE TABLE market.idempotency_keys (
    key text PRIMARY KEY,
    request_id text NOT NULL,
    answer jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
