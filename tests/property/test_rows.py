"""A row that is read quickly is read as every row is."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.core.canonical import canonical, parse
from verifier.core.rows import _is_plain, _plain_content

numbers = st.sampled_from(
    ["0", "-0", "7", "10", "-100", "1.0", "1.50", "-0.0", "1e5", "1E+05", "1e-7", "1e400", "1e-400", "9" * 30, "9" * 60]
)  # fmt: skip
quoted = st.text(max_size=4).map(
    lambda text: json.dumps(text, ensure_ascii="\ud800" <= max(text, default="") < "\ue000")
)
names = st.sampled_from(['"a"', '"b"', '"é"', '""', '"a:b"'])
spaces = st.sampled_from(["", "", " ", "\n"])


def _object(members: list[tuple[str, str, str]]) -> str:
    return "{" + ",".join(f"{name}{space}:{space}{value}" for name, space, value in members) + "}"


rows = st.recursive(
    numbers | quoted | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(names, spaces, inner), max_size=4).map(_object)
    ),
    max_leaves=10,
)


@settings(max_examples=500, deadline=None)
@given(row=rows)
def test_what_is_read_quickly_is_read_as_it_would_be_otherwise(row: str) -> None:
    raw = row.encode()
    content = _plain_content(raw)
    assert content is None or (content == canonical(parse(raw)).decode() and _is_plain(raw))


def test_rows_are_read_quickly_unless_something_is_unusual() -> None:
    assert _plain_content(b'{"b": [1, 20, 1.50], "a": "x"}') == '{"a":"x","b":[1,2e1,15e-1]}'
    assert _plain_content(b'{"a": 1, "a": 2}') is None
    assert _plain_content(b'{"a" : 1,"a":":"}') is None
    assert _plain_content(b'"\\u0041"') is None
    assert _plain_content(b"1e999") is None
