"""Which partition a request id belongs on: murmur2, as Kafka's Java client hashes a key by default."""

from __future__ import annotations

import struct
from collections.abc import Callable

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """MurmurHash2 (Austin Appleby) with the seed of Kafka's `Utils.murmur2`, as an unsigned 32-bit number."""
    length = len(data)
    h = 0x9747B28C ^ length
    # Masked once at the end: no bit of a product or an exclusive or depends on a higher one.
    for word in struct.unpack_from(f"<{length >> 2}I", data):
        k = word * _M & _MASK
        h = h * _M ^ (k ^ (k >> 24)) * _M
    rest = length & 3
    if rest:
        h = (h ^ int.from_bytes(data[-rest:], "little")) * _M
    h &= _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def murmur2_partition(partitions: int) -> Callable[[str], int]:
    """Return the function from a request id to its partition among `partitions`."""

    def partition_of(request_id: str) -> int:
        return (murmur2(request_id.encode()) & 0x7FFFFFFF) % partitions

    return partition_of
