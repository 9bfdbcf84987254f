"""Whether the log has a line about each request, whatever the shadow does."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from bench.edge.scene import Contestant
from verifier.demo.stack.nginx import MAIN_RESPONSES_LOG, SHADOW_RESPONSES_LOG

SETTLE_S = 20.0  # longer than a hung shadow is waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """How many lines of each kind; `shed` are among `shadow`, `unanswered` are copies the shadow left unanswered."""

    main: int
    shadow: int
    shed: int
    unanswered: int
    main_responses: int
    shadow_responses: int

    def lost(self, name: str, asked: int, *, in_flight: int = 0) -> list[str]:
        """What is missing after `asked` requests, of which `in_flight` more may have been under way at the end."""
        faults = []
        if not asked <= self.main <= asked + in_flight:
            faults.append(f"{self.main} lines about main after {asked} requests")
        if name != "plain" and self.shadow != self.main:
            faults.append(f"{self.shadow} lines about the shadow, {self.main} about main")
        if name.startswith("capture"):
            if self.main_responses != self.main:
                faults.append(f"{self.main_responses} responses of main, {self.main} requests")
            if self.shadow_responses != self.shadow - self.shed - self.unanswered:
                faults.append(f"{self.shadow_responses} responses of the shadow")
        return faults

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        return asdict(self)


def lines(contestant: Contestant, asked: int, *, in_flight: int = 0) -> Lines:
    """Count the lines, once none is missing or `SETTLE_S` have passed."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        found = _count(contestant)
        whole = not found.lost(contestant.name, asked, in_flight=in_flight)
        if whole or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def _count(contestant: Contestant) -> Lines:
    log, beside = contestant.log_path, contestant.log_path.with_name
    raw = log.read_bytes()
    unanswered = raw.count(b'"upstream_status":"504"') + raw.count(b'"upstream_status":"502"')
    return Lines(
        main=raw.count(b'"side":"main"'),
        shadow=raw.count(b'"side":"shadow"'),
        shed=raw.count(b'"shed":true'),
        unanswered=unanswered,
        main_responses=_lines_of(beside(MAIN_RESPONSES_LOG)),
        shadow_responses=_lines_of(beside(SHADOW_RESPONSES_LOG)),
    )


def _lines_of(path: Any) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def forget(contestant: Contestant) -> None:
    """Empty the logs, which NGINX goes on appending to."""
    for name in (contestant.log_path.name, MAIN_RESPONSES_LOG, SHADOW_RESPONSES_LOG):
        path = contestant.log_path.with_name(name)
        if path.exists():
            path.write_bytes(b"")
