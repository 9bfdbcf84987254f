"""Structured logs: one JSON object a line on stderr, secrets hidden, repeats bounded.

Everything goes through one handler, the standard library's loggers (Faust, aiokafka, uvicorn) included. For that
those must not set up their own: start Faust's worker with `override_logging=False`, uvicorn with `log_config=None`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from verifier.adapters.redaction import Redactor

__all__ = ["LogEvery", "configure_logging", "get_logger", "log_every"]

# Libraries that bring handlers of their own, or that say the same thing many times a second while a broker is away.
_OWN_HANDLERS = ("faust", "mode", "aiokafka", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")
_REPEATING = ("aiokafka", "faust", "mode", "redis", "asyncpg")
_REPEAT_S = 10.0
_A_LINE_A_CALL = ("uvicorn.access", "aiokafka.consumer.subscription_state")
"""A line for each scrape, probe and question over REST says nothing; the metrics count requests."""
_FIRST_FIELDS = ("ts", "level", "logger", "event")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that can be made at import time: it looks its configuration up when first used."""
    return structlog.stdlib.get_logger(name)


def configure_logging(
    *, level: str = "info", fmt: str = "json", redact: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Route all logging to `stream` (stderr). Calling it again replaces what was set.

    `level`: debug, info, warning or error. `fmt`: `json` or `console`. `redact`: further names whose values are
    hidden. Raises ValueError for another level or format.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r} is unknown: use debug, info, warning or error")
    if fmt not in ("json", "console"):
        raise ValueError(f"log format {fmt!r} is unknown: use json or console")
    redactor = Redactor(redact)
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts")
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.PositionalArgumentsFormatter(),
            stamp,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(stamp, redactor, fmt))
    handler.addFilter(RepeatFilter(_REPEATING, every_s=_REPEAT_S))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _OWN_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _A_LINE_A_CALL:
        logging.getLogger(name).setLevel(max(number, logging.WARNING) if number > logging.DEBUG else number)
    logging.captureWarnings(capture=True)


def _formatter(stamp: Processor, redactor: Redactor, fmt: str) -> structlog.stdlib.ProcessorFormatter:
    render: Processor = _render_json if fmt == "json" else structlog.dev.ConsoleRenderer(colors=False)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=["suppressed"]),
            stamp,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _Redaction(redactor),
            render,
        ],
    )


class _Redaction:
    """The processor that stands last before rendering, so that tracebacks are scrubbed too."""

    __slots__ = ("_redactor",)

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return cast(EventDict, self._redactor.value(dict(event)))


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    ordered = {name: event[name] for name in _FIRST_FIELDS if name in event}
    ordered.update(event)
    # ASCII only: a lone surrogate in a client's text must not break the stream it is written to.
    return json.dumps(ordered, separators=(",", ":"), default=str)


class LogEvery:
    """Lets one line of a kind through in each period and counts those it held back.

    What makes a kind is the event text and `key`. At most `kinds_max` kinds are remembered, the least recently used
    forgotten first: forgetting one can only let a line through early.
    """

    __slots__ = ("_every_s", "_kinds_max", "_monotonic", "_seen")

    def __init__(
        self, every_s: float, *, kinds_max: int = 1024, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if every_s <= 0 or kinds_max < 1:
            raise ValueError("log_every needs a period above 0 seconds and room for one kind or more")
        self._every_s = every_s
        self._kinds_max = kinds_max
        self._monotonic = monotonic
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def admit(self, event: str, key: str = "") -> int | None:
        """None: hold this line back. A number: let it through; so many were held back since the last one."""
        kind = (event, key)
        now = self._monotonic()
        known = self._seen.get(kind)
        if known is not None:
            self._seen.move_to_end(kind)
            if now - known[0] < self._every_s:
                self._seen[kind] = (known[0], known[1] + 1)
                return None
        self._seen[kind] = (now, 0)
        if len(self._seen) > self._kinds_max:
            self._seen.popitem(last=False)
        return known[1] if known is not None else 0

    def __call__(self, log: Callable[..., object], event: str, *, key: str = "", **fields: object) -> bool:
        """Call `log(event, **fields)` if it is time, with `suppressed` when lines were held back."""
        suppressed = self.admit(event, key)
        if suppressed is None:
            return False
        if suppressed:
            fields["suppressed"] = suppressed
        log(event, **fields)
        return True


def log_every(seconds: float, *, monotonic: Callable[[], float] = time.monotonic) -> LogEvery:
    """For lines that repeat while something is awaited.

    Make it once, `waiting = log_every(10)`, then call
    `waiting(log.warning, "waiting for Kafka", key=broker, broker=broker)` as often as you like.
    """
    return LogEvery(seconds, monotonic=monotonic)


class RepeatFilter(logging.Filter):
    """Holds back a library's repeated warnings: the same logger, level and message template once in `every_s`."""

    def __init__(
        self, prefixes: tuple[str, ...], *, every_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._prefixes = prefixes
        self._gate = LogEvery(every_s, monotonic=monotonic)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.name.partition(".")[0] not in self._prefixes:
            return True
        suppressed = self._gate.admit(str(record.msg), f"{record.name}/{record.levelno}")
        if suppressed:
            record.suppressed = suppressed
        return suppressed is not None
