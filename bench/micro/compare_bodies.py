"""What one comparison of two answers costs, beside deepdiff on the same documents.

    python -m bench.micro.compare_bodies [--out FILE.json] [--case NAME] [--profile NAME]

It needs msgspec alone. Where `deepdiff` and `orjson` can be imported too, it measures `DeepDiff(orjson.loads(main),
orjson.loads(other))` on the same bytes and prints the ratio. The comparison includes reading the bodies and headers,
judging each difference by the default rules, and cutting the witnesses; deepdiff only finds what differs.

Each figure is the least mean time of a call over many runs, in microseconds of this process's CPU time. `us` is for
answers whose headers differ in three fields, `body us` for the same with equal headers; the ratio is of `us`. Every
case has many different documents, taken in turn, so no cache of a whole document can help; numbers and names repeat as
they do in real traffic. Python's garbage collection is on.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import platform
import pstats
import random
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from verifier.core.compare import compare_responses
from verifier.core.events import Response
from verifier.core.policy import Policy, rule_from_dict

try:
    import deepdiff
    import orjson
except ImportError:
    HAS_PEER = False  # the comparison is measured alone
else:
    HAS_PEER = True

ROUTE = "GET /api/v1/orders/{id}"
DOCUMENTS = 40
RUNS_MIN, RUNS_MAX, SPENT_S = 5, 300, 1.0
Document = dict[str, Any]
VOLATILE: list[Document] = [
    {"kind": "body", "field": "/request_id", "action": "ignore"},
    {"kind": "body", "field": "/generated_at", "action": "time_tolerance", "params": {"seconds": 5}},
    {"kind": "body", "field": "/items/*/etag", "action": "presence"},
    {"kind": "body", "field": "/took_ms", "action": "type"},
]
WORDS = [
    *("market", "data", "source", "ledger", "invoice", "shipment", "express", "standard", "north", "harbour"),
    *(
        "copper",
        "winter",
        "signal",
        "river",
        "stone",
        "garden",
        "planet",
        "number",
        "window",
        "travel",
        "review",
    ),
    *("update", "history", "summary", "account", "customer", "delivery"),
]
Case = Callable[[random.Random], tuple[bytes, bytes, list[dict[str, Any]]]]


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def document(rng: random.Random, items: int = 7) -> Document:
    """About 2 KB of JSON as an order service might answer it: ids, prices, times, flags, nested objects, an array."""
    return {
        "id": rng.randrange(10**6),
        "request_id": str(uuid.UUID(int=rng.getrandbits(128))),
        "status": rng.choice(["open", "paid", "shipped"]),
        "generated_at": f"2026-03-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:15:{rng.randint(0, 59):02}Z",
        "took_ms": rng.randint(1, 90),
        "customer": {
            "id": rng.randrange(10**6), "name": _words(rng, 2).title(), "email": "someone@example.org",
            "vip": rng.random() < 0.2, "address": {"street": _words(rng, 3), "zip": f"{rng.randrange(10**5):05}",
                                                    "country": "DE", "geo": [52.52, 13.405]},
        },
        "items": [
            {
                "id": rng.randrange(10**8), "sku": f"SKU-{rng.randrange(10**6):06}", "title": _words(rng, 4),
                "quantity": rng.randint(1, 9), "price": rng.randrange(100, 10**5) / 100, "discount": 0.0,
                "in_stock": rng.random() < 0.8, "tags": [rng.choice(WORDS) for _ in range(3)], "note": None,
                "etag": f"{rng.getrandbits(48):012x}",
            }
            for _ in range(items)
        ],
        "totals": {"net": rng.randrange(10**6) / 100, "tax": rng.randrange(10**5) / 100, "currency": "EUR",
                   "positions": items},
        "links": {"self": "/api/v1/orders/42", "invoice": "/api/v1/orders/42/invoice"},
        "history": [{"at": f"2026-02-{day:02}T10:00:00Z", "event": rng.choice(WORDS)} for day in (3, 7, 12)],
    }  # fmt: skip


def _compact(value: Document) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _copied(value: Document) -> Document:
    made: Document = json.loads(json.dumps(value))
    return made


def _identical(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    text = _compact(document(rng))
    return text, bytes(bytearray(text)), []


def _one_leaf(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    main = document(rng)
    other = _copied(main)
    other["items"][rng.randrange(7)]["price"] += 1
    return _compact(main), _compact(other), []


def _one_shallow_leaf(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    main = document(rng)
    return _compact(main), _compact(_copied(main) | {"status": "refused"}), []


def _ten_leaves(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    main = document(rng)
    other = _copied(main)
    for item in other["items"]:
        item["quantity"] += 1
    other["status"] = "refused"
    other["customer"]["address"]["zip"] = "x"
    other["totals"]["net"] += 1
    return _compact(main), _compact(other), []


def _inserted(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    main = document(rng)
    other = _copied(main)
    other["items"].insert(rng.randint(1, 5), document(rng, 1)["items"][0])
    return _compact(main), _compact(other), []


def _inserted_nameless(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """An element goes in, and the elements have neither id nor name."""
    main = document(rng)
    for item in main["items"]:
        del item["id"]
    other = _copied(main)
    new = document(rng, 1)["items"][0]
    del new["id"]
    other["items"].insert(rng.randint(1, 5), new)
    return _compact(main), _compact(other), []


def _reordered_array(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    main = document(rng)
    other = _copied(main)
    other["items"].reverse()
    return _compact(main), _compact(other), []


def _volatile(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """Ids and times of this very answer, which rules let differ."""
    main = document(rng)
    other = _copied(main)
    fresh = document(rng)
    for name in ("request_id", "generated_at", "took_ms"):
        other[name] = fresh[name]
    other["generated_at"] = main["generated_at"].replace("Z", ".250+00:00")
    for item, new in zip(other["items"], fresh["items"], strict=True):
        item["etag"] = new["etag"]
    return _compact(main), _compact(other), VOLATILE


def _respelt(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """Equal, though each member stands elsewhere, blanks are set and numbers are written otherwise."""
    main = document(rng)

    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            names = list(value)
            rng.shuffle(names)
            return {name: turned(value[name]) for name in names}
        return [turned(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(turned(_copied(main)), ensure_ascii=False)
    return _compact(main), text.replace('"discount": 0.0', '"discount": 0').encode(), []


def _respaced(rng: random.Random) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """Equal, but one side sets blanks, as Python's own encoder does."""
    main = document(rng)
    return _compact(main), json.dumps(main).encode(), []


