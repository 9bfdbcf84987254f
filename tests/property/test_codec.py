"""Whatever bytes come: an event or a rejection with a closed reason, one for each record, in order."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.adapters.packing import LZ4
from verifier.core.events import SIDES_OF_SOURCE, Edge, Response, Seen, Source, Write
from verifier.core.folding import UNPACKED, Packing, fold, unfold
from verifier.stream.codec import REASONS, TS_MAX, TS_MIN, Codec, CodecConfig
from verifier.testing import StubRecord, edge, response, write

CODEC = Codec(CodecConfig())
KINDS: dict[Source, type[Edge | Response | Write]] = {
    Source.EDGE: Edge,
    Source.MAIN_RESPONSES: Response,
    Source.SHADOW_RESPONSES: Response,
    Source.MAIN_WRITES: Write,
    Source.SHADOW_WRITES: Write,
}
ENVELOPE = {
    "op": "c", "before": None, "after": {"id": 1, "request_id": "r"}, "source": {"table": "t", "ts_ms": 1.7e12},
    "payload": {}, "schema": {"fields": [{"field": "after", "fields": [{"field": "id", "optional": False}]}]},
}  # fmt: skip
FIELDS = sorted({*edge("r"), *response("r"), *write("r"), *ENVELOPE, "v", "shed", "sampled", "capture_gap", "before",
                 "user_id", "body_encoding", "bytes_sent", "upstream_time_s", "error", "duration_ms"})  # fmt: skip

INTERESTING = [
    "",
    "-",
    "nan",
    "inf",
    "502, 200",
    "main",
    "shadow",
    "insert",
    "c",
    "json",
    "base64",
    1.7e9,
    1.7e12,
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.sampled_from(INTERESTING),
)
names = st.sampled_from([*FIELDS, "table", "ts_ms", "lsn"]) | st.text(max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
USUAL_EDGE = edge("r", v=1, upstream_status="200", upstream_addr="10.0.0.1:80", upstream_time_s="0.012",
                  request_time_s=0.013, bytes_sent=1843, host="a.example", user_id="", sampled=True)  # fmt: skip
bases = st.sampled_from(
    [
        USUAL_EDGE,
        response("r", v=1, duration_ms=3, user_id="u1"),
        write("r", v=1, seq=0, status="applied"),
        edge("r"),
        response("r"),
        write("r"),
        response("r", "shadow"),
        ENVELOPE,
        {"payload": ENVELOPE},
        {},
    ]
)


@st.composite
def documents(draw: st.DrawFn, fitting: st.SearchStrategy[dict[str, Any]] = bases) -> bytes:
    base = dict(draw(fitting | fitting | fitting | bases))
    changed = draw(st.sampled_from([0, 0, 1, 3]))
    changes: dict[str, Any] = draw(st.dictionaries(st.sampled_from(FIELDS), values, max_size=changed))
    left_out = draw(st.sets(st.sampled_from(FIELDS), max_size=min(changed, 1)))
    made = {name: value for name, value in {**base, **changes}.items() if name not in left_out}
    return json.dumps(made, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    value = bytearray(draw(documents()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(value)))
        value[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(value)


FITTING: dict[Source, st.SearchStrategy[dict[str, Any]]] = {
    Source.EDGE: st.sampled_from([edge("r"), edge("r", "shadow", status="502, 200", upstream_time_s="-")]),
    Source.MAIN_RESPONSES: st.sampled_from([response("r"), response("r", "reference")]),
    Source.SHADOW_RESPONSES: st.sampled_from([response("r", "shadow"), response("r", "canary")]),
    Source.MAIN_WRITES: st.sampled_from([write("r"), ENVELOPE, {"payload": ENVELOPE}]),
    Source.SHADOW_WRITES: st.sampled_from([write("r", "shadow"), ENVELOPE]),
}


BROKEN = {
    "not_an_object": ["an", "array"],
    "invalid_request_id": edge("not an id") | {"side": "main"},
    "invalid_ts": edge("r", ts=1.0),
    "unsupported_version": edge("r", v=2),
    "unknown_side": edge("r", "nobody"),
    "missing_field": {"request_id": "r"},
}
broken = st.sampled_from(sorted(BROKEN)).map(lambda reason: json.dumps(BROKEN[reason]).encode())


@st.composite
def batches(draw: st.DrawFn) -> tuple[Source, list[bytes | None]]:
    """A topic and records that mostly are of its kind, mostly not quite."""
    source = draw(st.sampled_from(Source))
    ours = documents(FITTING[source])
    anything = st.one_of(st.none(), st.binary(max_size=40), *[ours] * 7, broken, mutilated())
    return source, draw(st.lists(anything, max_size=4))


@settings(max_examples=250, deadline=None)
@given(batch=batches(), timestamp=st.sampled_from([-1, 0, 1_767_225_600_000]))
def test_any_bytes_become_an_event_or_a_rejection(
    batch: tuple[Source, list[bytes | None]], timestamp: int
) -> None:
    source, read = batch
    records = [StubRecord(offset=n, value=value, timestamp=timestamp) for n, value in enumerate(read)]
    events, rejections = CODEC.decode(source, 0, records)
    assert sorted([e.offset for e in events] + [r.offset for r in rejections]) == list(range(len(read)))
    for rejection in rejections:
        assert rejection.reason in REASONS - {"reader_failed"}, rejection
        assert rejection.detail.isprintable()
        assert len(rejection.detail) <= 500
    for seen in events:
        event = seen.event
        assert isinstance(event, KINDS[source])
        assert event.side in SIDES_OF_SOURCE[source]
        assert TS_MIN <= event.ts <= TS_MAX
        msgspec.json.encode(event)  # whatever was read can be written


@pytest.mark.parametrize("source", Source)
def test_fitting_documents_mostly_come_to_events(source: Source) -> None:
    """A reader that refuses everything would keep the property above."""
    met: Counter[bool] = Counter()

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(documents(FITTING[source]))
    def look(value: bytes) -> None:
        events, rejections = CODEC.decode(source, 0, [StubRecord(offset=0, value=value)])
        met.update([bool(events)] * (len(events) + len(rejections)))

    look()
    assert met[True] > 10 and met[False] > 10, met


def test_the_bytes_come_to_many_reasons() -> None:
    met: Counter[str] = Counter()

    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(batches())
    def look(batch: tuple[Source, list[bytes | None]]) -> None:
        source, read = batch
        records = [StubRecord(offset=n, value=value) for n, value in enumerate(read)]
        met.update(each.reason for each in CODEC.decode(source, 0, records)[1])

    look()
    # which they are depends a little on the constants that Hypothesis finds in the modules loaded
    assert len(met.keys() & REASONS) > 6, met
    assert met.keys() <= REASONS, met


@pytest.mark.parametrize("reason", sorted(BROKEN))
def test_a_record_broken_in_one_way_is_rejected_for_that(reason: str) -> None:
    value = json.dumps(BROKEN[reason]).encode()
    events, [rejection] = CODEC.decode(Source.EDGE, 0, [StubRecord(offset=0, value=value)])
    assert not events
    assert rejection.reason == reason


def in_full(seen: Seen) -> str:
    """An event as it is held: 1 second is not the same as 1.0, which the journal would tell."""
    fields = msgspec.structs.astuple(seen.event)
    return repr([bytes(field) if isinstance(field, msgspec.Raw) else field for field in fields])


@settings(max_examples=500, deadline=None)
@given(source=st.sampled_from(Source), value=documents(), timestamp=st.sampled_from([-1, 1_767_225_600_000]))
def test_what_is_read_quickly_is_read_as_it_would_be_slowly(
    source: Source, value: bytes, timestamp: int
) -> None:
    stub = StubRecord(offset=3, value=value, timestamp=timestamp)
    events, rejections = CODEC.decode(source, 0, [stub])
    slowly = CODEC._read(source, 0, stub, ())
    assert [*events, *rejections] == [slowly]
    assert [in_full(seen) for seen in events] == [
        in_full(seen) for seen in [slowly] if isinstance(seen, Seen)
    ]


@settings(max_examples=500, deadline=None)
@given(batches(), st.sampled_from((UNPACKED, LZ4)))
def test_what_was_read_is_the_same_once_folded_and_unfolded(
    batch: tuple[Source, list[bytes | None]], packing: Packing
) -> None:
    source, read = batch
    records = [StubRecord(offset=2**40 + n, value=value) for n, value in enumerate(read)]
    events, _ = CODEC.decode(source, 0, records)
    unfolded = unfold(fold(events, packing), packing)
    assert unfolded == events
    assert [in_full(seen) for seen in unfolded] == [in_full(seen) for seen in events]


def test_deeply_nested_bodies_can_be_unfolded() -> None:
    body: Any = None
    for _ in range(500):
        body = [body]
    value = json.dumps(response("r", body=body)).encode()
    events, _ = CODEC.decode(Source.MAIN_RESPONSES, 0, [StubRecord(offset=0, value=value)])
    assert len(events) == 1
    assert unfold(fold(events)) == events
