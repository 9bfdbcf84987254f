"""The schemas are sound, the guide's examples keep to them, and so does what the capture library publishes."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner
from jsonschema import Draft202012Validator

from verifier.capture import CaptureMiddleware, MemoryPublisher, record_write

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["edge", "response", "write", "divergence", "conflict", "rejected", "report"]
GUIDE = (ROOT / "docs" / "producing-events.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```json (\w+)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)

EDGE = {"request_id": "r", "side": "main", "ts": 1.5, "method": "GET", "uri": "/"}
RESPONSE = {"request_id": "r", "side": "main", "ts": 1.5, "method": "GET", "path": "/", "status": 200}
WRITE = {"request_id": "r", "side": "main", "ts": 1.5, "entity": "t", "key": 1, "op": "insert"}
DEBEZIUM = {"op": "c", "after": {"id": 1}, "source": {"table": "t", "ts_ms": 1}}
DIVERGENCE = {
    "request_id": "r", "route": "GET /", "ts": 1.5, "verdict": "divergence",
    "differences": [{"kind": "body", "path": "/a/0", "field": "/a/*", "change": "value", "main": 1, "shadow": None}],
}  # fmt: skip
CLAIM = {"side": "main", "request_id": "r", "ts": 1.5, "data": {"a": 1}}
CONFLICT = {
    "id": "c", "scope": "idempotency", "key": "k", "entity": "t", "kind": "duplicate", "winner": CLAIM,
    "loser": CLAIM, "strategy": "first_write", "ts": 1.5,
}  # fmt: skip
REJECTED = {"topic": "edge.requests", "partition": 0, "offset": 7, "reason": "not_json"}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", NAMES)
def test_each_schema_is_one_and_says_what_it_is(name: str) -> None:
    schema = validator(name).schema
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].endswith(f":{name}")
    assert schema["title"]
    assert schema["description"]


def test_there_is_no_schema_without_a_test() -> None:
    assert {path.name for path in (ROOT / "schemas").glob("*.json")} == {f"{n}.schema.json" for n in NAMES}


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_each_example_of_the_guide_keeps_to_its_schema(name: str, example: str) -> None:
    record = json.loads(example)
    validator(name).validate(record)
    if "ts" in record:
        assert 1_700_000_000 < record["ts"] < 2_000_000_000


def test_the_guide_has_examples_of_all_that_comes_in() -> None:
    assert {name for name, _ in EXAMPLES} == {"edge", "response", "write"}
    assert len(EXAMPLES) == GUIDE.count("```json"), "every JSON example names its schema"


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("edge", EDGE | {"status": "-", "upstream_status": "502, 200", "upstream_time_s": ""}),
        ("edge", EDGE | {"status": 200, "upstream_time_s": "0.001 : 0.002", "mine": {"kept": True}}),
        ("response", RESPONSE),
        ("response", RESPONSE | {"body": None, "writes": 0, "unknown": 1}),
        ("response", RESPONSE | {"body": "x", "body_encoding": "base64", "headers": {"a": ["1", "2"]}}),
        ("response", RESPONSE | {"body_truncated": True, "capture_gap": "response_dropped"}),
        ("write", WRITE | {"key": {"a": 1}, "seq": 0, "status": "failed"}),
        ("write", DEBEZIUM),
        ("write", {"schema": None, "payload": DEBEZIUM}),
        ("divergence", DIVERGENCE),
        ("conflict", CONFLICT),
        ("rejected", REJECTED | {"value": "e30="}),
    ],
)
def test_what_the_contract_allows_is_valid(name: str, record: dict[str, Any]) -> None:
    validator(name).validate(record)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        *[("edge", {k: v for k, v in EDGE.items() if k != left}) for left in EDGE],
        *[("response", {k: v for k, v in RESPONSE.items() if k != left}) for left in RESPONSE],
        *[("write", {k: v for k, v in WRITE.items() if k != left}) for left in WRITE],
        *[("divergence", {k: v for k, v in DIVERGENCE.items() if k != left}) for left in DIVERGENCE],
        *[("conflict", {k: v for k, v in CONFLICT.items() if k != left}) for left in CONFLICT],
        *[("rejected", {k: v for k, v in REJECTED.items() if k != left}) for left in REJECTED],
        ("edge", EDGE | {"side": "reference"}),
        ("edge", EDGE | {"status": "ok"}),
        ("response", RESPONSE | {"ts": "1.5"}),
        ("response", RESPONSE | {"request_id": "a b"}),
        ("response", RESPONSE | {"request_id": "x" * 129}),
        ("response", RESPONSE | {"request_id": ""}),
        ("response", RESPONSE | {"side": "new"}),
        ("response", RESPONSE | {"status": "200"}),
        ("response", RESPONSE | {"body": {"a": 1}, "body_encoding": "text"}),
        ("response", RESPONSE | {"headers": {"Content-Type": "a"}}),
        ("response", RESPONSE | {"headers": {"a": 1}}),
        ("response", RESPONSE | {"writes": -1}),
        ("response", RESPONSE | {"v": 2}),
        ("write", WRITE | {"op": "replace"}),
        ("write", WRITE | {"key": None}),
        ("write", WRITE | {"seq": -1}),
        ("write", DEBEZIUM | {"op": "x"}),
        ("write", {"payload": WRITE | {"op": "x"}}),
        ("divergence", DIVERGENCE | {"verdict": "equal"}),
        ("divergence", DIVERGENCE | {"differences": [{"kind": "body", "path": "/a", "change": "moved"}]}),
        ("conflict", CONFLICT | {"kind": "other"}),
    ],
)
def test_what_the_contract_forbids_is_not(name: str, record: dict[str, Any]) -> None:
    assert not validator(name).is_valid(record)


def test_what_the_capture_library_publishes_is_valid() -> None:
    bodies = [b'{"a": 1.50}', b"plain", bytes(range(256)), b"", b"x" * 70_000]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        n = int(scope["path"][1:])
        record_write("t", {"n": n}, "upsert", data={"n": n}, before={})
        headers = [(b"Content-Type", b"application/json"), (b"set-cookie", b"a"), (b"set-cookie", b"b")]
        await send({"type": "http.response.start", "status": 200 + n, "headers": headers})
        await send({"type": "http.response.body", "body": bodies[n]})

    async def unused(*_: Any) -> Any:
        return None

    publisher = MemoryPublisher(side="main", queue_max=8)
    middleware = CaptureMiddleware(app, side="main", publisher=publisher)
    publisher.hold()
    for n in range(len(bodies)):
        scope = {"type": "http", "method": "PUT", "path": f"/{n}", "query_string": b"q=1"}
        asyncio.run(middleware(scope | {"headers": [(b"x-request-id", b"r%d" % n)]}, unused, unused))
    publisher.release()
    assert len(publisher.responses) == 5
    assert sum("capture_gap" in r for r in publisher.responses) == 1, "the queue was too small for all"
    for record in publisher.responses:
        validator("response").validate(record)
    assert len(publisher.writes) == 4
    for record in publisher.writes:
        validator("write").validate(record)


def test_the_partitions_the_guide_names_are_those_of_murmur2() -> None:
    sentence = re.search(r"with 4 partitions, the key .*?\.\s", GUIDE, re.DOTALL)
    assert sentence is not None
    named = re.findall(r"`([^`]+)`\s(?:belongs to partition|to) (\d)", sentence[0])
    assert len(named) == 4
    partitions = [0, 1, 2, 3]
    for key, partition in named:
        assert DefaultPartitioner()(key.encode(), partitions, partitions) == int(partition)


def test_the_outbox_table_of_the_guide_is_the_one_of_the_relay() -> None:
    shipped = (ROOT / "verifier" / "capture" / "outbox.sql").read_text(encoding="utf-8")

    def columns(sql: str) -> list[str]:
        body = sql.split("verifier_outbox (", 1)[1].split("\n);", 1)[0]
        return [re.sub(r"\s*--.*", "", line).strip().rstrip(",") for line in body.strip().splitlines()]

    assert columns(GUIDE.split("```sql", 1)[1]) == columns(shipped)
