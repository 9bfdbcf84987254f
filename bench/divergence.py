"""The known ways in which a shadow's body differs, each with the one difference that must be found."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.bodies import dump


class Change(NamedTuple):
    """A difference that must be found: its kind, field and change, by the names of the public contract."""

    kind: str
    field: str
    change: str


def respell(body: str) -> str:
    """The same JSON with its members in another order."""
    document = json.loads(body)
    return dump(dict(reversed(document.items())))


def _value(document: dict[str, Any]) -> Change:
    document["meta"]["version"] = "1.14.3"
    return Change("body", "/meta/version", "value")


def _type(document: dict[str, Any]) -> Change:
    document["meta"]["version"] = 1.14
    return Change("body", "/meta/version", "type")


def _missing(document: dict[str, Any]) -> Change:
    del document["meta"]["version"]
    return Change("body", "/meta/version", "missing")


def _extra(document: dict[str, Any]) -> Change:
    document["debug"] = True
    return Change("body", "/debug", "extra")


def _item_lost(document: dict[str, Any]) -> Change:
    document["items"].pop()
    return Change("body", "/items/*", "missing")


def _items_turned(document: dict[str, Any]) -> Change:
    items = document["items"]
    if items[0] == items[-1]:
        return _value(document)
    items[0], items[-1] = items[-1], items[0]
    return Change("body", "/items", "order")


def _applied(change: Callable[[dict[str, Any]], Change]) -> Callable[[str], tuple[str, Change]]:
    def apply(body: str) -> tuple[str, Change]:
        document = json.loads(body)
        found = change(document)
        return dump(document), found

    return apply


BODY_DIVERGENCES: dict[str, Callable[[str], tuple[str, Change]]] = {
    "body_value": _applied(_value),
    "body_type": _applied(_type),
    "body_missing": _applied(_missing),
    "body_extra": _applied(_extra),
    "item_lost": _applied(_item_lost),
    "items_turned": _applied(_items_turned),
}
