"""Reading single values as people write them: `30s`, `8MiB`, `host:9092,host2:9092`, `POST /api/v1/x/{id}`.

Each reader takes what the environment (text) or YAML (any scalar or list) gave and raises ValueError with a
sentence that never contains a secret.
"""

# ruff: noqa: TRY004  (pydantic collects ValueErrors; a TypeError would end the validation at the first)

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", re.IGNORECASE)
_SIZE_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_HOST = re.compile(r"\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_-]*\}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def read_duration(value: object) -> float:
    """Seconds from `30s`, `5m`, `1h30m`, `250ms`, `3600`, or a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("a duration is a number of seconds or text such as 30s, 5m, 1h")
    if isinstance(value, str):
        text = value.strip().lower().replace("_", "")
        parts = _DURATION_PART.findall(text)
        if parts and _DURATION_PART.sub("", text).strip() == "":
            return sum(float(number) * _SECONDS[unit] for number, unit in parts)
        try:
            value = float(text)
        except ValueError:
            raise ValueError("this is no duration: write 30s, 5m, 1h, or a number of seconds") from None
    seconds = float(value)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("a duration is finite and not negative")
    return seconds


def read_size(value: object) -> int:
    """Bytes from `8MiB`, `512k`, `1GB`, or a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("a size is a number of bytes or text such as 8MiB")
    found = _SIZE.fullmatch(str(value).strip().replace("_", ""))
    if found is None:
        raise ValueError("this is no size: write 8MiB, 512KiB, or a number of bytes")
    number, unit = found.groups()
    return round(float(number) * _SIZE_FACTORS[(unit or "").lower()])


def read_count(value: object) -> int:
    """A whole number; `true` and `1.5` are none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value.strip())
        except ValueError:
            raise ValueError("this is no whole number") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("this is no whole number")
    return value


def read_flag(value: object) -> bool:
    """Read true or false, also written yes/no, on/off, 1/0."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError("this is neither true nor false")


def read_list(value: object) -> tuple[object, ...]:
    """The items of a YAML list or of a comma-separated text; empty items are left out."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(value)
    raise ValueError("this is neither a list nor text with commas")


def read_names(value: object) -> tuple[str, ...]:
    """A list of texts, each once, in the order given."""
    items = read_list(value)
    if not all(isinstance(item, str) for item in items):
        raise ValueError("each item must be text")
    return tuple(dict.fromkeys(str(item).strip() for item in items))


def read_brokers(value: object) -> tuple[str, ...]:
    """`host:port` pairs, IPv6 hosts in brackets."""
    brokers = read_names(value)
    for broker in brokers:
        if "://" in broker:
            raise ValueError("brokers are given as host:port, without a scheme")
        host, colon, port = broker.rpartition(":")
        if not colon or not _HOST.fullmatch(host):
            raise ValueError(f"broker {broker!r} is not host:port")
        if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
            raise ValueError(f"broker {broker!r} has no port from 1 to 65535")
    return brokers


def read_topic(value: object) -> str:
    """A name Kafka takes for a topic."""
    if not isinstance(value, str) or not _TOPIC.fullmatch(value.strip()) or value.strip() in (".", ".."):
        raise ValueError("a topic's name is 1 to 249 of letters, digits, '.', '_' and '-'")
    return value.strip()


def read_route(value: object) -> str:
    """`POST /api/v1/data-sources/{id}`, from that text or from `{method: …, path: …}`."""
    if isinstance(value, Mapping):
        if set(value) != {"method", "path"}:
            raise ValueError("a route written as a mapping has exactly method and path")
        value = f"{value['method']} {value['path']}"
    method, _, path = value.strip().partition(" ") if isinstance(value, str) else ("", "", "")
    method, path = method.upper(), path.strip()
    if method not in _METHODS or not path.startswith("/") or re.search(r"[\s?#]", path):
        raise ValueError("a route is a method and a path template, such as POST /api/v1/data-sources/{id}")
    if any(("{" in part or "}" in part) and not _PARAMETER.fullmatch(part) for part in path.split("/")):
        raise ValueError("a route's parameter is a whole path segment in braces, such as {id}")
    return f"{method} {path}"


def route_shape(route: str) -> str:
    """The route without its parameters' names: what decides which requests it matches."""
    return _PARAMETER.sub("{}", route)


def read_routes(value: object) -> tuple[str, ...]:
    """Routes, each once. Two that differ only in a parameter's name could not be told apart: an error."""
    routes = tuple(dict.fromkeys(read_route(item) for item in read_list(value)))
    shapes: dict[str, str] = {}
    for route in routes:
        other = shapes.setdefault(route_shape(route), route)
        if other != route:
            raise ValueError(f"the routes {other!r} and {route!r} match the same requests")
    return routes


def read_json_list(value: object) -> object:
    """In the environment a list of objects is JSON; in YAML it is the list itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("in the environment this is a JSON list") from None


def split_url(text: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of a URL that may hold a password: the errors name none of its text."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise ValueError(
            "the URL cannot be read: escape the password's special characters (@ is %40)"
        ) from None
    if parts.scheme not in schemes:
        raise ValueError(f"the URL's scheme is not {' or '.join(schemes)}")
    if port == 0:
        raise ValueError("the URL's port is 0")
    return parts


def read_redis_url(text: str) -> str:
    """`redis://[user:password@]host[:port][/database]`, `rediss://…`, or `unix:///path`."""
    parts = split_url(text, ("redis", "rediss", "unix"))
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("the URL names no socket")
        return text.strip()
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.path not in ("", "/") and not parts.path[1:].isdigit():
        raise ValueError("the URL's path is not a database number")
    return text.strip()


def read_postgres_dsn(text: str) -> str:
    """`postgresql://user:password@host:port/name`; a socket folder may stand in the query as host."""
    parts = split_url(text, ("postgresql", "postgres"))
    if not parts.hostname and "host=" not in parts.query:
        raise ValueError("the DSN names no host")
    return text.strip()
