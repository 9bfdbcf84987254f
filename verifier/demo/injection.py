"""How each planted fault is done: a change of the successor's answer or of its writes, in this one request alone."""

from __future__ import annotations

import datetime as dt
import json
import struct
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from verifier.demo.database import RowWrite, decoy_of
from verifier.demo.operations import TEXT, Draft

Injection = Callable[[Draft], None]


class PlantedError(Exception):
    """The bug in the successor's handler."""


def inject(fault: str, draft: Draft) -> None:
    """Plant the fault in the draft. Faults that are not about a draft (`crash`, `slow`, `order_inverted`) change none.

    Raises PlantedError for the fault `exception`.
    """
    INJECTIONS[fault](draft)


def _set(name: str, change: Callable[[Any], Any]) -> Injection:
    def apply(draft: Draft) -> None:
        draft.payload[name] = change(draft.payload[name])

    return apply


def _add(name: str, value: Any) -> Injection:
    def apply(draft: Draft) -> None:
        draft.payload[name] = value

    return apply


def _missing_field(draft: Draft) -> None:
    del draft.payload["volume"]


def _renamed(draft: Draft) -> None:
    draft.payload["ccy"] = draft.payload.pop("currency")


def _single_precision(price: float) -> float:
    value: float = struct.unpack("<f", struct.pack("<f", price))[0]
    return value


def _as_local(moment: str) -> str:
    local = dt.datetime.fromisoformat(moment) + dt.timedelta(hours=2)
    return local.strftime("%Y-%m-%dT%H:%M:%SZ")


def _duplicate_name(draft: Draft) -> None:
    text = json.dumps(draft.payload, ensure_ascii=False, separators=(",", ":"))
    draft.rendered = (text[:-1] + f',"price":{draft.payload["price"] + 1}}}').encode()


def _item_inserted(draft: Draft) -> None:
    extra = {
        "news_id": "news-draft",
        "topic": draft.payload["topic"],
        "headline": "Entwürfe",
        "sentiment": 0.0,
    }
    draft.payload["items"].insert(2, extra | {"published_at": "2026-03-02T14:30:00Z"})


def _mixed_ids(draft: Draft) -> None:
    other = str(uuid.uuid4())
    for item in draft.payload["items"]:
        item["fetch_id"] = other


def _text_changed(draft: Draft) -> None:
    draft.payload = draft.payload.replace("volume ", "Volume: ")


def _binary_changed(draft: Draft) -> None:
    draft.payload = draft.payload[:9] + bytes([draft.payload[9] ^ 0x40]) + draft.payload[10:]


def _empty_body(draft: Draft) -> None:
    draft.rendered = b""


def _header_dropped(draft: Draft) -> None:
    del draft.headers["cache-control"]


def _header_value(draft: Draft) -> None:
    draft.headers["x-data-version"] = "2026-02"


def _content_type(draft: Draft) -> None:
    draft.rendered = json.dumps(draft.payload, ensure_ascii=False).encode()
    draft.media_type = TEXT


def _ok(draft: Draft) -> None:
    draft.status = 200


def _exception(_: Draft) -> None:
    raise PlantedError("a planted bug in the handler")


def _nothing(_: Draft) -> None:
    """The fault is not in the draft."""


def _lost_write(draft: Draft) -> None:
    draft.writes.clear()


def _double_write(draft: Draft) -> None:
    draft.writes.append(draft.writes[-1])


def _partial_write(draft: Draft) -> None:
    draft.writes.pop()


def _swapped_writes(draft: Draft) -> None:
    """An upsert of the final row is overtaken by the insert of the unfinished one: the source stays pending."""
    pending, active = draft.writes
    draft.writes = [
        RowWrite(entity="data_sources", op="upsert", row={**pending.row, **active.row}),
        RowWrite(entity="data_sources", op="upsert", row=pending.row),
    ]


def _wrong_row(draft: Draft) -> None:
    _change_last(draft, lambda row: {"fetch_key": f"{row['fetch_key']}:copy"})


def _stale_value(draft: Draft) -> None:
    _change_last(draft, lambda row: {"price": round(row["price"] * 0.5, 2)})


def _refused(draft: Draft) -> None:
    _change_last(draft, lambda _: {"volume": -1})


def _wrong_delete(draft: Draft) -> None:
    _change_last(draft, lambda row: {"source_id": decoy_of(row["source_id"])})


def _text_column(draft: Draft) -> None:
    _change_last(draft, lambda row: {"headlines": json.dumps(row["headlines"])})


def _extra_write(draft: Draft) -> None:
    batch = draft.writes[0].row["batch"]
    row = {"buffer_id": f"{batch}:leftover", "topic": "metals", "headlines": [], "item_count": 0}
    draft.writes.append(RowWrite(entity="news_buffer", op="upsert", row=row))


def _applied_again(draft: Draft) -> None:
    draft.respects_retries = False


def _change_last(draft: Draft, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    last = draft.writes[-1]
    draft.writes[-1] = replace(last, row={**last.row, **change(last.row)})


INJECTIONS: Final[Mapping[str, Injection]] = {
    "missing_field": _missing_field,
    "extra_field": _add("internal_id", 4711),
    "renamed_field": _renamed,
    "number_as_text": _set("price", str),
    "null_for_absent": _add("halt_reason", None),
    "rounded": _set("price", round),
    "precision_lost": _set("market_cap", lambda cap: int(float(cap))),
    "single_precision": _set("price", _single_precision),
    "minor_units": _set("price", lambda price: round(price * 100)),
    "sign_flipped": _set("change_pct", lambda change: -change),
    "time_zone": _set("as_of", _as_local),
    "date_format": _set("trading_day", lambda day: "/".join(reversed(day.split("-")))),
    "wrong_case": _set("symbol", str.lower),
    "empty_for_null": _set("closed_at", lambda _: ""),
    "flag_flipped": _set("enabled", lambda enabled: not enabled),
    "duplicate_name": _duplicate_name,
    "count_off_by_one": _set("count", lambda count: count + 1),
    "no_next_page": _set("next_page", lambda _: None),
    "reordered": _set("items", lambda items: items[::-1]),
    "item_dropped": _set("items", lambda items: items[:1] + items[2:]),
    "item_inserted": _item_inserted,
    "text_truncated": _set("summary", lambda text: text[:40]),
    "mojibake": _set("headline", lambda text: text.encode().decode("latin-1")),
    "decomposed": _set("headline", lambda text: unicodedata.normalize("NFD", text)),
    "mixed_ids": _mixed_ids,
    "search_incomplete": _set("results", lambda results: results[1:]),
    "text_changed": _text_changed,
    "form_changed": _set("total", lambda total: f"{float(total) + 0.01:.2f}"),
    "binary_changed": _binary_changed,
    "empty_body": _empty_body,
    "header_dropped": _header_dropped,
    "header_value": _header_value,
    "content_type": _content_type,
    "wrong_status": _ok,
    "error_swallowed": _ok,
    "exception": _exception,
    "crash": _nothing,
    "slow": _nothing,
    "lost_write": _lost_write,
    "double_write": _double_write,
    "wrong_row": _wrong_row,
    "stale_value": _stale_value,
    "partial_write": _partial_write,
    "extra_write": _extra_write,
    "swapped_writes": _swapped_writes,
    "failed_write": _refused,
    "wrong_delete": _wrong_delete,
    "text_column": _text_column,
    "retry_written_again": _applied_again,
    "key_reused": _applied_again,
    "order_inverted": _nothing,
}
