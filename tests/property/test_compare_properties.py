"""What must hold for any two answers: an oracle that knows nothing of the comparison, and laws it must keep."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from verifier.core.canonical import NotJson, canonical, json_type, parse
from verifier.core.compare import Limits, compare_responses
from verifier.core.difference import NOTHING, Comparison, Difference
from verifier.core.events import Response, Write
from verifier.core.mapping import IdMapping
from verifier.core.policy import Policy, rule_from_dict
from verifier.core.reconcile import compare_writes

settings.register_profile("compare", deadline=None, derandomize=True, max_examples=150,
                          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
settings.load_profile("compare")

PLAIN = Policy.default()
WIDE = Limits(differences_max=10_000, value_bytes=1 << 20)
NAMES = st.sampled_from(["a", "b", "id", "name", "x/y", "~", "", "0"]) | st.text(max_size=4)
NUMBERS = st.integers(-3, 3) | st.integers() | st.decimals(allow_nan=False, allow_infinity=False, places=2)
LEAVES = (
    st.none()
    | st.booleans()
    | NUMBERS
    | st.text(max_size=4)
    | st.sampled_from(["", "1", "true", "{}", "\ud800"])
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)


def written(value: Any, seed: int | None = None) -> str:
    """Write a value as JSON; with a seed in some other notation: members, blanks, escapes and zeros at random."""
    chance = random.Random(seed)

    def blank() -> str:
        return "" if seed is None else chance.choice(["", " ", "\n\t "])

    if isinstance(value, dict):
        members = list(value.items())
        if seed is not None:
            chance.shuffle(members)
        inner = [f"{blank()}{written(name)}{blank()}:{written(member, seed)}" for name, member in members]
        return blank() + "{" + ",".join(inner) + blank() + "}"
    if isinstance(value, list):
        return blank() + "[" + ",".join(written(item, seed) for item in value) + blank() + "]"
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        if seed is None:
            return f"{value:f}" if isinstance(value, Decimal) else str(value)
        return (
            f"{value:f}00E+0"
            if isinstance(value, Decimal)
            else f"{value}.0{chance.choice(['', 'e0', 'E+0'])}"
        )
    return json.dumps(value, ensure_ascii=seed is None or "\ud800" in str(value))


def tagged(value: Any) -> Any:
    """The oracle: a value in which Python's equality is JSON's, by tagging each with its type."""
    if isinstance(value, dict):
        return {name: tagged(member) for name, member in value.items()}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if isinstance(value, bool) or value is None:
        return ("constant", str(value))
    return ("number", Decimal(value)) if isinstance(value, int | Decimal) else ("string", value)


def answer(text: str | None, **fields: Any) -> Response:
    values: dict[str, Any] = {
        "request_id": "r", "side": "main", "ts": 1.0, "method": "GET", "path": "/", "status": 200,
        "headers": Raw(b'{"content-type":"application/json"}'),
        "body": UNSET if text is None else Raw(text.encode()),
    }  # fmt: skip
    return Response(**values | fields)


def compared(main: Any, other: Any, policy: Policy = PLAIN, *, seed: int | None = None) -> Comparison:
    one, two = answer(written(main)), answer(written(other, seed))
    return compare_responses(one, two, route="GET /", policy=policy, limits=WIDE)


def is_wrapped(main: Any, other: Any) -> bool:
    """Two JSON strings that both hold documents are compared as these: another equality, tested elsewhere."""
    return isinstance(main, str) and isinstance(other, str)


@given(DOCUMENTS, st.integers(0, 1000))
def test_notation_never_matters(value: Any, seed: int) -> None:
    assert compared(value, value, seed=seed) is NOTHING


@given(DOCUMENTS, DOCUMENTS)
@example([1, True], [True, 1])
@example({"a": [0]}, {"a": [False]})
def test_nothing_is_found_only_if_the_values_are_equal(main: Any, other: Any) -> None:
    assume(not is_wrapped(main, other))
    comparison = compared(main, other)
    assert (comparison == NOTHING) is (tagged(main) == tagged(other))
    assert bool(comparison.differences) is (tagged(main) != tagged(other))


RULES = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["body", "*"]),
            "field": st.sampled_from(["/a", "/*", "/**", "/**/id", "**", "/a/*/b", "", "/*/name"]),
            "action": st.sampled_from(
                ["ignore", "presence", "type", "unordered", "generated_id", "exact", "tolerance"]
            ),
        }
    ),
    max_size=4,
)


@given(DOCUMENTS, DOCUMENTS, RULES)
def test_no_rule_makes_a_difference_vanish_or_appear(
    main: Any, other: Any, rules: list[dict[str, Any]]
) -> None:
    assume(not is_wrapped(main, other))
    given_rules = [rule | ({"params": {"abs": 1}} if rule["action"] == "tolerance" else {}) for rule in rules]
    policy = Policy([rule_from_dict(rule) for rule in given_rules])
    comparison = compared(main, other, policy)
    assert bool(comparison.differences or comparison.ignored) is (tagged(main) != tagged(other))
    known = {rule.id for rule in policy.rules}
    assert all(each.rule is None for each in comparison.differences)
    assert all(each.rule in known for each in comparison.ignored)


def mirrored(comparison: Comparison, *, turned: bool, path: bool = False) -> list[list[str]]:
    """What was found, as the other side would tell it if `turned`; without paths, whose indexes are main's."""
    turn = {"missing": "extra", "extra": "missing"} if turned else {}

    def told(differences: tuple[Difference, ...]) -> list[str]:
        return sorted(
            repr((each.kind, each.path if path else each.field, turn.get(each.change, each.change), each.rule,
                  *((each.shadow, each.main) if turned else (each.main, each.shadow)))) for each in differences
        )  # fmt: skip

    return [told(comparison.differences), told(comparison.ignored), sorted(comparison.doubts)]


