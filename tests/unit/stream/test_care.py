"""Which records are suspected after a failure, and how soon the one that is to blame is alone."""

from __future__ import annotations

from collections.abc import Container, Sequence

import pytest
import structlog

from verifier.core.events import Rejection, Seen, Source
from verifier.stream import care
from verifier.stream.care import CAREFUL_RECORDS_MAX, SET_ASIDE, Care
from verifier.stream.codec import Codec, CodecConfig, Record
from verifier.testing import edge, record

MISTAKE = ZeroDivisionError()


class Failing(Codec):
    """Fails on records at some offsets, and counts how often it is asked."""

    def __init__(self, *offsets: int, error: Exception = MISTAKE) -> None:
        super().__init__(CodecConfig())
        self._offsets = offsets
        self._error = error
        self.calls = 0

    def decode(
        self, source: Source, partition: int, records: Sequence[Record], known: Container[str] = ()
    ) -> tuple[list[Seen], list[Rejection]]:
        self.calls += 1
        if any(each.offset in self._offsets for each in records):
            raise self._error
        return super().decode(source, partition, records, known)


def records_at(*offsets: int) -> list[Record]:
    return [record(edge(f"r{offset}"), offset=offset) for offset in offsets]


def test_records_that_fail_to_be_decoded_are_found_at_once_and_the_others_are_read() -> None:
    careful, codec = Care(100), Failing(2, 3)
    with structlog.testing.capture_logs() as logs:
        seen, rejections = careful.decode(codec, Source.EDGE, 0, records_at(1, 2, 3, 4), ())
    assert [each.offset for each in seen] == [1, 4]
    assert [(each.offset, each.reason) for each in rejections] == [(2, SET_ASIDE), (3, SET_ASIDE)]
    assert [log["event"] for log in logs] == ["record_set_aside", "decode_failed", "record_set_aside"]
    codec.calls = 0
    assert careful.decode(codec, Source.EDGE, 0, records_at(1, 2, 3, 4), ()) == (seen, rejections)
    assert codec.calls == 1
    assert careful.failures == 0


def test_a_record_that_fails_to_be_decoded_when_no_more_may_be_set_aside_fails_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(care, "ASIDE_MAX", 1)
    careful = Care(100)
    with pytest.raises(ZeroDivisionError):
        careful.decode(Failing(2, 3), Source.EDGE, 0, records_at(1, 2, 3), ())
    assert careful.aside == {(Source.EDGE, 2)}


def test_a_failing_record_is_closed_in_on_wherever_a_recovery_begins() -> None:
    careful = Care(1_000)
    records = [record(edge("a"), offset=offset) for offset in range(0, 2_000, 2)]
    poison, rounds = 1_234, 0
    while (Source.EDGE, poison) not in careful.aside:
        rounds += 1
        for piece in careful.pieces(Source.EDGE, records):
            careful.feeding = Source.EDGE, piece
            if any(each.offset == poison for each in piece):
                assert careful.failed(MISTAKE)
                break
            careful.feeding = None
    assert rounds == 4  # 1000 records, 62, 3, 1
    assert list(careful.pieces(Source.EDGE, records)) == [records]


def test_what_is_suspected_of_one_source_is_not_forgotten_over_another() -> None:
    careful = Care(1_000)
    of_edge, of_main = records_at(*range(64)), records_at(*range(32))
    for source, suspected in ((Source.EDGE, of_edge), (Source.MAIN_RESPONSES, of_main)):
        careful.feeding = source, suspected
        assert careful.failed(MISTAKE)
    assert [len(piece) for piece in careful.pieces(Source.EDGE, of_edge)] == [4] * 16
    assert [len(piece) for piece in careful.pieces(Source.MAIN_RESPONSES, of_main)] == [2] * 16
    assert [len(piece) for piece in careful.pieces(Source.SHADOW_RESPONSES, of_edge)] == [64]


def test_a_failure_of_nobody_knows_what_makes_smaller_steps_that_grow_as_they_pass() -> None:
    careful = Care(4_000)
    assert not careful.failed(MISTAKE)
    assert careful.records_max == CAREFUL_RECORDS_MAX
    sizes = []
    for piece in careful.pieces(Source.EDGE, records_at(*range(4_000))):
        sizes.append(len(piece))
        careful.passed()
    assert sizes == [512, 1_024, 2_048, 416]


def test_a_step_that_fails_after_all_is_fed_is_suspected_as_a_whole() -> None:
    careful = Care(1_000)
    chunk = records_at(5)
    careful.begin(Source.EDGE, chunk)
    assert careful.describe() == "1 records of edge from offset 5"
    assert careful.failed(MISTAKE)
    assert careful.aside == {(Source.EDGE, 5)}
    careful.begin(Source.EDGE, chunk)
    assert not careful.failed(MISTAKE)  # it is aside already: something else is wrong


def test_no_record_is_set_aside_because_memory_ran_out() -> None:
    careful = Care(1_000)
    with pytest.raises(MemoryError):
        careful.decode(Failing(5, error=MemoryError()), Source.EDGE, 0, records_at(4, 5), ())
    careful.feeding = Source.EDGE, records_at(5)
    assert not careful.failed(MemoryError())
    assert careful.aside == set()
