"""The dashboard's files: safe by their headers and by what they do not do."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from tests.unit.web.web_world import populated

FILES = {item.name: item.read_text() for item in files("verifier.web").joinpath("dashboard").iterdir()}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}
MARKUP_SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTML|srcdoc"
    r"|\beval\(|new Function|javascript:|localStorage"
)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_no_script_makes_markup_or_code_from_text(name: str) -> None:
    assert MARKUP_SINKS.findall(SCRIPTS[name]) == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_comes_from_elsewhere(name: str) -> None:
    addresses = re.findall(
        r"(?:https?:)?//[a-z][^\s\"'`)]*",
        re.sub(r"^\s*//.*$|[;}]\s*//.*$", "", FILES[name], flags=re.MULTILINE),
    )
    assert [one for one in addresses if "www.w3.org" not in one] == []
    assert "@import" not in FILES[name]


def test_the_page_has_no_inline_script_style_or_handler() -> None:
    page = FILES["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert "<style" not in page
    assert not re.search(r"\s(?:on\w+|style)=", page)


def test_every_import_and_link_has_its_file() -> None:
    for text in SCRIPTS.values():
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert name in FILES
    for name in re.findall(r'"/dashboard/([^"]+)"', FILES["index.html"]):
        assert name in FILES


async def test_files_are_served_with_strict_headers_and_entity_tags() -> None:
    async with (await populated()).client() as client:
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        script = await client.get("/dashboard/main.js")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        for answer in (page, script):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
        again = await client.get("/dashboard/main.js", headers={"if-none-match": script.headers["etag"]})
        assert again.status_code == 304
        for missing in ("/dashboard/none.js", "/dashboard/..%2fapi.py", "/dashboard/"):
            assert (await client.get(missing)).status_code == 404