@given(DOCUMENTS, DOCUMENTS)
def test_exchanging_the_sides_mirrors_what_is_found(main: Any, other: Any) -> None:
    assert mirrored(compared(main, other), turned=False) == mirrored(compared(other, main), turned=True)


OBJECTS = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)


@given(OBJECTS, OBJECTS)
def test_exchanging_the_sides_of_objects_mirrors_the_paths_too(main: Any, other: Any) -> None:
    one = mirrored(compared(main, other), turned=False, path=True)
    assert one == mirrored(compared(other, main), turned=True, path=True)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for step, inner in steps for found in leaves(inner, (*path, step))]
    return [path]


def pointer(path: tuple[Any, ...], *, field: bool = False) -> str:
    def step(part: Any) -> str:
        if isinstance(part, int):
            return "*" if field else str(part)
        escaped: str = part.replace("~", "~0").replace("/", "~1")
        return escaped.encode(errors="backslashreplace").decode()

    return "".join("/" + step(part) for part in path)


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    made = copy.copy(value)
    made[path[0]] = replaced(value[path[0]], path[1:], new)
    return made


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


@given(DOCUMENTS, st.data())
def test_one_changed_leaf_is_the_one_difference(value: Any, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(leaves(value)))
    old = at(value, path)
    new: Any = data.draw(st.just("an entirely new text") | st.just(987654321) | st.just([[]]) | st.none())
    assume(tagged(old) != tagged(new))
    (difference,) = compared(value, replaced(value, path, new)).differences
    if old == [] and new == [[]]:
        assert (difference.path, difference.change) == (pointer((*path, 0)), "extra")
        assert difference.field == pointer((*path, 0), field=True)
        return
    assert (difference.path, difference.field) == (pointer(path), pointer(path, field=True))
    assert difference.change == (
        "value" if json_type(parse(written(old))) == json_type(parse(written(new))) else "type"
    )
    assert difference.shadow == new
    assert difference.main == shown(old)


def shown(value: Any) -> Any:
    """A value as a difference shows it, numbers marked that neither a 64-bit integer nor a double holds."""
    return compared(value, "another value").differences[0].main


@given(DOCUMENTS, st.data())
def test_one_member_left_out_is_the_one_difference(value: Any, data: st.DataObject) -> None:
    inside = {"whole": value}
    path = data.draw(st.sampled_from(members(inside)))
    (difference,) = compared(inside, without(inside, path)).differences
    assert (difference.path, difference.change, difference.shadow) == (pointer(path), "missing", None)
    (mirror,) = compared(without(inside, path), inside).differences
    assert (mirror.path, mirror.change, mirror.main) == (pointer(path), "extra", None)
    assert mirror.shadow == difference.main == shown(at(inside, path))


