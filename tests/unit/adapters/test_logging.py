"""Log lines: their form, what they hide, and that repeats are bounded."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import structlog

from verifier.adapters.clock import Clock, SystemClock
from verifier.adapters.logging import RepeatFilter, configure_logging, get_logger, log_every
from verifier.adapters.redaction import DEPTH_MAX, ITEMS_MAX, TEXT_CHARS_MAX, Redactor


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("uvicorn.access", "aiokafka.consumer.subscription_state"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(**options: object) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(stream=stream, **options)  # type: ignore[arg-type]
    return stream


def test_a_line_is_one_json_object_with_event_level_time_and_logger() -> None:
    stream = configured()
    get_logger("verifier.test").info("batch_done", records=5, note="two\nlines")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("batch_done", "info", "verifier.test")
    assert (line["records"], line["note"]) == (5, "two\nlines")
    assert datetime.fromisoformat(str(line["ts"])).utcoffset() == timedelta(0)
    assert list(line)[:4] == ["ts", "level", "logger", "event"]


@pytest.mark.parametrize(
    "name", ["faust.app", "aiokafka.consumer", "uvicorn.error", "mode.worker", "anything"]
)
def test_the_standard_librarys_loggers_write_the_same_lines(name: str) -> None:
    library = logging.getLogger(name)
    stream = configured()
    library.warning("broker %s is away, password=%s", "kafka:9092", "hunter2", extra={"data": object()})
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == (
        "broker kafka:9092 is away, password=***",
        "warning",
        name,
    )
    assert set(line) == {"event", "level", "logger", "ts"}


def test_handlers_of_libraries_are_taken_away_and_configuring_twice_writes_once() -> None:
    library, own = logging.getLogger("faust"), logging.StreamHandler(io.StringIO())
    library.addHandler(own)
    configured()
    stream = configured()
    library.info("started")
    assert own not in library.handlers
    assert [line["event"] for line in lines(stream)] == ["started"]


def test_the_level_holds_for_both_and_what_comes_with_each_call_only_when_debugging() -> None:
    stream = configured(level="warning")
    get_logger("a").info("no")
    logging.getLogger("b").info("no")
    get_logger("a").error("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]
    for level, count in (("info", 0), ("debug", 1)):
        stream = configured(level=level)
        logging.getLogger("uvicorn.access").info("GET /metrics 200")
        assert len(lines(stream)) == count
        logging.getLogger("aiokafka.consumer.subscription_state").info("Updating subscribed topics to: x")
        assert len(lines(stream)) == 2 * count


@pytest.mark.parametrize("options", [{"level": "loud"}, {"fmt": "xml"}])
def test_an_unknown_level_or_form_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="unknown"):
        configure_logging(**options)  # type: ignore[arg-type]


def test_the_console_form_is_for_people_and_hides_the_same() -> None:
    stream = configured(fmt="console")
    get_logger("verifier").warning("connecting", dsn="postgresql://u:hunter2@h/d")
    assert "connecting" in stream.getvalue()
    assert "postgresql://u:***@h/d" in stream.getvalue()


def test_context_tracebacks_and_warnings_come_through_without_secrets() -> None:
    stream = configured(redact=["iban"])
    structlog.contextvars.bind_contextvars(worker=3)
    try:
        raise OSError("cannot reach redis://:hunter2@redis:6379/1")  # noqa: TRY301 - for its traceback
    except OSError:
        get_logger("verifier").exception("failed", headers={"Cookie": "sid=hunter2"}, IBAN="hunter2")
        logging.getLogger("asyncpg").exception("failed too")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful with token=hunter2", UserWarning, stacklevel=1)
    first, second, third = lines(stream)
    assert "hunter2" not in stream.getvalue()
    assert (first["headers"], first["IBAN"]) == ({"Cookie": "***"}, "***")
    assert "redis://:***@redis:6379/1" in str(first["exception"])
    assert (first["worker"], second["worker"]) == (3, 3)
    assert "Traceback" in str(second["exception"])
    assert "careful with token=***" in str(third["event"])


def test_odd_values_do_not_break_a_line() -> None:
    stream = configured()
    get_logger("verifier").info(
        "odd", a=float("nan"), b=b"\xff", c="\ud800", d={1: {2}}, e=2**70, f=object, g=None
    )
    (line,) = lines(stream)
    assert (line["a"], line["b"], line["c"], line["d"], line["e"], line["g"]) == (
        "nan",
        "\\xff",
        "\ud800",
        {"1": [2]},
        str(2**70),
        None,
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:hunter2@h:5432/db", "postgresql://user:***@h:5432/db"),
        ("redis://:hunter2@h/1 is away", "redis://:***@h/1 is away"),
        ("amqp://u:hun@ter2/x@h/1", "amqp://u:***@h/1"),
        ("u://a:1234@h and http://h:80/p?mail=x@y", "u://a:***@h and http://h:80/p?mail=x@y"),
        ("host=h password=hunter2 user=u", "host=h password=*** user=u"),
        ("host=h password='hunter 2' user=u", "host=h password=*** user=u"),
        ("GET /x?token=hunter2&page=2", "GET /x?token=***&page=2"),
        ("GET /x?access_token=hunter2", "GET /x?access_token=***"),
        ("X-Api-Key: hunter2", "X-Api-Key: ***"),
        ("Authorization: Bearer hunter2.abc", "Authorization: ***"),
        ("sent Bearer hunter2.abc=", "sent Bearer ***"),
        ("Cookie: a=hunter2; b=hunter2", "Cookie: ***"),
        ('{"password": "hunter2", "n": 1}', '{"password": ***, "n": 1}'),
        ("{'set-cookie': 'sid=hunter2; Path=/', 'n': 1}", "{'set-cookie': ***, 'n': 1}"),
        ("MARKET_DB_PASSWORD=hunter2", "MARKET_DB_PASSWORD=***"),
        ("the tokenizer: fine, secretary=me", "the tokenizer: fine, secretary=me"),
        ("idempotency_key=abc request_id=1", "idempotency_key=abc request_id=1"),
        ("http://kafka:9092/topics", "http://kafka:9092/topics"),
    ],
)
def test_secrets_inside_text_are_hidden_and_the_rest_is_kept(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (
            {"a": {"Password": "x", "b": [{"api-token": "x"}]}},
            {"a": {"Password": "***", "b": [{"api-token": "***"}]}},
        ),
        ([("set-cookie", "x"), ("accept", "y")], [["set-cookie", "***"], ["accept", "y"]]),
        ([(b"Authorization", b"x")], [["Authorization", "***"]]),
        ({"password": None, "client_secret": 5}, {"password": None, "client_secret": "***"}),
        (
            {"X-Customer-Number": "x", "x_customer_number": 1},
            {"X-Customer-Number": "***", "x_customer_number": "***"},
        ),
        ({"url": "http://u:p@h"}, {"url": "http://u:***@h"}),
        ({"key": "k", "request_id": "r"}, {"key": "k", "request_id": "r"}),
    ],
)
def test_secrets_are_hidden_by_name_at_any_depth(value: object, shown: object) -> None:
    assert Redactor(["x-customer-number"]).value(value) == shown


def test_values_are_cut_where_they_are_too_long_too_wide_or_too_deep() -> None:
    redactor = Redactor()
    long = redactor.text("x" * (TEXT_CHARS_MAX + 7))
    assert len(long) < TEXT_CHARS_MAX + 40
    assert long.endswith("(+7 characters)")
    wide = redactor.value(list(range(ITEMS_MAX + 3)))
    assert isinstance(wide, list)
    assert (len(wide), wide[-1]) == (ITEMS_MAX + 1, "… (+3 items)")
    deep: object = "leaf"
    for _ in range(DEPTH_MAX + 5):
        deep = [deep]
    assert "too deep" in json.dumps(redactor.value(deep))
    assert "leaf" not in json.dumps(redactor.value(deep))


@pytest.mark.parametrize(
    "piece", ["://:", "://a:b", "a_", "password=", 'password="', "cookie:", "Bearer ", "@:// "]
)
def test_hostile_text_is_scrubbed_in_linear_time(piece: str) -> None:
    text = piece * (2 * TEXT_CHARS_MAX // len(piece))
    started = time.process_time()
    Redactor().text(text)
    assert time.process_time() - started < 0.5  # quadratic patterns took 2 to 3 s here


def test_a_secret_across_the_cut_is_hidden() -> None:
    text = "x" * (TEXT_CHARS_MAX - 20) + " redis://:" + "hunter2" * 4 + "@h"
    assert "hunter2" not in Redactor().text(text)


class _Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_repeated_line_comes_once_a_period_and_says_how_many_were_held_back() -> None:
    now, said = _Time(), list[tuple[str, dict[str, object]]]()
    waiting = log_every(10.0, monotonic=now)

    def log(event: str, **fields: object) -> None:
        said.append((event, fields))

    results = []
    for _ in range(4):
        results.append(waiting(log, "waiting", key="a", broker="a"))
        now.now_s += 4.0
    waiting(log, "waiting", key="b")
    assert results == [True, False, False, True]
    assert said == [
        ("waiting", {"broker": "a"}),
        ("waiting", {"broker": "a", "suppressed": 2}),
        ("waiting", {}),
    ]


def test_what_is_remembered_of_repeats_is_bounded() -> None:
    gate = log_every(10.0, monotonic=_Time())
    for number in range(5000):
        assert gate.admit("waiting", str(number)) == 0
    assert gate.admit("waiting", "4999") is None
    assert gate.admit("waiting", "0") == 0


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_period_of_nothing_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        log_every(seconds)


def test_a_librarys_storm_of_warnings_is_held_back_and_counted() -> None:
    now = _Time()
    stream = configured()
    handler = logging.getLogger().handlers[0]
    handler.filters[:] = [RepeatFilter(("aiokafka",), every_s=10.0, monotonic=now)]
    for node in range(50):
        logging.getLogger("aiokafka.conn").error("Unable connect to node %s", node)
        logging.getLogger("verifier").error("mine")
    logging.getLogger("aiokafka.conn").info("joined")
    now.now_s += 11.0
    logging.getLogger("aiokafka.conn").error("Unable connect to node %s", 50)
    theirs = [line for line in lines(stream) if line["logger"] == "aiokafka.conn"]
    assert [line["event"] for line in theirs] == [
        "Unable connect to node 0",
        "joined",
        "Unable connect to node 50",
    ]
    assert theirs[-1]["suppressed"] == 49
    assert len(lines(stream)) == len(theirs) + 50


def test_the_system_clock_is_a_clock_and_waits() -> None:
    clock = SystemClock()
    assert isinstance(clock, Clock)

    async def waited() -> float:
        before = clock.monotonic()
        await clock.sleep(-1.0)
        await clock.sleep(0.01)
        return clock.monotonic() - before

    assert 0.009 <= asyncio.run(waited()) < 5.0
    assert clock.now() > 1_700_000_000
