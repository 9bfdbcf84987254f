"""LZ4 for what waits in memory: half the bytes of folded records, in a tenth of the time that zlib takes."""

from __future__ import annotations

from cramjam import lz4

from verifier.core.folding import Packing


def _pack(text: bytes) -> bytes:
    return bytes(lz4.compress_block(text))


def _unpack(packed: bytes) -> bytes:
    return bytes(lz4.decompress_block(packed))


LZ4 = Packing(_pack, _unpack)
