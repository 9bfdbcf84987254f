-- How far each partition's journal has been applied, and every count. A partition's rows are written by its owner
-- alone, in the transaction that moves journal_positions.n, so counts are exact over crashes, repeats and takeovers.

CREATE TABLE journal_positions (
    partition integer PRIMARY KEY,
    n bigint NOT NULL DEFAULT -1,               -- number of the last journal entry applied, -1: none
    journal_offset bigint NOT NULL DEFAULT -1,  -- where that entry lies in the journal
    keep_n bigint NOT NULL DEFAULT 0,           -- oldest entry whose requests may still be revised
    keep_offset bigint NOT NULL DEFAULT -1,     -- where that entry lies
    pending bigint NOT NULL DEFAULT 0,
    lag bigint NOT NULL DEFAULT 0,
    watermark double precision NOT NULL DEFAULT 0,
    verified_through double precision NOT NULL DEFAULT 0,
    worker text NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Where the entries from keep_n on lie; older ones are removed as keep_n grows.
CREATE TABLE journal_entries (
    partition integer NOT NULL,
    n bigint NOT NULL,
    journal_offset bigint NOT NULL,
    PRIMARY KEY (partition, n)
);

CREATE TABLE record_counts (
    partition integer NOT NULL,
    source smallint NOT NULL,
    records bigint NOT NULL,
    rejected bigint NOT NULL,
    duplicate bigint NOT NULL,
    late bigint NOT NULL,
    PRIMARY KEY (partition, source)
);

CREATE TABLE reject_counts (
    partition integer NOT NULL,
    source smallint NOT NULL,
    reason text COLLATE "C" NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (partition, source, reason)
);

-- n can be negative in one partition when a request came back on another; the sums over partitions are what counts.
CREATE TABLE verdict_counts (
    partition integer NOT NULL,
    route text COLLATE "C" NOT NULL,
    verdict text COLLATE "C" NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (partition, route, verdict)
);

-- latency_buckets follow LATENCY_BOUNDS_US in verifier/core/counts.py.
CREATE TABLE route_stats (
    partition integer NOT NULL,
    route text COLLATE "C" NOT NULL,
    side text COLLATE "C" NOT NULL,
    status_class text COLLATE "C" NOT NULL,
    n bigint NOT NULL,
    latency_sum_us bigint NOT NULL,
    latency_buckets bigint[] NOT NULL,
    PRIMARY KEY (partition, route, side, status_class)
);

-- n: requests in which the field differed and decided; ignored: in which a rule explained it.
CREATE TABLE field_counts (
    partition integer NOT NULL,
    route text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    field text COLLATE "C" NOT NULL,
    change text COLLATE "C" NOT NULL,
    n bigint NOT NULL,
    ignored bigint NOT NULL,
    first_ts double precision NOT NULL,
    last_ts double precision NOT NULL,
    PRIMARY KEY (partition, route, kind, field, change)
);
