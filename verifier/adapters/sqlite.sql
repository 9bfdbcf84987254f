-- The tables of sql/ for SQLite: the same names and columns. Arrays and jsonb are JSON texts, times with a zone are ISO
-- 8601 texts in UTC, booleans are 0 and 1. `rejected_lines` is an offline run's own.

CREATE TABLE journal_positions (
    partition INTEGER PRIMARY KEY,
    n INTEGER NOT NULL DEFAULT -1,
    journal_offset INTEGER NOT NULL DEFAULT -1,
    keep_n INTEGER NOT NULL DEFAULT 0,
    keep_offset INTEGER NOT NULL DEFAULT -1,
    pending INTEGER NOT NULL DEFAULT 0,
    lag INTEGER NOT NULL DEFAULT 0,
    watermark REAL NOT NULL DEFAULT 0,
    verified_through REAL NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    updated_at TEXT NOT NULL
);
CREATE TABLE journal_entries (
    partition INTEGER NOT NULL,
    n INTEGER NOT NULL,
    journal_offset INTEGER NOT NULL,
    PRIMARY KEY (partition, n)
) WITHOUT ROWID;
CREATE TABLE record_counts (
    partition INTEGER NOT NULL,
    source INTEGER NOT NULL,
    records INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    duplicate INTEGER NOT NULL,
    late INTEGER NOT NULL,
    PRIMARY KEY (partition, source)
) WITHOUT ROWID;
CREATE TABLE reject_counts (
    partition INTEGER NOT NULL,
    source INTEGER NOT NULL,
    reason TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (partition, source, reason)
) WITHOUT ROWID;
CREATE TABLE verdict_counts (
    partition INTEGER NOT NULL,
    route TEXT NOT NULL,
    verdict TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (partition, route, verdict)
) WITHOUT ROWID;
CREATE TABLE route_stats (
    partition INTEGER NOT NULL,
    route TEXT NOT NULL,
    side TEXT NOT NULL,
    status_class TEXT NOT NULL,
    n INTEGER NOT NULL,
    latency_sum_us INTEGER NOT NULL,
    latency_buckets TEXT NOT NULL,
    PRIMARY KEY (partition, route, side, status_class)
) WITHOUT ROWID;
CREATE TABLE field_counts (
    partition INTEGER NOT NULL,
    route TEXT NOT NULL,
    kind TEXT NOT NULL,
    field TEXT NOT NULL,
    change TEXT NOT NULL,
    n INTEGER NOT NULL,
    ignored INTEGER NOT NULL,
    first_ts REAL NOT NULL,
    last_ts REAL NOT NULL,
    PRIMARY KEY (partition, route, kind, field, change)
) WITHOUT ROWID;

CREATE TABLE requests (
    request_id TEXT PRIMARY KEY,
    ts REAL NOT NULL,
    route TEXT NOT NULL,
    verdict TEXT NOT NULL,
    rev INTEGER NOT NULL,
    reasons TEXT NOT NULL,
    missing TEXT NOT NULL,
    partition INTEGER NOT NULL,
    journal_offsets TEXT NOT NULL,
    user_id TEXT,
    counted TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE divergences (
    request_id TEXT PRIMARY KEY,
    ts REAL NOT NULL,
    route TEXT NOT NULL,
    verdict TEXT NOT NULL,
    reasons TEXT NOT NULL,
    differences TEXT NOT NULL,
    ignored INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    user_id TEXT
);
CREATE INDEX divergences_newest ON divergences (ts, request_id);
CREATE TABLE divergence_fields (
    request_id TEXT NOT NULL,
    ts REAL NOT NULL,
    route TEXT NOT NULL,
    kind TEXT NOT NULL,
    field TEXT NOT NULL,
    change TEXT NOT NULL,
    PRIMARY KEY (request_id, kind, field, change)
) WITHOUT ROWID;
CREATE INDEX divergence_fields_exemplars ON divergence_fields (route, kind, field, change, ts, request_id);

CREATE TABLE conflicts (
    id TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    entity TEXT,
    kind TEXT NOT NULL,
    winner TEXT NOT NULL,
    loser TEXT NOT NULL,
    winner_request_id TEXT NOT NULL,
    loser_request_id TEXT NOT NULL,
    strategy TEXT NOT NULL,
    ts REAL NOT NULL,
    version INTEGER NOT NULL,
    retracted INTEGER NOT NULL
);
CREATE INDEX conflicts_newest ON conflicts (ts, id) WHERE NOT retracted;
CREATE INDEX conflicts_of_winner ON conflicts (winner_request_id) WHERE NOT retracted;
CREATE INDEX conflicts_of_loser ON conflicts (loser_request_id) WHERE NOT retracted;
CREATE TABLE purged_conflicts (
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (scope, kind)
) WITHOUT ROWID;
CREATE TABLE idempotency_keys (
    key TEXT PRIMARY KEY,
    operation_type TEXT,
    user_id TEXT,
    request_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    processed_at TEXT,
    result TEXT NOT NULL,
    error TEXT
);
CREATE TABLE shadow_writes (
    operation_type TEXT NOT NULL,
    user_id TEXT,
    request_id TEXT PRIMARY KEY,
    shadow_request_id TEXT,
    main_request_id TEXT,
    shadow_data TEXT,
    main_data TEXT,
    shadow_status INTEGER,
    main_status INTEGER,
    created_at TEXT NOT NULL,
    processed_at TEXT,
    error TEXT
);

CREATE TABLE rejected_lines (
    file TEXT NOT NULL,
    line INTEGER NOT NULL,
    topic TEXT,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    value BLOB,
    PRIMARY KEY (file, line, reason)
);