CASES: dict[str, Case] = {
    "identical": _identical,
    "one leaf differs": _one_leaf,
    "one shallow leaf differs": _one_shallow_leaf,
    "ten leaves differ": _ten_leaves,
    "an element inserted": _inserted,
    "an element inserted, no ids": _inserted_nameless,
    "an array reordered": _reordered_array,
    "volatile fields, tolerated": _volatile,
    "equal, other key order": _respelt,
    "equal, other blanks": _respaced,
}


def _answer(side: str, body: bytes, second: int) -> Response:
    headers = {
        "content-type": "application/json", "content-length": str(len(body)),
        "date": f"Mon, 02 Mar 2026 10:00:{second % 60:02} GMT", "server": "nginx" if side == "main" else "envoy",
        "x-request-id": f"r{second}", "cache-control": "no-store", "vary": "accept-encoding",
    }  # fmt: skip
    return Response(
        request_id="r", side=side, ts=1.0, method="GET", path="/api/v1/orders/42", status=200, body=Raw(body),
        headers=Raw(json.dumps(headers).encode()),
    )  # fmt: skip


def _cpu_us(call: Callable[[], object], calls: int) -> float:
    """Return the least mean CPU time of a call, in microseconds, over many short runs: what others do here disturbs."""
    best_s, spent_s, runs = float("inf"), 0.0, 0
    while runs < RUNS_MIN or (spent_s < SPENT_S and runs < RUNS_MAX):
        begin = time.process_time()
        call()
        took_s = time.process_time() - begin
        best_s, spent_s, runs = min(best_s, took_s), spent_s + took_s, runs + 1
    return best_s / calls * 1e6


