"""Dockerfiles and `.dockerignore` as an engine reads them, as far as ours need it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]


class Instruction(NamedTuple):
    """One instruction: its name in capitals, and all that follows it, continued lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The exec form's list; empty for the shell form."""
        start = self.text.find("[")
        return [str(word) for word in json.loads(self.text[start:])] if start >= 0 else []


def instructions(path: Path) -> list[Instruction]:
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        if line.strip():
            name, _, text = line.strip().partition(" ")
            found.append(Instruction(name.upper(), text.strip()))
    return found


def stages(path: Path) -> list[list[Instruction]]:
    """The instructions of each stage; the last one is what is shipped."""
    found: list[list[Instruction]] = []
    for each in instructions(path):
        if each.name == "FROM":
            found.append([])
        if found:
            found[-1].append(each)
    return found


class Ignore:
    """A `.dockerignore`: the last pattern that matches a file, or a folder it is in, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._patterns = [
            (line.startswith("!"), _pattern(line.lstrip("!").strip("/")))
            for line in lines
            if line and line[0] != "#"
        ]

    def leaves_out(self, path: str) -> bool:
        parts = path.split("/")
        prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        out = False
        for keeps, pattern in self._patterns:
            if any(pattern.fullmatch(prefix) for prefix in prefixes):
                out = not keeps
        return out


def _pattern(glob: str) -> re.Pattern[str]:
    """Go's filepath.Match, with `**` for any number of folders."""
    made = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]*\])", glob):
        made += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or (
            part if part.startswith("[") else re.escape(part)
        )
    return re.compile(made)


def context(root: Path = ROOT) -> Iterator[str]:
    """The files an engine would be sent, by their path from the root."""
    ignore = Ignore((root / ".dockerignore").read_text(encoding="utf-8"))
    kept = re.findall(r"^!([^*\n]+?)/?$", (root / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    for name in kept:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            relative = path.relative_to(root).as_posix()
            if path.is_file() and not ignore.leaves_out(relative):
                yield relative