def members(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every member of every object."""
    if isinstance(value, list):
        return [found for step, inner in enumerate(value) for found in members(inner, (*path, step))]
    if not isinstance(value, dict):
        return []
    return [
        found for step, inner in value.items() for found in ((*path, step), *members(inner, (*path, step)))
    ]


def without(value: Any, path: tuple[Any, ...]) -> Any:
    made = copy.copy(value)
    if len(path) == 1:
        del made[path[0]]
    else:
        made[path[0]] = without(value[path[0]], path[1:])
    return made


def applied(value: Any, comparison: Comparison) -> Any:
    """Apply differences to main's value: the inner ones first, and in one array removals before insertions.

    An array in another order is shown whole, so what else differs inside of it is applied with it.
    """
    made = copy.deepcopy(value)
    turned = tuple(each.path for each in comparison.differences if each.change == "order")
    order = {"value": 0, "type": 0, "missing": 1, "extra": 2, "order": 3}
    differences = [
        each
        for each in comparison.differences
        if not any(each.path.startswith(path + "/") for path in turned)
    ]
    places = [([part.replace("~1", "/").replace("~0", "~") for part in each.path.split("/")[1:]], each)
              for each in differences]  # fmt: skip

    def turn(place: tuple[list[str], Any]) -> tuple[int, int, int]:
        parts, each = place
        index = int(parts[-1]) if each.field.endswith("/*") and parts[-1].isdigit() else 0
        return -len(parts), order[each.change], -index if each.change == "missing" else index

    for parts, each in sorted(places, key=turn):
        if not parts:
            return each.shadow
        target = made
        for part in parts[:-1]:
            target = target[int(part)] if isinstance(target, list) else target[part]
        last: Any = int(parts[-1]) if isinstance(target, list) else parts[-1]
        if each.change == "missing":
            del target[last]
        elif each.change == "extra" and isinstance(target, list):
            target.insert(last, each.shadow)
        else:
            target[last] = each.shadow
    return made


SHOWABLE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc", max_size=3),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=25,
)


@given(SHOWABLE, SHOWABLE)
def test_the_differences_lead_from_main_to_the_other_side(main: Any, other: Any) -> None:
    assert tagged(applied(main, compared(main, other))) == tagged(other)


@given(SHOWABLE, st.data())
def test_so_do_the_differences_of_values_that_are_alike(main: Any, data: st.DataObject) -> None:
    """Two values drawn apart seldom share much; these differ in a few places."""
    other = main
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([*leaves(other), *members(other)]))
        other = replaced(other, path, data.draw(SHOWABLE))
    assert tagged(applied(main, compared(main, other))) == tagged(other)


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_arrays_of_the_same_elements_differ_in_order_alone(main: list[int], other: list[int]) -> None:
    changes = [each.change for each in compared(main, sorted(main)).differences]
    assert changes == ([] if main == sorted(main) else ["order"])
    assert bool(compared(main, other).differences) is (main != other)


@given(DOCUMENTS)
def test_the_canonical_text_is_a_fixed_point(value: Any) -> None:
    text = canonical(parse(written(value)))
    assert canonical(parse(text)) == text
    assert parse(text) == parse(written(value, 3))


@given(DOCUMENTS, DOCUMENTS, st.integers(0, 1000))
def test_canonical_texts_are_equal_exactly_when_the_values_are(one: Any, two: Any, seed: int) -> None:
    text = canonical(parse(written(one)))
    assert text == canonical(parse(written(one, seed)))
    assert (text == canonical(parse(written(two, seed)))) is (tagged(one) == tagged(two))


@given(st.text(alphabet='[]{}",:0123456789.eE+-truefalsn\\u \n', max_size=30))
def test_exactly_what_python_reads_as_json_is_read(text: str) -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        with pytest.raises(NotJson):
            parse(text)
    else:
        parse(text)


BODIES = st.one_of(
    DOCUMENTS.map(written).map(str.encode),
    st.binary(max_size=40),
    st.binary(max_size=40).map(base64.b64encode).map(lambda data: b'"' + data + b'"'),
    st.binary(max_size=40).map(gzip.compress).map(base64.b64encode).map(lambda data: b'"' + data + b'"'),
    st.text(max_size=20).map(json.dumps).map(str.encode),
)
MEDIA = st.sampled_from(["application/json", "text/html; charset=latin1", "application/x-www-form-urlencoded", "",
                         ";;=",
                         "application/problem+json; charset=utf-16", "text/plain; charset=utf-16"])  # fmt: skip
HEADERS = st.one_of(
    st.just(UNSET),
    st.binary(max_size=30).map(Raw),
    st.fixed_dictionaries(
        {
            "content-type": MEDIA,
            "content-encoding": st.sampled_from(["gzip", "deflate", "br", "gzip, gzip", ""]),
        },
        optional={"x": st.text(max_size=9) | st.lists(st.text(max_size=5), max_size=3) | st.none()},
    ).map(lambda headers: Raw(json.dumps(headers).encode())),
)
ANSWERS = st.builds(
    Response, request_id=st.just("r"), side=st.just("main"), ts=st.just(1.0), method=st.just("GET"), path=st.just("/"),
    status=st.integers(100, 599), headers=HEADERS, body=st.just(UNSET) | BODIES.map(Raw),
    body_encoding=st.sampled_from([None, "json", "text", "base64", "zip"]), body_truncated=st.booleans(),
    capture_gap=st.none() | st.just("writes_dropped"),
)  # fmt: skip
SOME_RULES = Policy.default(
    [
        rule_from_dict({"kind": "*", "field": "**", "action": "generated_id"}),
        rule_from_dict({"kind": "body", "field": "/*", "action": "time_tolerance", "params": {"seconds": 1}}),
        rule_from_dict({"kind": "header", "field": "x", "action": "pattern", "params": {"regex": ".*"}}),
    ]
)


@settings(max_examples=500)
@given(ANSWERS, ANSWERS, st.sampled_from([PLAIN, SOME_RULES]))
def test_no_two_answers_make_it_fail_and_what_it_finds_can_be_stored(
    main: Response, other: Response, policy: Policy
) -> None:
    for one, two in ((main, other), (main, main)):
        comparison = compare_responses(one, two, route="GET /", policy=policy, mapping=IdMapping())
        encoded = msgspec.json.encode(comparison)
        assert msgspec.json.decode(encoded, type=Comparison) is not None
        truncated = one.body_truncated or two.body_truncated
        if truncated and comparison == NOTHING:
            pytest.fail("a truncated body was called equal")


@given(ANSWERS)
def test_an_answer_never_differs_from_itself(one: Response) -> None:
    assert compare_responses(one, one, route="GET /", policy=PLAIN).differences == ()


@given(ANSWERS, ANSWERS)
def test_exchanging_two_answers_mirrors_what_is_found(main: Response, other: Response) -> None:
    one = compare_responses(main, other, route="GET /", policy=PLAIN, limits=WIDE)
    two = compare_responses(other, main, route="GET /", policy=PLAIN, limits=WIDE)
    assert mirrored(one, turned=False) == mirrored(two, turned=True)


def test_the_answers_are_of_many_kinds() -> None:
    """Else the properties of answers would say little."""
    kinds: set[str] = set()

    @settings(max_examples=250)
    @given(ANSWERS, ANSWERS)
    def look(main: Response, other: Response) -> None:
        comparison = compare_responses(main, other, route="GET /", policy=PLAIN)
        kinds.update(f"{each.kind} {each.change}" for each in comparison.differences)
        kinds.update(comparison.doubts)

    look()
    assert kinds >= {
        "status value", "header value", "header missing", "header extra", "body value", "body type", "body missing",
        "body extra", "body_truncated", "body_unreadable", "headers_unreadable", "capture_gap:main.writes_dropped",
    }  # fmt: skip


WRITES = st.lists(
    st.builds(
        Write, request_id=st.just("r"), side=st.just("main"), ts=st.just(1.0), entity=st.sampled_from("ab"),
        key=st.sampled_from("12"), op=st.sampled_from(["insert", "update", "delete"]),
        seq=st.none() | st.integers(0, 5), data=st.just(UNSET) | DOCUMENTS.map(written).map(str.encode).map(Raw),
        before=st.just(UNSET) | st.sampled_from([Raw(b"null"), Raw(b'{"v":1}')]),
        status=st.sampled_from(["applied", "applied", "failed"]),
    ),
    max_size=5,
)  # fmt: skip


@given(WRITES, WRITES)
def test_writes_equal_themselves_and_never_make_it_fail(main: list[Write], other: list[Write]) -> None:
    assert compare_writes(main, main, route="POST /", policy=PLAIN) is NOTHING
    for policy in (PLAIN, SOME_RULES):
        comparison = compare_writes(main, other, route="POST /", policy=policy)
        msgspec.json.encode(comparison)
        effects = [
            sorted((w.entity, w.key, w.op) for w in side if w.status == "applied") for side in (main, other)
        ]
        if policy is PLAIN and effects[0] != effects[1]:
            assert comparison.differences or comparison.doubts


@given(WRITES, WRITES)
def test_exchanging_the_writes_mirrors_what_is_found(main: list[Write], other: list[Write]) -> None:
    def told(comparison: Comparison, *, turned: bool) -> list[Any]:
        """A repeated write is `duplicate` on the other side and `missing` there if main repeats it."""
        turn = {"duplicate": "extra"}
        if turned:
            turn = {"duplicate": "missing", "extra": "missing", "missing": "extra"}
        return [
            sorted(
                repr((each.field if each.change != "order" else "", turn.get(each.change, each.change), each.rule,
                      *((each.shadow, each.main) if turned else (each.main, each.shadow)))) for each in side
            ) for side in (comparison.differences, comparison.ignored)
        ] + [sorted(comparison.doubts)]  # fmt: skip

    one = compare_writes(main, other, route="POST /", policy=PLAIN, limits=WIDE)
    two = compare_writes(other, main, route="POST /", policy=PLAIN, limits=WIDE)
    assert told(one, turned=False) == told(two, turned=True)
