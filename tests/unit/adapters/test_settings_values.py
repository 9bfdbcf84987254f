"""How single values are read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from verifier.adapters import settings_values as read


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("3600", 3600.0),
        (3600, 3600.0),
        (0.5, 0.5),
        ("250ms", 0.25),
        ("1h30m", 5400.0),
        ("1h 30m 5s", 5405.0),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
        (" 10 S ", 10.0),
        ("0", 0.0),
    ],
)
def test_a_duration_is_read_in_seconds(given: object, seconds: float) -> None:
    assert read.read_duration(given) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "given",
    ["", "soon", "-1", "-5s", "5x", "s", "1h later", "nan", "inf", float("nan"), -1, True, None, [], "1m2"],
)
def test_what_is_no_duration_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        read.read_duration(given)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("8MiB", 8_388_608),
        ("8mi", 8_388_608),
        ("512KiB", 524_288),
        ("1GB", 10**9),
        ("10k", 10_000),
        ("4096", 4096),
        (4096, 4096),
        ("0.5MiB", 524_288),
        ("500_000", 500_000),
    ],
)
def test_a_size_is_read_in_bytes(given: object, size: int) -> None:
    assert read.read_size(given) == size


@pytest.mark.parametrize("given", ["", "big", "-1", "8 apples", True, None])
def test_what_is_no_size_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="size"):
        read.read_size(given)


@pytest.mark.parametrize(("given", "count"), [("8", 8), (8, 8), (8.0, 8), ("500_000", 500_000), ("-2", -2)])
def test_a_count_is_read(given: object, count: int) -> None:
    assert read.read_count(given) == count


@pytest.mark.parametrize("given", [True, 1.5, "1.5", "eight", "", None, []])
def test_what_is_no_whole_number_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="whole number"):
        read.read_count(given)


@pytest.mark.parametrize(
    ("given", "brokers"),
    [
        ("kafka:9092", ("kafka:9092",)),
        (" a:1 , b.c:2,", ("a:1", "b.c:2")),
        (["a:1", "a:1"], ("a:1",)),
        ("[::1]:9092", ("[::1]:9092",)),
        ("127.0.0.1:9092", ("127.0.0.1:9092",)),
    ],
)
def test_brokers_are_host_and_port(given: object, brokers: tuple[str, ...]) -> None:
    assert read.read_brokers(given) == brokers


@pytest.mark.parametrize(
    "given",
    ["kafka", "kafka:", ":9092", "kafka:0", "kafka:65536", "kafka:٣", "kafka://h:1", "::1:9", "a b:1", [1]],
)
def test_brokers_without_host_or_port_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"broker|item"):
        read.read_brokers(given)


@pytest.mark.parametrize(
    ("given", "route"),
    [
        ("POST /api/v1/data-sources/{id}", "POST /api/v1/data-sources/{id}"),
        ("get  /", "GET /"),
        ({"method": "delete", "path": "/a/{b}/c"}, "DELETE /a/{b}/c"),
    ],
)
def test_a_route_is_read_from_text_and_from_a_mapping(given: object, route: str) -> None:
    assert read.read_route(given) == route


@pytest.mark.parametrize(
    "given",
    [
        "/api",
        "FETCH /api",
        "GET api",
        "GET /a?b=1",
        "GET /a/{id",
        "GET /a/x{id}",
        "GET /a b",
        "",
        None,
        7,
        {"method": "GET"},
        {"method": "GET", "path": "/a", "more": 1},
    ],
)
def test_what_is_no_route_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="route"):
        read.read_route(given)


def test_routes_that_match_the_same_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="match the same requests"):
        read.read_routes(["GET /a/{id}", "GET /a/{key}"])
    assert read.read_routes("GET /a/{id}, GET /a/{id}, PUT /a/{key}") == ("GET /a/{id}", "PUT /a/{key}")


@pytest.mark.parametrize(
    ("reader", "given"),
    [
        (read.read_redis_url, "redis://redis:6379/1"),
        (read.read_redis_url, "rediss://user:p%40ss@redis"),
        (read.read_redis_url, "redis://:pass@redis:6379/"),
        (read.read_redis_url, "unix:///run/redis.sock"),
        (read.read_postgres_dsn, "postgresql://u:p@h:5432/db?sslmode=require"),
        (read.read_postgres_dsn, "postgres://u@h/db"),
        (read.read_postgres_dsn, "postgresql:///db?host=/run/postgresql"),
    ],
)
def test_a_connection_url_is_kept_as_it_stands(reader: Callable[[str], str], given: str) -> None:
    assert reader(given) == given


@pytest.mark.parametrize(
    ("reader", "given"),
    [
        (read.read_redis_url, "redis:6379"),
        (read.read_redis_url, "http://u:hunter2@redis"),
        (read.read_redis_url, "redis://:hunter2@redis/one"),
        (read.read_redis_url, "redis:///1"),
        (read.read_redis_url, "redis://:hunter2@redis:port/1"),
        (read.read_redis_url, "unix://"),
        (read.read_postgres_dsn, "mysql://u:hunter2@h/db"),
        (read.read_postgres_dsn, "postgresql://u:hunter2@/db"),
        (read.read_postgres_dsn, "postgresql://u:hunter2[@h/db"),
        (read.read_postgres_dsn, "host=h password=hunter2"),
    ],
)
def test_a_wrong_connection_url_is_refused_without_its_secret(
    reader: Callable[[str], str], given: str
) -> None:
    with pytest.raises(ValueError, match="URL|DSN") as caught:
        reader(given)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "flag"), [("true", True), ("NO", False), ("1", True), ("off", False), (True, True), (0, False)]
)
def test_a_flag_is_read(given: object, flag: bool) -> None:
    assert read.read_flag(given) is flag


def test_what_is_no_flag_is_refused() -> None:
    with pytest.raises(ValueError, match="neither true nor false"):
        read.read_flag("maybe")


@pytest.mark.parametrize("given", ["a b", "", "..", "x" * 250, "tópico", 5])
def test_what_kafka_would_not_take_as_a_topic_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="topic"):
        read.read_topic(given)
