"""The writes of one request, reconciled row by row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET, Raw

from verifier.core.difference import NOTHING, Comparison
from verifier.core.events import Write
from verifier.core.mapping import IdMapping
from verifier.core.policy import Policy, rule_from_dict
from verifier.core.reconcile import compare_writes

ABSENT: Any = object()


def write(
    entity: str, key: str, op: str = "insert", data: Any = ABSENT, *, before: Any = ABSENT, **rest: Any
) -> Write:
    return Write(
        request_id="r", side="main", ts=1.0, entity=entity, key=key, op=op,
        data=UNSET if data is ABSENT else Raw(json.dumps(data).encode()),
        before=UNSET if before is ABSENT else Raw(json.dumps(before).encode()), **rest,
    )  # fmt: skip


def compared(
    main: list[Write], other: list[Write], *rules: dict[str, Any], mapping: IdMapping | None = None
) -> Comparison:
    policy = Policy.default([rule_from_dict({"kind": "write"} | rule) for rule in rules])
    return compare_writes(main, other, route="POST /x", policy=policy, mapping=mapping)


def found(comparison: Comparison) -> list[tuple[str, str]]:
    assert all(each.kind == "write" for each in comparison.differences)
    return [(each.path, each.change) for each in comparison.differences]


A1, B1 = write("a", "1", data={"v": 1}), write("b", "1", data={"v": 1})


@pytest.mark.parametrize(
    ("main", "other"),
    [
        ([], []),
        ([A1], [A1]),
        ([A1], [write("a", "1", data={"v": 1.0})]),
        ([write("a", "1", seq=0), write("b", "1", seq=1)], [write("b", "1", seq=1), write("a", "1", seq=0)]),
        ([write("a", "1", "delete")], [write("a", "1", "delete", None)]),
        (
            [write("a", "1", data={"v": 1}, status="failed")],
            [write("a", "1", data={"v": 1}, status="failed")],
        ),
    ],
)
def test_the_same_writes_are_equal(main: list[Write], other: list[Write]) -> None:
    assert compared(main, other) is NOTHING


@pytest.mark.parametrize(
    ("main", "other", "expected"),
    [
        ([A1], [], [("/a/1", "missing")]),
        ([], [A1], [("/a/1", "extra")]),
        ([A1], [A1, A1], [("/a/1", "duplicate")]),
        ([A1, A1], [A1], [("/a/1", "missing")]),
        ([A1], [write("a", "1", data={"v": 2})], [("/a/1/v", "value")]),
        ([A1], [write("a", "1", data={"v": "1"})], [("/a/1/v", "type")]),
        ([A1], [write("a", "1", data={})], [("/a/1/v", "missing")]),
        ([A1], [write("a", "1")], [("/a/1/v", "missing")]),
        ([A1], [write("a", "1", "upsert", data={"v": 1})], [("/a/1", "value")]),
        ([A1], [write("a", "2", data={"v": 1})], [("/a/1", "missing"), ("/a/2", "extra")]),
        ([A1, B1], [B1, A1], [("/a/1", "order")]),
        ([A1], [write("a", "1", data={"v": 1}, status="failed")], [("/a/1", "value")]),
        ([write("a/b", "~1")], [], [("/a~1b/~01", "missing")]),
        (
            [A1, write("a", "1", "update", {"v": 2})],
            [A1, write("a", "1", "update", {"v": 3})],
            [("/a/1/v", "value")],
        ),
        ([A1], [A1, write("a", "1", "update", {"v": 2})], [("/a/1", "extra")]),
        ([write("a", "1", data=5)], [write("a", "1", data=6)], [("/a/1", "value")]),
        (
            [write("a", "1", data={"x": [1, 2, 3]})],
            [write("a", "1", data={"x": [1, 3]})],
            [("/a/1/x/1", "missing")],
        ),
    ],
)
def test_a_write_that_differs(main: list[Write], other: list[Write], expected: list[tuple[str, str]]) -> None:
    assert found(compared(main, other)) == expected


def test_fields_have_stars_for_keys() -> None:
    difference = compared([A1], [write("a", "1", data={"v": [2]})]).differences[0]
    assert difference.field == "/a/*/v"


def test_a_failed_write_names_both_outcomes() -> None:
    failed = write("a", "1", data={"v": 1}, status="failed")
    difference = compared([A1], [failed]).differences[0]
    assert (difference.main, difference.shadow) == ("applied", "failed")
    difference = compared([failed], [A1]).differences[0]
    assert (difference.main, difference.shadow) == ("failed", "applied")


def test_a_failed_attempt_before_the_same_write_changed_nothing_and_stays_visible() -> None:
    failed = write("a", "1", data={"v": 1}, status="failed")
    comparison = compared([A1], [failed, A1])
    assert comparison.differences == ()
    assert [(each.change, each.rule) for each in comparison.ignored] == [("extra", "not-applied")]


class TestDivergedState:
    def test_what_follows_from_it_is_ignored_and_the_pair_is_in_doubt(self) -> None:
        main = write("a", "1", "update", {"v": 2, "n": 2}, before={"v": 1, "n": 1})
        other = write("a", "1", "update", {"v": 2, "n": 9}, before={"v": 1, "n": 8})
        comparison = compared([main], [other])
        assert comparison.differences == ()
        assert [(each.path, each.rule) for each in comparison.ignored] == [("/a/1/n", "state-diverged")]
        assert comparison.doubts == ("state_diverged",)

    def test_an_equal_result_stays_in_doubt(self) -> None:
        main, other = (write("a", "1", "update", {"v": 2}, before=before) for before in ({"v": 1}, None))
        assert compared([main], [other]).doubts == ("state_diverged",)

    def test_other_rows_are_judged_all_the_same(self) -> None:
        main = write("a", "1", data={"v": 1}, before={"v": 0})
        other = write("a", "1", data={"v": 2}, before={"v": 5})
        comparison = compared([main, B1], [other, write("b", "1", data={"v": 2})])
        assert found(comparison) == [("/b/1/v", "value")]

    def test_images_that_rules_call_equal_have_not_diverged(self) -> None:
        main, other = (write("a", "1", "update", {"v": 2}, before={"v": 1, "at": at}) for at in (1, 2))
        rule = {"field": "/a/*/at", "action": "ignore"}
        assert compared([main], [other], rule).doubts == ()

    def test_an_image_that_one_side_does_not_give_says_nothing(self) -> None:
        main, other = write("a", "1", data={"v": 1}, before={"v": 0}), write("a", "1", data={"v": 2})
        assert found(compared([main], [other])) == [("/a/1/v", "value")]


ORDERS = {"field": "/orders/*", "action": "generated_id"}
ITEM_REF = {"field": "/items/*/order_id", "action": "generated_id"}


class TestGeneratedKeys:
    def test_rows_are_paired_and_their_keys_mapped(self) -> None:
        main = [write("orders", "7", data={"id": 7, "v": 1}), write("items", "x", data={"order_id": 7})]
        other = [write("orders", "8", data={"id": 8, "v": 1}), write("items", "x", data={"order_id": 8})]
        mapping = IdMapping()
        comparison = compared(main, other, ORDERS, ITEM_REF, mapping=mapping)
        assert comparison.differences == ()
        assert [(each.path, each.main, each.shadow) for each in comparison.ignored] == [
            ("/orders/7", "7", "8"), ("/items/x/order_id", 7, 8)]  # fmt: skip
        assert mapping.other_of("7") == "8"

    def test_without_a_rule_they_are_other_rows(self) -> None:
        comparison = compared([write("orders", "7")], [write("orders", "8")])
        assert found(comparison) == [("/orders/7", "missing"), ("/orders/8", "extra")]

    def test_data_under_generated_keys_is_compared(self) -> None:
        main, other = (
            write("orders", "7", data={"id": 7, "v": 7}),
            write("orders", "8", data={"id": 8, "v": 8}),
        )
        assert found(compared([main], [other], ORDERS)) == [("/orders/7/v", "value")]

    def test_the_rule_never_excuses_another_operation_or_value(self) -> None:
        main, other = write("orders", "7", "insert"), write("orders", "7", "upsert")
        assert found(compared([main], [other], ORDERS)) == [("/orders/7", "value")]
        main, other = write("orders", "7", data="a"), write("orders", "7", data="b")
        assert found(compared([main], [other], ORDERS)) == [("/orders/7", "value")]

    def test_a_reference_to_another_row_shows(self) -> None:
        main = [write("orders", "7"), write("items", "x", data={"order_id": 7})]
        other = [write("orders", "8"), write("items", "x", data={"order_id": 9})]
        assert found(compared(main, other, ORDERS, ITEM_REF)) == [("/items/x/order_id", "value")]

    def test_a_key_must_fit_the_ids_of_the_answer(self) -> None:
        mapping = IdMapping()
        mapping.observe("7", "9")
        assert found(compared([write("orders", "7")], [write("orders", "8")], ORDERS, mapping=mapping))
        mapping = IdMapping()
        mapping.observe("7", "8")
        assert found(compared([write("orders", "7")], [write("orders", "7")], ORDERS, mapping=mapping))

    def test_known_ids_decide_which_rows_are_paired(self) -> None:
        mapping = IdMapping()
        mapping.observe("1", "20")
        main = [write("orders", "1", data={"v": 1}), write("orders", "2", data={"v": 2})]
        other = [write("orders", "10", data={"v": 2}), write("orders", "20", data={"v": 1})]
        comparison = compared(main, other, ORDERS, mapping=mapping)
        assert [each.change for each in comparison.differences] == ["order"]

    def test_a_row_more_is_still_extra(self) -> None:
        other = [write("orders", "8"), write("orders", "9")]
        assert found(compared([write("orders", "7")], other, ORDERS)) == [("/orders/9", "extra")]
