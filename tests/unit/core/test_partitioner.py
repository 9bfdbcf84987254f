"""The partition of a request id is the one that Java's default partitioner gives it."""

from __future__ import annotations

import random

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2

from verifier.core.partitioner import murmur2, murmur2_partition


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        # from the tests of Kafka's own org.apache.kafka.common.utils.Utils
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_it_hashes_as_kafka_does(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected % 2**32


@pytest.mark.parametrize("seed", range(5))
def test_it_hashes_as_the_python_client_does_whatever_the_length(seed: int) -> None:
    rng = random.Random(seed)
    for length in (0, 1, 2, 3, 4, 5, 7, 8, 31, 36, 128, 129):
        key = rng.randbytes(length)
        assert murmur2(key) == aiokafka_murmur2(key) & 0xFFFFFFFF


def test_a_partition_is_the_positive_part_of_the_hash_modulo_their_number() -> None:
    for partitions in (1, 3, 16):
        of = murmur2_partition(partitions)
        for n in range(50):
            assert of(f"r{n}") == (aiokafka_murmur2(f"r{n}".encode()) & 0x7FFFFFFF) % partitions
