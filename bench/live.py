"""Live traffic at a steady rate: a program of the bench's own environment (confluent-kafka).

`python -m bench.live --bootstrap HOST:PORT --prefix P --truth FILE --rate REQUESTS_A_SECOND --for-s SECONDS`

Prints a line for every sampled request once the broker has confirmed its last record: its id and when that was (Unix
seconds). All records are made beforehand: see `bench.schedule`. A request's records are sent together, on time or, when
behind, as soon as possible.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

from bench.load import Loader
from bench.schedule import made_beforehand
from bench.workload import SOURCES

LINGER_MS = 5
TICK_S = 0.005


def main() -> None:
    """Send, and write the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--for-s", type=float, required=True)
    parser.add_argument("--sample-per-s", type=float, default=4.0)
    given = parser.parse_args()
    loader = Loader(given.bootstrap, linger_ms=LINGER_MS)
    topics = [given.prefix + source for source in SOURCES]
    requests = int(given.rate * given.for_s)
    sample_every = max(1, int(given.rate / given.sample_per_s))
    began, truth, made = made_beforehand(given.rate, requests)
    gc.freeze()  # what is made beforehand is not to be walked through while it is sent
    time.sleep(max(0.0, began - time.time()))
    number = 0
    while number < requests:
        due = min(requests, int((time.time() - began) * given.rate) + 1)
        for at in range(number, due):
            lines = made[at]
            confirmed = (
                _Sample(lines[0].key.decode(), len(lines)).confirmed if at % sample_every == 0 else None
            )
            for line in lines:
                loader.produce(topics[line.source], line.key, line.value, line.ts_ms, confirmed)
        number = due
        loader.poll()
        time.sleep(TICK_S)
    took_s = time.time() - began
    loader.finish()
    given.truth.write_text(truth.as_json())
    print("rate", f"{requests / took_s:.1f}", file=sys.stderr, flush=True)


class _Sample:
    """A request whose records are on their way."""

    def __init__(self, request_id: str, records: int) -> None:
        self._request_id = request_id
        self._left = records

    def confirmed(self) -> None:
        """Note that the broker has one more; with the last, say so."""
        self._left -= 1
        if not self._left:
            print(self._request_id, f"{time.time():.4f}", flush=True)


if __name__ == "__main__":
    main()
