"""Files of records, line by line: plain, gzip or zstd (told by their first bytes), from files, folders or stdin.

Files are read in chunks, and a line has a bound, so memory does not grow with a file or with what it decompresses to.
What cannot be taken from a file is told as damage with file and line, and never stops the rest.
"""

from __future__ import annotations

import io
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard
from msgspec import Struct

from verifier.core.errors import VerifierError

STDIN = "-"
CHUNK_BYTES = 1 << 20
LINE_BYTES_MAX = 32 << 20
KEPT_BYTES_MAX = 4096
_SNIFFED_BYTES = 4096
# An RLE block of zstd makes 128 KiB of four bytes, so a kilobyte makes 32 MiB at the worst.
_ZSTD_INPUT_BYTES = 1024
_ZSTD_WINDOW_BYTES_MAX = 1 << 27
_GZIP_INPUT_BYTES = 1 << 16
_ZLIB_GZIP = 31
_BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class InputError(VerifierError):
    """A path that was given cannot be read: it is the command that has to be mended."""


class Line(Struct, frozen=True):
    """One line that is not blank, without its end; `number` counts from 1."""

    number: int
    text: bytes


class Damage(Struct, frozen=True):
    """What could not be taken from a file, from line `number` on; `text` is its beginning."""

    number: int
    reason: str
    detail: str
    text: bytes = b""


class _Broken(Exception):
    """The compressed stream ends early or makes no sense."""


def find_files(paths: Iterable[str]) -> list[str]:
    """Return every file named or lying in a folder named, each once, sorted by path; `-` is standard input.

    Hidden files and folders inside a folder are passed over. Raises InputError for what is not there.
    """
    found: dict[str, str] = {}
    for given in paths:
        if given == STDIN:
            found[STDIN] = STDIN
        elif Path(given).is_dir():
            for folder, folders, names in os.walk(given, onerror=_refuse):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in sorted(names):
                    path = Path(folder) / name
                    if not name.startswith(".") and path.is_file():
                        found.setdefault(os.path.realpath(path), str(path))
        elif Path(given).exists():
            found.setdefault(os.path.realpath(given), given)
        else:
            raise InputError(f"{given}: no such file or folder")
    if not found:
        raise InputError("no files: the folders given are empty")
    return sorted(found.values())


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: {error.strerror}")


def size_of(path: str) -> int:
    """Bytes of a file as it lies there; 0 when that cannot be known."""
    try:
        return 0 if path == STDIN else Path(path).stat().st_size
    except OSError:
        return 0


def read_lines(
    path: str, *, line_bytes_max: int = LINE_BYTES_MAX, on_bytes: Callable[[int], None] | None = None
) -> Iterator[Line | Damage]:
    """Read a file; `on_bytes` is told how many bytes of it each read took. Raises InputError if it cannot be opened."""
    if path == STDIN:
        yield from _lines(_chunks(_Counting(sys.stdin.buffer, on_bytes)), line_bytes_max)
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - what goes wrong while reading is not about opening
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    with file:
        yield from _lines(_chunks(_Counting(file, on_bytes)), line_bytes_max)


class _Counting(io.RawIOBase):
    """Counts what is read through it."""

    def __init__(self, stream: BinaryIO, on_bytes: Callable[[int], None] | None) -> None:
        super().__init__()
        self._stream = stream
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = self._stream.read(len(view))
        view[: len(data)] = data
        if self._on_bytes is not None:
            self._on_bytes(len(data))
        return len(data)


def _chunks(raw: io.RawIOBase) -> Iterator[bytes]:
    """The decompressed content in chunks. Raises _Broken."""
    stream = io.BufferedReader(raw, CHUNK_BYTES)
    magic = stream.peek(4)[:4]
    try:
        if magic.startswith(_GZIP_MAGIC):
            yield from _gzip_chunks(cast(BinaryIO, stream))
        elif magic == _ZSTD_MAGIC:
            yield from _zstd_chunks(cast(BinaryIO, stream))
        else:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _gzip_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Members one after the other (RFC 1952), giving what comes before a fault where `gzip` gives nothing of it."""
    member = zlib.decompressobj(wbits=_ZLIB_GZIP)
    rest, whole = b"", True
    while data := rest or stream.read(_GZIP_INPUT_BYTES):
        if whole and not (data := data.lstrip(b"\0")):  # a member's padding
            rest = b""
            continue
        whole = False
        chunk = member.decompress(data, CHUNK_BYTES)
        rest = member.unconsumed_tail
        if member.eof:
            rest, whole = member.unused_data, True
            member = zlib.decompressobj(wbits=_ZLIB_GZIP)
        if chunk:
            yield chunk
    if not whole:
        raise EOFError("the gzip stream ends before its end")


def _zstd_chunks(stream: BinaryIO) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
    frame = decompressor.decompressobj()
    rest, whole = b"", True
    while data := rest or stream.read(_ZSTD_INPUT_BYTES):
        rest, whole = b"", False
        chunk = frame.decompress(data)
        if frame.eof:
            rest, whole = frame.unused_data, True
            frame = decompressor.decompressobj()
        if chunk:
            yield chunk
    if not whole:
        raise EOFError("the zstd frame ends before its end")


def _lines(chunks: Iterator[bytes], line_bytes_max: int) -> Iterator[Line | Damage]:
    number, pending, skipping, first = 1, b"", False, True
    while True:
        try:
            chunk = next(chunks, None)
        except _Broken as broken:
            detail = f"{broken}; what stood before line {number} was read"
            yield Damage(number, "damaged_file", detail, pending[:KEPT_BYTES_MAX])
            return
        if chunk is None:
            break
        if first:
            first = False
            if b"\0" in chunk[:_SNIFFED_BYTES]:
                yield Damage(
                    1, "not_text", "the file holds NUL bytes: expected lines of JSON in UTF-8", chunk[:64]
                )
                return
            chunk = chunk.removeprefix(_BOM)
        *lines, rest = (pending + chunk).split(b"\n") if pending else chunk.split(b"\n")
        for text in lines:
            if skipping:
                skipping = False
            elif len(text) > line_bytes_max:
                yield _too_long(number, text, line_bytes_max)
            elif text and not text.isspace():
                yield Line(number, text.rstrip(b"\r"))
            number += 1
        if not skipping and len(rest) > line_bytes_max:
            yield _too_long(number, rest, line_bytes_max)
            skipping = True
        pending = b"" if skipping else rest
    if pending and not pending.isspace():
        yield Line(number, pending.rstrip(b"\r"))


def _too_long(number: int, text: bytes, line_bytes_max: int) -> Damage:
    return Damage(number, "line_too_long", f"longer than {line_bytes_max} bytes", text[:KEPT_BYTES_MAX])
