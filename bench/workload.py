"""The workload: requests of a market API as five topics' records, with the truth about each; all of it from a seed.

Two edge lines and two responses a request, 30 % of the requests write one to three rows on each side. 2 % diverge, each
in one of the ways of `DIVERGENCES`, 0.5 % lack a record of a side, 1 % have a body that is the same JSON written in
another order (a match, though not byte for byte), and a few retry a write with a used idempotency key (a conflict).

Event times are evenly spread over at least `SPAN_S_MIN`. Nothing is missing in the last `WHOLE_END_S` of them, so that
event time alone closes what is incomplete and a run ends with its last record. Headers are what a capture inside the
application sees (no `Date`); `dated` adds one, a second apart on some requests, as a capture at a proxy would.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench import bodies
from bench.divergence import BODY_DIVERGENCES, Change, respell
from bench.truth import Truth

SOURCES = ("edge.requests", "main.responses", "shadow.responses", "main.writes", "shadow.writes")
PARTITIONS = 4
REQUESTS = 250_000
SPAN_S_MIN = 240.0
WHOLE_END_S = 48.0
REQUESTS_PER_S_MAX = 1_000.0

MUTATING = 0.30
DIVERGENT, INCOMPLETE, RESPELLED = 0.02, 0.005, 0.01
RETRIED = 0.002  # of the mutating requests
WRITES = (0.85, 0.97, 1.0)  # cumulated: one, two, three writes a side
ROWS = 20_000  # rows a table has; one is written again only after all others
RETRY_AFTER = 200  # a retry comes that many requests after the write it repeats

READS: tuple[tuple[float, str, str], ...] = (
    (0.32, "/api/v1/market-data/{symbol}", "quote"),
    (0.50, "/api/v1/market-data", "quotes"),
    (0.66, "/api/v1/news/{id}", "article"),
    (0.90, "/api/v1/news", "articles"),
    (1.00, "/api/v1/data-sources", "sources"),
)
CHANGES: tuple[tuple[float, str, str, str], ...] = (
    (0.30, "POST", "/api/v1/market-data/fetch", "quotes"),
    (0.56, "POST", "/api/v1/news/fetch", "articles"),
    (0.63, "POST", "/api/v1/data-sources/connect", "sources"),
    (0.83, "PUT", "/api/v1/market-data/buffer", "quotes"),
    (0.96, "PUT", "/api/v1/news/buffer", "articles"),
    (1.00, "DELETE", "/api/v1/data-sources/{id}", "sources"),
)
ROUTES = (*(f"GET {path}" for _, path, _ in READS), *(f"{method} {path}" for _, method, path, _ in CHANGES))
_READ_DIVERGENCES = ("status", "header", *BODY_DIVERGENCES)
DIVERGENCES = (*_READ_DIVERGENCES, "write_value", "write_missing", "write_extra")
_LACKING = ("shadow", "shadow.responses", "main.responses", "shadow.edge")
_MAKERS: dict[str, Callable[[random.Random], dict[str, object]]] = {
    "quote": bodies.quote,
    "quotes": bodies.quotes,
    "article": bodies.article,
    "articles": bodies.articles,
    "sources": bodies.sources,
    "receipt": bodies.receipt,
}


class Line(NamedTuple):
    """A record as it is produced: index of its topic in `SOURCES`, key, value, event time in milliseconds."""

    source: int
    key: bytes
    value: bytes
    ts_ms: int


class _Request(NamedTuple):
    """What both sides are asked, and what becomes of it."""

    number: int
    request_id: str
    ts: float
    method: str
    path: str
    route: str
    user: str
    key: str
    table: str
    writes: int
    fate: str


class Workload:
    """Makes the requests one after the other; `truth` grows with them. Times are Unix seconds.

    `whole`: no request lacks anything. `dated`: headers as a proxy would capture them.
    """

    def __init__(
        self, seed: int, requests: int, *, began_at: float, dated: bool = False, whole: bool = False
    ) -> None:
        self.requests = requests
        self.span_s = span_s(requests)
        self.truth = Truth()
        self._rng = random.Random(seed)
        self._began_at = began_at
        self._dated, self._whole = dated, whole
        pools = random.Random(seed + 1)
        self._pools = {name: bodies.pool(pools, make) for name, make in _MAKERS.items()}
        self._row = Counter[str]()
        self._retriable: deque[tuple[_Request, list[str]]] = deque(maxlen=RETRY_AFTER)

    def __iter__(self) -> Iterator[Line]:
        """Every record, in about the order of its event time."""
        for number in range(self.requests):
            yield from self.request(number)

    def request(self, number: int, ts: float | None = None) -> list[Line]:
        """The records of the next request; at `ts` instead of its own time for live traffic."""
        draw = self._rng.random
        at = self._began_at + number * self.span_s / self.requests if ts is None else ts
        request_id = f"{self._rng.getrandbits(128):032x}"
        ask = self._changing if draw() < MUTATING else self._reading
        request = ask(number, request_id, at)
        lines = self._records(request)
        self.truth.note(lines)
        return lines

    # -- what is asked ------------------------------------------------------------------------------------------

    def _reading(self, number: int, request_id: str, at: float) -> _Request:
        rng = self._rng
        where = rng.random()
        path, kind = next((path, kind) for upto, path, kind in READS if where < upto)
        asked = path.replace("{symbol}", "ACME").replace("{id}", f"n-{rng.randrange(10**6):06d}")
        if kind in ("quotes", "articles"):
            asked += f"?page={rng.randrange(40)}&limit=20"
        fate = self._fate(number, ("shadow", *_LACKING), _READ_DIVERGENCES)
        user = f"user-{rng.randrange(5_000):04d}"
        return _Request(number, request_id, at, "GET", asked, f"GET {path}", user, "", kind, 0, fate)

    def _changing(self, number: int, request_id: str, at: float) -> _Request:
        rng = self._rng
        where, many = rng.random(), rng.random()
        method, path, table = next((m, p, t) for upto, m, p, t in CHANGES if where < upto)
        writes = 1 + sum(many >= upto for upto in WRITES)
        fate = self._fate(number, ("shadow.writes", *_LACKING), DIVERGENCES)
        user = f"user-{rng.randrange(5_000):04d}"
        key = f"{user}:{path.rsplit('/', 1)[1]}:{number}"
        asked = path.replace("{id}", f"ds-{rng.randrange(10**4):04d}")
        return _Request(
            number, request_id, at, method, asked, f"{method} {path}", user, key, table, writes, fate
        )

    def _fate(self, number: int, lacking: tuple[str, ...], divergences: tuple[str, ...]) -> str:
        drawn = self._rng.random()
        if drawn < DIVERGENT:
            return self._rng.choice(divergences)
        whole_from = self.requests * (1.0 - WHOLE_END_S / self.span_s)
        incomplete = 0.0 if self._whole else INCOMPLETE * self.requests / whole_from
        if drawn < DIVERGENT + incomplete and number < whole_from:
            return "lacks " + self._rng.choice(lacking)
        return "respelled" if drawn > 1.0 - RESPELLED else ""

    # -- records ------------------------------------------------------------------------------------------------

    def _records(self, request: _Request) -> list[Line]:
        rng, fate = self._rng, request.fate
        template = rng.choice(self._pools["receipt" if request.writes else request.table])
        body = template.replace(bodies.OF_THIS_REQUEST, request.request_id[:16])
        shadow_body, changes = body, []
        if fate in BODY_DIVERGENCES:
            shadow_body, change = BODY_DIVERGENCES[fate](body)
            changes = [change]
        elif fate == "respelled":
            shadow_body = respell(body)
        rows, shadow_rows = self._rows(request, changes) if request.writes else ([], [])
        statuses = (200, 202 if fate == "status" else 200)
        if fate in ("status", "header"):
            changes = [
                Change("status", "", "value")
                if fate == "status"
                else Change("header", "cache-control", "value")
            ]
        took = (0.004 + rng.random() * 0.06, 0.003 + rng.random() * 0.04)
        lines: list[Line] = []
        for side, text, written in (("main", body, rows), ("shadow", shadow_body, shadow_rows)):
            lines.append(self._edge(request, side, statuses[side == "shadow"], took[side == "shadow"]))
            lines.append(
                self._response(
                    request, side, statuses[side == "shadow"], took[side == "shadow"], text, len(written)
                )
            )
            lines += [
                self._write(request, side, row, seq, took[side == "shadow"])
                for seq, row in enumerate(written)
            ]
        return self._judged(request, lines, changes, same_bytes=body == shadow_body)

    def _judged(
        self, request: _Request, lines: list[Line], changes: list[Change], *, same_bytes: bool
    ) -> list[Line]:
        """Take away what is to be missing, and note the truth."""
        fate = request.fate
        if fate.startswith("lacks "):
            gone = fate.removeprefix("lacks ")
            lines = [line for line in lines if not _is_gone(gone, line)]
        verdict = "incomplete" if fate.startswith("lacks ") else "divergence" if changes else "match"
        whole = gone_responses(lines) == 0
        self.truth.judge(request.route, verdict, changes, same_bytes=same_bytes if whole else None)
        return lines

    def _rows(self, request: _Request, changes: list[Change]) -> tuple[list[str], list[str]]:
        """What both sides write: each row `"key":…,"op":…,"data":…`, cut out of a write record."""
        again = self._retriable[0] if len(self._retriable) == RETRY_AFTER else None
        repeats = again is not None and not request.fate and self._rng.random() < RETRIED
        if again is not None and repeats and again[0].route == request.route:
            self._retriable.clear()
            self._retry = again[0].key
            self.truth.conflicts += 2
            return list(again[1]), list(again[1])
        self._retry = ""
        rows = [self._row_of(request.table) for _ in range(request.writes)]
        shadow_rows = list(rows)
        entity = f"/{request.table}/*"
        if request.fate == "write_value":
            shadow_rows[-1] = shadow_rows[-1].replace('"state":"ok"', '"state":"new"')
            changes.append(Change("write", f"{entity}/state", "value"))
        elif request.fate == "write_missing":
            shadow_rows.pop()
            changes.append(Change("write", entity, "missing"))
        elif request.fate == "write_extra":
            shadow_rows.append(self._row_of(request.table))
            changes.append(Change("write", entity, "extra"))
        if not request.fate:
            self._retriable.append((request, rows))
        return rows, shadow_rows

    def _row_of(self, table: str) -> str:
        rng = self._rng
        number = self._row[table] % ROWS
        self._row[table] += 1
        data = (
            f'{{"id":"{table}-{number:05d}","state":"ok","price":{rng.randrange(100, 200_000) / 100},'
            f'"volume":{rng.randrange(10**6)},"revision":{self._row[table]},"source":"feed-{rng.randrange(40)}",'
            f'"updated_by":"ingest"}}'
        )
        return f'"entity":"{table}","key":"{table}-{number:05d}","op":"upsert","data":{data}'

    def _edge(self, request: _Request, side: str, status: int, took: float) -> Line:
        ts = request.ts + took
        value = (
            f'{{"v":1,"request_id":"{request.request_id}","side":"{side}","ts":{ts:.3f},"method":"{request.method}",'
            f'"uri":"{request.path}","status":{status},"upstream_status":"{status}",'
            f'"upstream_addr":"10.0.{len(side)}.17:8080","upstream_time_s":"{took:.3f}","request_time_s":{took:.3f},'
            f'"bytes_sent":{1_200 + request.number % 900},"host":"api.example.com","user_id":"{request.user}",'
            f'"idempotency_key":"{request.key}","sampled":true}}'
        )
        return self._line(0, request, value, ts)

    def _response(
        self, request: _Request, side: str, status: int, took: float, body: str, writes: int
    ) -> Line:
        ts = request.ts + took - 0.001
        cache = "no-store" if request.fate == "header" and side == "shadow" else "max-age=5"
        date = ""
        if self._dated:
            name = "uvicorn" if side == "main" else "api"
            date = f',"date":"Mon, 23 Nov 2026 00:00:{int(ts * 4) % 60:02d} GMT","server":"{name}"'
        key = f',"idempotency_key":"{request.key}"' if request.key else ""
        value = (
            f'{{"v":1,"request_id":"{request.request_id}","side":"{side}","ts":{ts:.4f},"method":"{request.method}",'
            f'"path":"{request.path}","status":{status},"headers":{{"content-type":"application/json",'
            f'"content-length":"{len(body.encode())}","cache-control":"{cache}"{date}}},"body":{body},'
            f'"duration_ms":{took * 1_000:.2f},"user_id":"{request.user}"{key},"writes":{writes}}}'
        )
        return self._line(1 if side == "main" else 2, request, value, ts)

    def _write(self, request: _Request, side: str, row: str, seq: int, took: float) -> Line:
        ts = request.ts + took - 0.002
        value = (
            f'{{"v":1,"request_id":"{request.request_id}","side":"{side}","ts":{ts:.4f},{row},"seq":{seq},'
            f'"operation":"{request.route}","user_id":"{request.user}",'
            f'"idempotency_key":"{self._retry or request.key}","status":"applied"}}'
        )
        return self._line(3 if side == "main" else 4, request, value, ts)

    def _line(self, source: int, request: _Request, value: str, ts: float) -> Line:
        return Line(source, request.request_id.encode(), value.encode(), int(ts * 1_000))

    _retry = ""  # the key that the request's writes carry instead of their own


def span_s(requests: int) -> float:
    """The event time that so many requests are spread over."""
    return max(SPAN_S_MIN, requests / REQUESTS_PER_S_MAX)


def _is_gone(gone: str, line: Line) -> bool:
    """Whether a record is of what a request lacks: a side, or one kind of record of a side."""
    source = SOURCES[line.source]
    if gone == "shadow":
        return source.startswith("shadow") or (line.source == 0 and b'"side":"shadow"' in line.value)
    if gone == "shadow.edge":
        return line.source == 0 and b'"side":"shadow"' in line.value
    return source == gone


def gone_responses(lines: list[Line]) -> int:
    """How many of the two responses of a request are not among its records."""
    return 2 - sum(line.source in (1, 2) for line in lines)
