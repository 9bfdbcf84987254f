"""Live traffic made before it is sent, with the times at which it will be due.

Making it while it is sent takes an eighth of a core at 2,000 requests a second, from servers that are measured. Made
beforehand it takes some 8 KB of memory a request.
"""

from __future__ import annotations

import time

from bench.truth import Truth
from bench.workload import Line, Workload

SEED = 11
LEAD_S = 0.07  # a request's events lie at most so long after its time: none of them is to be in the future
TRIAL_REQUESTS = 200
MAKING_TIMES = 3.0  # as long as the trial says, for a machine that is busier later
SPARE_S = 2.0


def made_beforehand(rate: float, requests: int) -> tuple[float, Truth, list[list[Line]]]:
    """When the first request is due (Unix seconds), what all must lead to, and the records of each.

    Raises RuntimeError when making them took longer than foreseen: their times would lie in the past.
    """
    trial = Workload(SEED, TRIAL_REQUESTS, began_at=0.0, whole=True)
    began = time.monotonic()
    for number in range(TRIAL_REQUESTS):
        trial.request(number)
    foreseen_s = (time.monotonic() - began) / TRIAL_REQUESTS * requests * MAKING_TIMES
    due_at = time.time() + foreseen_s + SPARE_S
    workload = Workload(SEED, requests, began_at=due_at, whole=True)
    made = [workload.request(number, due_at + number / rate - LEAD_S) for number in range(requests)]
    if (late_s := time.time() - due_at) > 0:
        raise RuntimeError(f"the traffic was made {late_s:.1f} s too late")
    return due_at, workload.truth, made
