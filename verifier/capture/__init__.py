"""Capture inside a service: what it answered and what it wrote, published for the verifier.

This package runs in other people's services: it needs aiokafka alone (the outbox relay: asyncpg), imports
nothing else of the verifier, never makes a request wait and never raises into one.
"""

from verifier.capture.asgi import CaptureConfig, CaptureMiddleware, side_of_mirror
from verifier.capture.publisher import KafkaPublisher, MemoryPublisher, Publisher, PublisherStats
from verifier.capture.writes import record_write

__all__ = [
    "CaptureConfig",
    "CaptureMiddleware",
    "KafkaPublisher",
    "MemoryPublisher",
    "Publisher",
    "PublisherStats",
    "record_write",
    "side_of_mirror",
]