def _measure(name: str) -> dict[str, Any]:
    rng = random.Random(name)
    made = [CASES[name](rng) for _ in range(DOCUMENTS)]
    policy = Policy.default([rule_from_dict(rule) for rule in made[0][2]])
    pairs = [
        (_answer("main", main, n), _answer("shadow", other, n)) for n, (main, other, _) in enumerate(made)
    ]

    def ours() -> None:
        for main, other in pairs:
            compare_responses(main, other, route=ROUTE, policy=policy)

    alone = [(one, msgspec.structs.replace(two, headers=one.headers)) for one, two in pairs]

    def bodies_alone() -> None:
        for main, other in alone:
            compare_responses(main, other, route=ROUTE, policy=policy)

    found = [compare_responses(main, other, route=ROUTE, policy=policy) for main, other in pairs]
    row: dict[str, Any] = {
        "bytes": sum(len(main) for main, _, _ in made) // len(made),
        "differences": sum(len(each.differences) for each in found) / len(found),
        "ignored": sum(len(each.ignored) for each in found) / len(found),
        "us": _cpu_us(ours, len(pairs)),
        "body_us": _cpu_us(bodies_alone, len(pairs)),
    }
    if not HAS_PEER:
        return row

    def theirs() -> None:
        for main, other, _ in made:
            deepdiff.DeepDiff(orjson.loads(main), orjson.loads(other))

    row["deepdiff_us"] = _cpu_us(theirs, len(made))
    row["ratio"] = row["deepdiff_us"] / row["us"]
    return row


def _profile(name: str) -> None:
    rng = random.Random(name)
    made = [CASES[name](rng) for _ in range(DOCUMENTS)]
    policy = Policy.default([rule_from_dict(rule) for rule in made[0][2]])
    pairs = [
        (_answer("main", main, n), _answer("shadow", other, n)) for n, (main, other, _) in enumerate(made)
    ]
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(100):
        for main, other in pairs:
            compare_responses(main, other, route=ROUTE, policy=policy)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def _versions() -> dict[str, str]:
    made = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("msgspec", "deepdiff", "orjson"):
        if name in sys.modules:
            made[name] = str(getattr(sys.modules[name], "__version__", "?"))
    return made


def run() -> None:
    """Measure, or profile, what the command line asks for."""
    parser = argparse.ArgumentParser(description="What one comparison of two answers costs.")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, too")
    parser.add_argument("--case", choices=list(CASES), help="measure this case alone")
    parser.add_argument(
        "--profile", choices=list(CASES), help="show where the time of a case goes, and no figures"
    )
    given = parser.parse_args()
    if given.profile:
        _profile(given.profile)
        return
    rows = {name: _measure(name) for name in ([given.case] if given.case else CASES)}
    print(
        f"{'case':28} {'bytes':>6} {'found':>6} {'ignored':>7} {'us':>7} {'body us':>7} {'deepdiff us':>12} ratio"
    )
    for name, row in rows.items():
        peer = f"{row['deepdiff_us']:12.0f} {row['ratio']:5.0f}" if "ratio" in row else f"{'-':>12} {'-':>5}"
        found = f"{row['differences']:6.1f} {row['ignored']:7.1f}"
        print(f"{name:28} {row['bytes']:6} {found} {row['us']:7.1f} {row['body_us']:7.1f} {peer}")
    if given.out:
        given.out.write_text(json.dumps({"versions": _versions(), "cases": rows}, indent=1) + "\n")


if __name__ == "__main__":
    run()
