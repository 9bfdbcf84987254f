-- One row for each request id with its current verdict; what differed, and where. Event times are Unix seconds, as in
-- the records; request ids compare by bytes, as everywhere else.

CREATE TABLE requests (
    request_id text COLLATE "C" PRIMARY KEY,
    ts double precision NOT NULL,
    route text NOT NULL,
    verdict text NOT NULL,
    rev integer NOT NULL,
    reasons text[] NOT NULL,
    missing text[] NOT NULL,
    partition integer NOT NULL,
    journal_offsets bigint[] NOT NULL,  -- of every entry that gave it a verdict, oldest first
    user_id text,
    counted text NOT NULL               -- JSON: its share in the counts, to take back when it is revised
);
-- For retention alone. Rows come in about the order of their time, so a block range index does, at no cost a row.
CREATE INDEX requests_ts ON requests USING brin (ts);

CREATE TABLE divergences (
    request_id text COLLATE "C" PRIMARY KEY,
    ts double precision NOT NULL,
    route text COLLATE "C" NOT NULL,
    verdict text NOT NULL,
    reasons text[] NOT NULL,
    differences jsonb NOT NULL,
    ignored integer NOT NULL,           -- differences that rules explain
    dropped integer NOT NULL,           -- differences beyond the bound on how many are kept
    user_id text
);
CREATE INDEX divergences_newest ON divergences (ts, request_id);
CREATE INDEX divergences_of_route ON divergences (route, ts, request_id);

CREATE TABLE divergence_fields (
    request_id text COLLATE "C" NOT NULL,
    ts double precision NOT NULL,
    route text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    field text COLLATE "C" NOT NULL,
    change text COLLATE "C" NOT NULL,
    PRIMARY KEY (request_id, kind, field, change)
);
CREATE INDEX divergence_fields_of_field ON divergence_fields (kind, field, ts);
CREATE INDEX divergence_fields_exemplars ON divergence_fields (route, kind, field, change, ts, request_id);
CREATE INDEX divergence_fields_ts ON divergence_fields USING brin (ts);
