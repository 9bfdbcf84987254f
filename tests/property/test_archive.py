"""The reader of archives: any bytes come to lines and damages, and lines are what was written, however they are cut."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.adapters.archive import Damage, Line, read_lines
from verifier.adapters.archive_lines import DEFAULT_TOPICS, Placed, Refused, Sorter
from verifier.core.events import Source

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["topic", "value", "payload", "ts", "timestamp", "headers", "request_id", "side", "uri", "path", "status", "entity",
     "op", "source", "after", "before", "key"]
)  # fmt: skip
SIDES = st.sampled_from(["main", "shadow", "canary", "reference", "other"])
LINES = (
    st.binary(max_size=60)
    | st.dictionaries(NAMES, JSON | SIDES | st.sampled_from(DEFAULT_TOPICS), max_size=6).map(
        lambda d: json.dumps(d).encode()
    )
    | JSON.map(lambda value: json.dumps(value).encode())
)
SORTER = Sorter(DEFAULT_TOPICS)


def read(data: bytes, line_bytes_max: int = 1 << 20) -> list[Line | Damage]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        return list(read_lines(str(path), line_bytes_max=line_bytes_max))


@settings(deadline=None, derandomize=True)
@given(LINES, st.none() | st.sampled_from(Source))
def test_every_line_finds_a_place_or_a_reason(text: bytes, named: Source | None) -> None:
    found = SORTER.sort(text, named)
    if isinstance(found, Refused):
        assert found.reason and len(found.detail) < 1000
        return
    assert isinstance(found, Placed)
    assert found.request_id is None or isinstance(found.request_id, str)
    assert found.timestamp >= 0
    assert math.isfinite(found.ts), "it is sorted by"


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.binary(max_size=40).filter(lambda line: b"\0" not in line), max_size=20),
    st.sampled_from([b"\n", b"\r\n"]),
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress])
def test_lines_come_out_as_they_went_in(
    compress: Callable[[bytes], bytes], lines: list[bytes], end: bytes
) -> None:
    data = end.join(lines)
    if data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        return
    wanted = [
        line.rstrip(b"\r")
        for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        if line and not line.isspace()
    ]
    found = read(compress(data))
    assert [line.text for line in found] == wanted
    assert all(isinstance(line, Line) for line in found)
    numbers = [line.number for line in found]
    assert numbers == sorted(set(numbers))


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=400), st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"]))
def test_any_bytes_are_read_to_the_end_without_an_error(data: bytes, magic: bytes) -> None:
    for line in read(magic + data, line_bytes_max=50):
        assert isinstance(line, Damage) or len(line.text) <= 50


@settings(deadline=None, derandomize=True)
@given(st.binary(min_size=1, max_size=2000), st.data())
def test_a_changed_byte_in_a_compressed_file_is_told_or_harmless(data: bytes, draw: st.DataObject) -> None:
    whole = gzip.compress(data.replace(b"\0", b"x"))
    place = draw.draw(st.integers(0, len(whole) - 1))
    for line in read(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
        assert isinstance(line, Line | Damage)
