"""Recording writes: what is said, in which order, and what happens when it cannot be said."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import threading
import uuid
from typing import Any

import pytest

from verifier.capture import MemoryPublisher, record_write
from verifier.capture.writes import WriteRecorder, current_recorder, recording


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Row:
    id: int
    price: decimal.Decimal


def recorder(publisher: MemoryPublisher, **changes: Any) -> WriteRecorder:
    fields: dict[str, Any] = {
        "request_id": "r-1", "side": "main", "method": "POST", "path": "/api/v1/news/fetch?limit=2",
        "user_id": "u-1", "idempotency_key": "k-1",
    }  # fmt: skip
    return WriteRecorder(publisher, **(fields | changes))


def test_a_write_record_says_what_was_written_and_by_whom() -> None:
    publisher = MemoryPublisher(side="main")
    with recording(recorder(publisher)):
        assert record_write("news", {"a": 1, "b": "x"}, "update", data={"v": 2}, before={"v": 1})
        assert record_write("news", 7, "insert", status="failed", operation="POST /other")
    first, second = publisher.writes
    assert {name: first[name] for name in first if name != "ts"} == {
        "v": 1, "request_id": "r-1", "side": "main", "entity": "news", "key": {"a": 1, "b": "x"}, "op": "update",
        "seq": 0, "status": "applied", "operation": "POST /api/v1/news/fetch", "user_id": "u-1",
        "idempotency_key": "k-1", "data": {"v": 2}, "before": {"v": 1},
    }  # fmt: skip
    assert (second["seq"], second["status"], second["operation"]) == (1, "failed", "POST /other")
    assert second["ts"] >= first["ts"]
    assert "data" not in second


def test_outside_a_request_nothing_is_recorded() -> None:
    assert current_recorder() is None
    assert record_write("news", 1, "insert") is False


def test_the_row_is_taken_as_it_is_now_not_as_it_is_later() -> None:
    publisher = MemoryPublisher(side="main")
    publisher.hold()
    row = {"v": 1}
    with recording(recorder(publisher)):
        record_write("t", 1, "insert", data=row)
    row["v"] = 2
    publisher.release()
    assert publisher.writes[0]["data"] == {"v": 1}


def test_the_values_rows_are_made_of_have_a_json_form() -> None:
    publisher = MemoryPublisher(side="main")
    zone = dt.timezone(dt.timedelta(hours=2))
    with recording(recorder(publisher)):
        record_write(
            "t",
            uuid.UUID(int=1),
            "insert",
            data={
                "decimal": decimal.Decimal("0.10"),
                "at": dt.datetime(2026, 1, 2, 3, 4, 5, 600, zone),
                "day": dt.date(2026, 1, 2),
                "raw": b"\x00\xff",
                "colour": Colour.RED,
                "rows": (Row(1, decimal.Decimal("1E+3")),),
                "big": 2**70,
            },
        )
    written = publisher.writes[0]
    assert written["key"] == "00000000-0000-0000-0000-000000000001"
    assert written["data"] == {
        "decimal": "0.10", "at": "2026-01-02T03:04:05.000600+02:00", "day": "2026-01-02", "raw": "AP8=",
        "colour": "red", "rows": [{"id": 1, "price": "1E+3"}], "big": 2**70,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": object()},
        {"data": float("nan")},
        {"data": {"a": "\ud800"}},
        {"data": {("a", "b"): 1}},
        {"op": "replace"},
        {"status": "maybe"},
        {"key": None},
        {"key": True},
        {"entity": ""},
        {"data": "x" * 2000},
    ],
)
def test_a_write_that_cannot_be_told_never_raises_and_is_owned_up_to(wrong: dict[str, Any]) -> None:
    publisher = MemoryPublisher(side="main")
    opened = recorder(publisher, write_bytes_max=1000)
    arguments: dict[str, Any] = {"entity": "t", "key": 1, "op": "insert"} | wrong
    with recording(opened):
        assert record_write(**arguments) is False
        assert record_write("t", 2, "insert") is True
    assert (opened.dropped, opened.published) == (1, 1)
    assert [w["seq"] for w in publisher.writes] == [1], "the place of the lost write stays free"


def test_deep_and_endless_data_is_refused() -> None:
    opened = recorder(MemoryPublisher(side="main"))
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    with recording(opened):
        assert record_write("t", 1, "insert", data=deep) is False
        assert record_write("t", 1, "insert", data=endless) is False
    assert opened.dropped == 2


def test_more_writes_than_the_bound_are_a_gap() -> None:
    publisher = MemoryPublisher(side="main")
    opened = recorder(publisher, writes_max=3)
    with recording(opened):
        assert [record_write("t", n, "insert") for n in range(5)] == [True, True, True, False, False]
    assert (opened.published, opened.dropped, len(publisher.writes)) == (3, 2, 3)


def test_each_of_many_threads_gets_a_place_of_its_own() -> None:
    publisher = MemoryPublisher(side="main")
    opened = recorder(publisher)

    def work(n: int) -> None:
        for m in range(50):
            opened.record("t", f"{n}-{m}", "insert")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(w["seq"] for w in publisher.writes) == list(range(400))
    assert opened.published == 400


def test_a_write_lost_after_the_response_leaves_a_gap_record_of_its_own() -> None:
    publisher = MemoryPublisher(side="main")
    opened = recorder(publisher)
    opened.finish(202)
    opened.record("t", 1, "insert", data=object())
    gap = publisher.responses[0]
    assert (gap["capture_gap"], gap["status"], gap["body_truncated"]) == ("writes_dropped", 202, True)
    assert (gap["method"], gap["path"]) == ("POST", "/api/v1/news/fetch?limit=2")


def test_a_write_the_broker_refuses_is_taken_back_from_the_count() -> None:
    publisher = MemoryPublisher(side="main", record_bytes_max=500)
    opened = recorder(publisher)
    opened.record("t", 1, "insert", data="x" * 1000)
    opened.record("t", 2, "insert")
    assert (opened.published, opened.dropped, publisher.stats().refused) == (1, 1, 1)
    opened.finish(200)
    opened.record("t", 3, "insert", data="x" * 1000)
    assert [r["capture_gap"] for r in publisher.responses] == ["writes_dropped"]


def test_a_request_that_uses_the_outbox_announces_no_count() -> None:
    publisher = MemoryPublisher(side="main")
    opened = recorder(publisher)
    opened.record("t", 1, "insert")
    assert opened.announced == 1
    slot = opened.reserve()
    assert (slot.seq, slot.request_id, slot.operation) == (1, "r-1", "POST /api/v1/news/fetch")
    assert opened.announced is None
