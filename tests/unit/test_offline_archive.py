"""Files to lines, lines to sources: whatever the compression, the wrapper or the name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import zstandard

from verifier.adapters.archive import (
    KEPT_BYTES_MAX,
    Damage,
    InputError,
    Line,
    find_files,
    read_lines,
    size_of,
)
from verifier.adapters.archive_lines import DEFAULT_TOPICS, Placed, Refused, Sorter, source_of_file
from verifier.core.events import Source
from verifier.testing import edge, response, write

DATA = b'\xef\xbb\xbf{"a":1}\r\n\n   \n{"b":"' + "é".encode() + b'"}\nlast'
LINES = [(1, b'{"a":1}'), (4, '{"b":"é"}'.encode()), (5, b"last")]


def lines_of(path: Path, **more: Any) -> list[tuple[int, bytes]]:
    return [(line.number, line.text) for line in read_lines(str(path), **more) if isinstance(line, Line)]


def damage_of(path: Path, **more: Any) -> list[Damage]:
    return [line for line in read_lines(str(path), **more) if isinstance(line, Damage)]


def kept(tmp_path: Path, data: bytes, name: str = "file.ndjson") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(DATA, id="plain"),
        pytest.param(gzip.compress(DATA), id="gzip"),
        pytest.param(gzip.compress(DATA[:9]) + gzip.compress(DATA[9:]), id="gzip members"),
        pytest.param(gzip.compress(DATA) + b"\0" * 100, id="gzip padded"),
        pytest.param(zstandard.compress(DATA), id="zstd"),
        pytest.param(zstandard.compress(DATA[:9]) + zstandard.compress(DATA[9:]), id="zstd frames"),
    ],
)
def test_the_same_lines_come_out_of_every_compression_whatever_the_name(tmp_path: Path, data: bytes) -> None:
    for name in ("x.ndjson", "x.gz", "x.zst", "noname"):
        path = kept(tmp_path, data, name)
        assert lines_of(path) == LINES
        assert damage_of(path) == []


def test_what_comes_before_the_end_of_a_cut_file_is_read_and_the_cut_is_told(tmp_path: Path) -> None:
    text = b"".join(
        b'{"n":%d,"pad":"%s"}\n' % (n, blake2b(b"%d" % n).hexdigest().encode()) for n in range(5000)
    )
    for compress in (gzip.compress, zstandard.compress):
        whole = compress(text)
        cut = kept(tmp_path, whole[: len(whole) * 3 // 4])
        found = lines_of(cut)
        assert found == lines_of(kept(tmp_path, text, "whole"))[: len(found)]
        (damage,) = damage_of(cut)
        assert damage.reason == "damaged_file"
        assert damage.number == len(found) + 1
    assert len(lines_of(kept(tmp_path, gzip.compress(text)[:-4]))) > 4000, (
        "a cut trailer costs at most a chunk"
    )


def test_junk_after_a_compressed_file_is_told(tmp_path: Path) -> None:
    for compress in (gzip.compress, zstandard.compress):
        path = kept(tmp_path, compress(b"{}\n{}\n") + b"junk")
        assert lines_of(path) == [(1, b"{}"), (2, b"{}")]
        assert [damage.reason for damage in damage_of(path)] == ["damaged_file"]


def test_a_line_beyond_the_bound_is_told_once_and_the_next_is_read(tmp_path: Path) -> None:
    path = kept(tmp_path, b"{}\n" + b"x" * 5_000_000 + b"\n[]\n" + b"y" * 70_000 + b"\nend")
    assert lines_of(path, line_bytes_max=50_000) == [(1, b"{}"), (3, b"[]"), (5, b"end")]
    damages = damage_of(path, line_bytes_max=50_000)
    assert [(damage.number, damage.reason) for damage in damages] == [
        (2, "line_too_long"),
        (4, "line_too_long"),
    ]
    assert all(len(damage.text) <= KEPT_BYTES_MAX for damage in damages)


def test_a_file_that_is_no_text_is_told_once(tmp_path: Path) -> None:
    for data in (b"\x7fELF\0\0" + b"\n" * 50, '{"a":1}\n'.encode("utf-16")):
        path = kept(tmp_path, data)
        assert lines_of(path) == []
        assert [damage.reason for damage in damage_of(path)] == ["not_text"]


def test_other_compressions_are_garbage_line_by_line_and_stop_nothing(tmp_path: Path) -> None:
    list(read_lines(str(kept(tmp_path, bz2.compress(DATA * 10)))))


def test_standard_input_is_read_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(DATA))))
    found = [line for line in read_lines("-", on_bytes=counted.append) if isinstance(line, Line)]
    assert [(line.number, line.text) for line in found] == LINES
    assert sum(counted) == len(gzip.compress(DATA))


def test_folders_are_searched_each_file_once_and_hidden_ones_passed_over(tmp_path: Path) -> None:
    for name in ("b/two.ndjson", "a/one.gz", "a/.hidden", ".git/x.json", "three"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "link").symlink_to(tmp_path / "three")
    found = find_files([str(tmp_path / "three"), str(tmp_path), "-", str(tmp_path / "a")])
    assert [name if name == "-" else str(Path(name).relative_to(tmp_path)) for name in found] == [
        "-", "a/one.gz", "b/two.ndjson", "three",
    ]  # fmt: skip


@pytest.mark.parametrize("missing", ["nowhere", "empty"])
def test_what_is_not_there_is_an_error_that_names_it(tmp_path: Path, missing: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nowhere|empty"):
        find_files([str(tmp_path / missing)])


def test_sizes_are_known_where_they_can_be(tmp_path: Path) -> None:
    assert size_of(str(kept(tmp_path, b"123"))) == 3
    assert size_of("-") == size_of(str(tmp_path / "none")) == 0


# -- which source ------------------------------------------------------------------------------------------------

SORTER = Sorter([f"prod.{name}" for name in DEFAULT_TOPICS])
ENVELOPE = {
    "op": "u",
    "before": None,
    "after": {"id": 7, "request_id": "r9"},
    "source": {"table": "t", "ts_ms": 1.5e12},
}


def sort(line: Any, named: Source | None = None) -> Placed | Refused:
    return SORTER.sort(line if isinstance(line, bytes) else json.dumps(line).encode(), named)


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (edge("r1"), Source.EDGE),
        (edge("r1", "canary"), Source.EDGE),
        (edge("r1") | {"status": "-", "upstream_time_s": ""}, Source.EDGE),
        (response("r1"), Source.MAIN_RESPONSES),
        (response("r1", "reference"), Source.MAIN_RESPONSES),
        (response("r1", "shadow"), Source.SHADOW_RESPONSES),
        (response("r1", "canary"), Source.SHADOW_RESPONSES),
        (write("r1"), Source.MAIN_WRITES),
        (write("r1", "shadow"), Source.SHADOW_WRITES),
        (write("r1", "canary") | {"path": "/", "status": "applied"}, Source.SHADOW_WRITES),
    ],
)
def test_shape_and_side_tell_the_source(line: dict[str, Any], source: Source) -> None:
    placed = sort(line, Source.EDGE if source is not Source.EDGE else None)
    assert isinstance(placed, Placed)
    assert (placed.source, placed.request_id, placed.ts) == (source, "r1", line["ts"])
    assert placed.value == json.dumps(line).encode(), "the record is handed on as it stands"


def test_a_response_with_a_uri_of_its_own_is_one_where_the_file_says_so() -> None:
    placed = sort(response("r1", "shadow") | {"uri": "/x"}, Source.SHADOW_RESPONSES)
    assert isinstance(placed, Placed)
    assert placed.source is Source.SHADOW_RESPONSES


@pytest.mark.parametrize("topic", ["main.writes", "prod.main.writes"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_wrapper_with_a_topic_says_it_itself(topic: str, as_text: bool) -> None:
    inside = edge("r1")
    wrapper = {
        "topic": topic, "partition": 3, "offset": 9, "timestamp": 1_767_225_600_123, "key": "r1",
        "value": json.dumps(inside) if as_text else inside,
    }  # fmt: skip
    placed = sort(wrapper)
    assert isinstance(placed, Placed)
    assert placed.source is Source.MAIN_WRITES
    assert json.loads(placed.value or b"") == inside
    assert (placed.request_id, placed.ts, placed.timestamp) == ("r1", inside["ts"], 1_767_225_600_123)


def test_a_line_of_kcat_is_a_wrapper_too() -> None:
    line = {
        "topic": "shadow.writes", "partition": 0, "offset": 1, "tstype": "create", "ts": 1_767_225_600_000,
        "headers": ["X-Request-ID", "r5", "b", "2"], "key": None, "payload": json.dumps(write("r5", "shadow")),
    }  # fmt: skip
    placed = sort(line)
    assert isinstance(placed, Placed)
    assert (placed.source, placed.timestamp) == (Source.SHADOW_WRITES, 1_767_225_600_000)
    assert placed.headers == (("X-Request-ID", b"r5"), ("b", b"2"))


def test_a_tombstone_in_a_wrapper_is_handed_on() -> None:
    placed = sort({"topic": "edge.requests", "value": None})
    assert placed == Placed(source=Source.EDGE, value=None)


def test_a_debezium_change_needs_a_name_and_gives_its_request_and_time() -> None:
    for line in (ENVELOPE, {"schema": {}, "payload": ENVELOPE}):
        assert isinstance(sort(line), Refused)
        for named in (Source.MAIN_WRITES, Source.SHADOW_WRITES):
            placed = sort(line, named)
            assert isinstance(placed, Placed)
            assert (placed.source, placed.request_id, placed.ts) == (named, "r9", 1.5e9)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "not_json"),
        (b"[1, 2]", "not_json"),
        (b'{"uri":' + b"[" * 5000, "not_json"),
        ({"hello": 1}, "unknown_shape"),
        ({"request_id": "r1", "side": "main"}, "unknown_shape"),
        (response("r1", "nobody"), "unknown_side"),
        (write("r1") | {"side": []}, "unknown_side"),
        (ENVELOPE, "unknown_side"),
        ({"topic": "verifier.journal", "value": {}}, "unknown_topic"),
    ],
)
def test_a_line_that_belongs_nowhere_is_refused_with_the_reason(line: Any, reason: str) -> None:
    refused = sort(line)
    assert isinstance(refused, Refused)
    assert refused.reason == reason
    assert refused.detail


@pytest.mark.parametrize("line", [b"nonsense", b"\xff\xfe", {"hello": 1}, response("r1", "nobody")])
def test_a_file_named_after_a_topic_takes_what_says_nothing_itself(line: Any) -> None:
    placed = sort(line, Source.MAIN_RESPONSES)
    assert isinstance(placed, Placed)
    assert placed.source is Source.MAIN_RESPONSES


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("edge.requests.ndjson", Source.EDGE),
        ("logs/prod-main-responses-2026-01-01.json.gz", Source.MAIN_RESPONSES),
        ("SHADOW_WRITES.zst", Source.SHADOW_WRITES),
        ("canary.responses", Source.SHADOW_RESPONSES),
        ("topics/main.writes/partition=0/part-1.json", Source.MAIN_WRITES),
        ("shadow.writes/main.writes.json", Source.MAIN_WRITES),
        ("main.writes-and-shadow.writes.json", None),
        ("domain.responses.json", None),
        ("access.log", None),
        ("-", None),
    ],
)
def test_names_of_files_and_folders_speak_of_a_source(path: str, source: Source | None) -> None:
    assert source_of_file(path) is source
