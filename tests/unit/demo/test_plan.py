"""The plan is a pure function of its seed, and plants every kind of fault often enough."""

from __future__ import annotations

import json
from collections import Counter

from verifier.capture.records import REQUEST_ID
from verifier.demo import market
from verifier.demo.faults import BY_NAME, FAULTS, demo_rules
from verifier.demo.injection import INJECTIONS
from verifier.demo.plan import BLOCK, Plan
from verifier.demo.requests import MUTATING, http_request
from verifier.demo.traffic import journeys

COUNT = 5_000


def test_two_plans_of_one_seed_are_the_same_and_another_seed_plans_otherwise() -> None:
    assert list(Plan(3).requests(500)) == list(Plan(3).requests(500))
    assert [http_request(3, each) for each in Plan(3).requests(500)] == [
        http_request(3, each) for each in Plan(3).requests(500)
    ]
    assert Plan(3).truth(COUNT) != Plan(4).truth(COUNT)


def test_a_request_is_known_by_its_id_alone_in_any_order() -> None:
    plan = Plan()
    requests = list(plan.requests(COUNT))
    fresh = Plan()
    assert [fresh.lookup(each.request_id) for each in reversed(requests)] == requests[::-1]
    assert [each.number for each in requests] == list(range(COUNT))


def test_ids_that_the_plan_did_not_make_meet_no_fault() -> None:
    plan, other = Plan(1), Plan(2)
    for request_id in ("", "demo-1", "demo-00001-000000000000", "demo-99999999999-0", other.request_id(5)):
        assert plan.lookup(request_id) is None
        assert plan.fault_of(request_id) is None


def test_every_kind_is_planted_at_least_three_times_in_5000_and_about_four_per_cent_are_faulty() -> None:
    for seed in range(5):
        truth = Plan(seed).truth(COUNT)
        kinds = Counter(row["fault"] for row in truth)
        assert set(kinds) == set(BY_NAME)
        assert min(kinds.values()) >= 3
        assert 0.035 <= len(truth) / COUNT <= 0.045


def test_there_are_enough_kinds_each_with_a_way_to_be_planted() -> None:
    assert len(FAULTS) >= 32
    assert len(BY_NAME) == len(FAULTS)
    assert set(INJECTIONS) == set(BY_NAME)


def test_about_a_third_of_the_traffic_writes() -> None:
    requests = list(Plan().requests(COUNT))
    share = sum(each.operation in MUTATING for each in requests) / COUNT
    assert 0.30 <= share <= 0.40


def test_every_request_has_an_id_a_user_and_if_it_writes_a_key_that_only_its_retry_shares() -> None:
    plan = Plan()
    keys = Counter[str]()
    for planned in plan.requests(COUNT):
        headers = http_request(plan.seed, planned).headers
        assert REQUEST_ID.fullmatch(headers["x-request-id"])
        assert headers["x-user-id"]
        assert ("idempotency-key" in headers) is (planned.operation in MUTATING)
        if planned.role != "retry" and "idempotency-key" in headers:
            keys[headers["idempotency-key"]] += 1
        if planned.role == "retry":
            first = plan.request(planned.subject)
            assert http_request(plan.seed, first).headers["idempotency-key"] == headers["idempotency-key"]
    assert set(keys.values()) == {1}


def test_a_retry_sends_the_same_body_unless_its_fault_is_to_send_another() -> None:
    plan = Plan()
    for planned in plan.requests(COUNT):
        if planned.role not in ("retry", "second"):
            continue
        first = plan.request(planned.subject)
        same = http_request(plan.seed, first).body == http_request(plan.seed, planned).body
        assert same is (planned.variant == 0)
        assert planned.number == first.number + 1
        assert planned.number // BLOCK == first.number // BLOCK


def test_journeys_keep_pairs_together_and_lose_nobody() -> None:
    requests = list(Plan().requests(1_000))
    trips = list(journeys(requests))
    assert [each for trip in trips for each in trip] == requests
    assert {len(trip) for trip in trips} == {1, 2}
    assert all(trip[0].role in ("single", "first") for trip in trips)


def test_the_truth_is_plain_json_and_names_both_requests_of_a_pair() -> None:
    truth = Plan().truth(COUNT)
    assert json.loads(json.dumps(truth)) == json.loads(json.dumps(Plan().truth(COUNT)))
    for row in truth:
        assert row["touches"][0] == row["request_id"]
        assert (len(row["touches"]) == 2) is (BY_NAME[row["fault"]].pairing is not None)


def test_rules_have_ids_of_their_own() -> None:
    ids = [rule["id"] for rule in demo_rules()]
    assert len(set(ids)) == len(ids)


def test_the_market_has_the_values_that_make_every_fault_show() -> None:
    for quote in market.quotes():
        assert quote.price != round(quote.price)
        assert int(float(quote.market_cap)) != quote.market_cap
        assert quote.change_pct != 0
        assert quote.previous_close.is_integer()
        assert quote.symbol != quote.symbol.lower()
    for item in market.news():
        assert not item.headline.isascii()
        assert len(item.summary) > 40
    assert market.quotes() == market.quotes()
    assert len({quote.symbol for quote in market.quotes()}) == market.QUOTES
