"""Debezium change events read as writes.

The envelope is Debezium's own (`op`, `before`, `after`, `source`), with or without the `payload` wrapper of its JSON
converter. It knows no request: the request id comes from a column of the row or from a record header.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_OPS = {"c": "insert", "r": "insert", "u": "update", "d": "delete"}
_TS_MS_MAX = 1e15
_KEY_COLUMNS = ("id", "key", "uuid")


def read_envelope(
    document: dict[str, Any], *, side: str, request_id_column: str, headers: Iterable[tuple[str, bytes]]
) -> dict[str, Any] | str | None:
    """Turn a change event into the fields of a write record.

    Returns None when `document` is no envelope, and a sentence naming the field when it is one that cannot be read.
    """
    payload = document.get("payload", document)
    if not isinstance(payload, dict) or not isinstance(payload.get("source"), dict):
        return None
    before, after, source, op = (payload.get(name) for name in ("before", "after", "source", "op"))
    if not isinstance(op, str) or not isinstance(source, dict):
        return None
    if op not in _OPS:
        return f"op: expected one of {', '.join(_OPS)}: other changes are of no row"
    row = after if isinstance(after, dict) else before
    if not isinstance(row, dict) or not row:
        return "after, before: expected the row as an object in at least one of them"
    entity = source.get("table") or source.get("collection")
    if not isinstance(entity, str) or not entity:
        return "source.table: expected the table's name"
    ts_ms = source.get("ts_ms") or payload.get("ts_ms")
    if isinstance(ts_ms, bool) or not isinstance(ts_ms, int | float) or not 0 < ts_ms < _TS_MS_MAX:
        return "source.ts_ms: expected Unix milliseconds"
    request_id = _request_id(row, before, request_id_column, headers)
    if request_id is None:
        return f"request_id: expected in column or record header {request_id_column!r}"
    write: dict[str, Any] = {
        "request_id": request_id,
        "side": side,
        "ts": ts_ms / 1000,
        "entity": entity,
        "key": _key(document, row),
        "op": _OPS[op],
    }
    if isinstance(after, dict):
        write["data"] = _without(after, request_id_column)
    if isinstance(before, dict):
        write["before"] = _without(before, request_id_column)
    return write


def position(document: dict[str, Any]) -> list[Any]:
    """What identifies a change in the source's own log: a repeat of an event has the same, whenever it was sent."""
    source = document.get("payload", document)["source"]
    return [source.get(name) for name in ("lsn", "txId", "gtid", "file", "pos", "row", "scn", "ts_ms")]


def _request_id(
    row: dict[str, Any], before: Any, column: str, headers: Iterable[tuple[str, bytes]]
) -> str | None:
    for candidate in (row, before):
        value = candidate.get(column) if isinstance(candidate, dict) else None
        if isinstance(value, str) and value:
            return value
    for name, raw in headers:
        if name.lower() in (column.lower(), "x-request-id") and raw:
            return raw.decode("utf-8", "replace")
    return None


def _without(row: dict[str, Any], column: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != column}


def _key(document: dict[str, Any], row: dict[str, Any]) -> Any:
    """The primary key: the column that is one by name, else the columns the schema requires, else the row's first."""
    for column in _KEY_COLUMNS:
        if _is_key(row.get(column)):
            return row[column]
    required = _required_columns(document.get("schema"))
    if required and all(column in row for column in required):
        return {column: row[column] for column in required}
    first = next(iter(row))
    return row[first] if _is_key(row[first]) else dict(row)


def _is_key(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _required_columns(schema: Any) -> list[str]:
    """Columns of the row's struct that the JSON converter's schema marks as not optional and named as a key."""
    if not isinstance(schema, dict):
        return []
    for field in _members(schema):
        if field.get("field") in ("after", "before"):
            names = [column.get("field") for column in _members(field) if column.get("optional") is False]
            return [name for name in names if isinstance(name, str)]
    return []


def _members(schema: dict[str, Any]) -> list[dict[str, Any]]:
    fields = schema.get("fields")
    return [field for field in fields if isinstance(field, dict)] if isinstance(fields, list) else []
