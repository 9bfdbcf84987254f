"""The faults planted in the demo's successor, and what a verifier must say about each at the least.

The catalogue is the truth that `score` holds the verifier's findings against. How a fault is done is in `injection`,
which request gets it in `plan`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

Pairing = Literal["retry", "retry_with_other_data", "same_row"]

SLOW_S: Final = 1.5
SLOWER_BY_S: Final = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What has to be found. Parts left None are not asked for; no `changes` means any.

    `field` is a glob over the difference's field, a header's name, or "" for the status. `missing` begins the name
    of an absent part. `latency_s`: the verdict is not to suffer, but the shadow's latency must show at least so much
    more than main's.
    """

    verdict: str | None = "divergence"
    kind: str | None = None
    changes: tuple[str, ...] = ()
    field: str = "*"
    conflict: tuple[str, str] | None = None
    missing: str | None = None
    latency_s: float | None = None

    def accepts(self, difference: dict[str, Any]) -> bool:
        """Whether this difference is the one that was planted."""
        return (
            difference.get("kind") == self.kind
            and (not self.changes or difference.get("change") in self.changes)
            and fnmatchcase(str(difference.get("field", "")), self.field)
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the truth file."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault: where it may be planted, and how it must show.

    `pairing`: the fault needs a second request, a retry of the first or one that writes the same row.
    """

    name: str
    operations: tuple[str, ...]
    description: str
    expect: Expect
    pairing: Pairing | None = None


def _body(name: str, operation: str, field: str, changes: str, description: str) -> Fault:
    expect = Expect(kind="body", field=field, changes=tuple(changes.split()))
    return Fault(name=name, operations=tuple(operation.split()), description=description, expect=expect)


def _header(name: str, operation: str, field: str, changes: str, description: str) -> Fault:
    expect = Expect(kind="header", field=field, changes=tuple(changes.split()))
    return Fault(name=name, operations=tuple(operation.split()), description=description, expect=expect)


def _status(name: str, operation: str, description: str) -> Fault:
    expect = Expect(kind="status", changes=("value",))
    return Fault(name=name, operations=tuple(operation.split()), description=description, expect=expect)


def _write(name: str, operation: str, field: str, changes: str, description: str) -> Fault:
    expect = Expect(kind="write", field=field, changes=tuple(changes.split()))
    return Fault(name=name, operations=tuple(operation.split()), description=description, expect=expect)


_BODIES: Final = (
    _body("missing_field", "market_get", "/volume", "missing", "the field `volume` is left out"),
    _body("extra_field", "market_get", "/internal_id", "extra", "an internal field gets out"),
    _body("renamed_field", "market_get", "/currency", "missing", "`currency` is called `ccy`"),
    _body("number_as_text", "market_get", "/price", "type", "the price is a string"),
    _body("null_for_absent", "market_get", "/halt_reason", "extra type value", "an absent field is null"),
    _body("rounded", "market_get", "/price", "value", "the price is rounded to whole units"),
    _body("precision_lost", "market_get", "/market_cap", "value", "a 64-bit integer went through a double"),
    _body("single_precision", "market_get", "/price", "value", "the price went through a 32-bit float"),
    _body("minor_units", "market_get", "/price", "value type", "the price is in cents"),
    _body("sign_flipped", "market_get", "/change_pct", "value", "a loss is shown as a gain"),
    _body("time_zone", "market_get", "/as_of", "value", "local time is called UTC"),
    _body("date_format", "market_get", "/trading_day", "value", "the date is written day first"),
    _body("wrong_case", "market_get", "/symbol", "value", "the symbol is in lower case"),
    _body("empty_for_null", "market_get", "/closed_at", "value type", "null became an empty string"),
    _body("flag_flipped", "source_get", "/enabled", "value", "a boolean is the other way round"),
    _body("duplicate_name", "market_get", "*", "", "the JSON has the name `price` twice, with two values"),
    _body("count_off_by_one", "news_list", "/count", "value", "the count is one too high"),
    _body("no_next_page", "news_list", "/next_page", "value type", "the last page comes too early"),
    _body("reordered", "news_list", "/items*", "order value", "a ranked list is in another order"),
    _body("item_dropped", "news_list", "/items*", "missing length", "a list lacks an item"),
    _body("item_inserted", "news_list", "/items*", "extra length", "a list has an item too many"),
    _body("text_truncated", "news_item", "/summary", "value", "a text is cut at 40 characters"),
    _body("mojibake", "news_item", "/headline", "value", "UTF-8 was read as Latin-1"),
    _body("decomposed", "news_item", "/headline", "value", "Unicode is in another normal form"),
    _body(
        "mixed_ids",
        "market_fetch",
        "/items/*/fetch_id",
        "value",
        "items name another fetch than the answer does",
    ),
    _body("search_incomplete", "search", "/results*", "missing length", "a search misses a result"),
    _body("text_changed", "market_report", "*", "value", "a plain-text line is worded differently"),
    _body("form_changed", "market_convert", "*", "value", "a form-encoded total differs"),
    _body("binary_changed", "market_sparkline", "*", "value", "one byte of a binary answer differs"),
    _body("empty_body", "market_get news_item", "*", "", "the body is empty"),
)

_ANSWERS: Final = (
    _header("header_dropped", "source_get", "cache-control", "missing", "a header is left out"),
    _header("header_value", "source_get", "x-data-version", "value", "a header has another value"),
    _header("content_type", "news_item", "content-type", "value", "JSON is called plain text"),
    _status("wrong_status", "source_connect", "200 instead of 201"),
    _status("error_swallowed", "news_item_absent", "an error is answered with 200"),
    _status("exception", "search market_get", "the handler raises: 500"),
    Fault(
        name="crash",
        operations=("market_get", "news_list"),
        description="the connection is reset: there is no answer",
        expect=Expect(verdict="incomplete", missing="shadow."),
    ),
    Fault(
        name="slow",
        operations=("market_get", "search"),
        description=f"right, but {SLOW_S} s later: no difference, to be seen in the latencies",
        expect=Expect(verdict="match", latency_s=SLOWER_BY_S),
    ),
)

_WRITES: Final = (
    _write("lost_write", "news_buffer", "/news_buffer/*", "missing", "the row is never written"),
    _write(
        "double_write", "news_buffer", "/news_buffer/*", "duplicate extra length", "the row is written twice"
    ),
    _write(
        "wrong_row",
        "market_fetch",
        "/market_data_fetches/*",
        "missing extra value",
        "written under another key",
    ),
    _write(
        "stale_value", "market_buffer", "/market_data_buffer/*/price", "value", "an older price is written"
    ),
    _write(
        "partial_write",
        "market_fetch",
        "/market_data_fetches/*",
        "missing length",
        "one of the rows is missing",
    ),
    _write("extra_write", "news_fetch", "/news_buffer/*", "extra", "a row nobody asked for is written"),
    _write("swapped_writes", "source_connect", "/data_sources/*", "", "the update comes before the insert"),
    _write(
        "failed_write",
        "market_buffer",
        "/market_data_buffer/*",
        "",
        "the row is refused, the answer says done",
    ),
    _write(
        "wrong_delete", "source_delete", "/data_sources/*", "missing extra value", "another source is deleted"
    ),
    _write(
        "text_column",
        "news_buffer",
        "/news_buffer/*/headlines*",
        "type value",
        "a number is written as a text",
    ),
)

_PAIRS: Final = (
    Fault(
        name="retry_written_again",
        operations=("market_buffer",),
        pairing="retry",
        description="a retry with the same idempotency key is applied again",
        expect=Expect(conflict=("idempotency", "duplicate")),
    ),
    Fault(
        name="key_reused",
        operations=("market_buffer",),
        pairing="retry_with_other_data",
        description="a known idempotency key with other data is applied",
        expect=Expect(conflict=("idempotency", "conflict")),
    ),
    Fault(
        name="order_inverted",
        operations=("market_buffer",),
        pairing="same_row",
        description="two requests write one row in the other order than on main",
        expect=Expect(verdict=None, conflict=("main_shadow", "order")),
    ),
)

FAULTS: Final[tuple[Fault, ...]] = (*_BODIES, *_ANSWERS, *_WRITES, *_PAIRS)
BY_NAME: Final[dict[str, Fault]] = {fault.name: fault for fault in FAULTS}


def demo_rules() -> list[dict[str, Any]]:
    """What may honestly differ between the sample systems, as rules for the verifier."""
    owner = "demo"

    def rule(kind: str, field: str, action: str, reason: str, **params: Any) -> dict[str, Any]:
        return {
            "id": f"demo:{kind}:{field.replace('/', '.').replace('*', 'x').strip('.')}",
            "kind": kind,
            "field": field,
            "action": action,
            "params": params,
            "owner": owner,
            "reason": reason,
        }

    made_up = "Each side makes up its own; the same one stands for the same thing within a request."
    clock = "When this side did it."
    fetches = ("/market_data_fetches/*", "/news_fetches/*")
    return [
        rule("header", "x-served-by", "presence", "Names the instance that answered."),
        rule("body", "/generated_at", "time_tolerance", clock, seconds=60),
        *(
            rule("body", field, "generated_id", made_up, space="fetch")
            for field in ("/fetch_id", "/items/*/fetch_id")
        ),
        rule("body", "/connection_id", "generated_id", made_up, space="connection"),
        rule("body", "/results", "unordered", "The order of a search is nobody's promise.", key="/symbol"),
        *(rule("write", f"{rows}/fetch_id", "generated_id", made_up, space="fetch") for rows in fetches),
        *(rule("write", f"{rows}/fetched_at", "time_tolerance", clock, seconds=60) for rows in fetches),
        rule("write", "/data_sources/*/connection_id", "generated_id", made_up, space="connection"),
        rule("write", "/data_sources/*/updated_at", "time_tolerance", clock, seconds=60),
    ]
