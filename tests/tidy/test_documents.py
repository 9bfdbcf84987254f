"""Documents point at what is there, and no secret is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tidy.source_files import ROOT, files, place

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)

SECRETS = {
    "a private key": re.compile("-----BEGIN [A-Z ]*PRIVATE" + " KEY-----"),
    "an AWS key id": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10,}\b"),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
}
SECRET_FREE = (
    ".py", ".md", ".sql", ".yaml", ".yml", ".toml", ".js", ".json", ".html", ".css", ".template", ".lock", ".ndjson",
    "Makefile", "Dockerfile", "setup", "run",
)  # fmt: skip


def test_links_of_documents_lead_somewhere() -> None:
    found = [
        f"{place(document)}: {target}"
        for document in files(".md")
        for target in targets(document)
        if not leads_somewhere(document, target)
    ]
    assert found == []


def targets(document: Path) -> list[str]:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    return [*LINK.findall(text), *IMAGE.findall(text)]


def leads_somewhere(document: Path, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True  # the network's, and not asked here
    name, _, anchor = target.partition("#")
    file = (document.parent / name).resolve() if name else document
    if not file.exists() or not file.is_relative_to(ROOT):
        return False
    return not anchor or file.suffix != ".md" or anchor in anchors(file)


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCE.sub("", document.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("target", "leads"),
    [
        ("other.md", True),
        ("other.md#the-second-part", True),
        ("#the-first", True),
        ("other.md#the-third-part", False),
        ("gone.md", False),
        ("https://example.org/gone", True),
    ],
)
def test_a_link_is_judged_by_its_file_and_heading(target: str, leads: bool) -> None:
    folder = ROOT / "tests" / "tidy" / "documents"
    assert leads_somewhere(folder / "linking.md", target) is leads


def test_no_secret_is_kept_here() -> None:
    found = [
        f"{place(path)}: {what}"
        for path in files(*SECRET_FREE)
        for what, pattern in SECRETS.items()
        if pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []
