"""The project's own files, parsed once, and findings with the place they were made at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("verifier", "tests", "bench")
_NOT_OURS = {".git", ".venv", ".venv-bench", "__pycache__", "node_modules", "build", "dist", ".hypothesis"}


def python_files(*folders: str) -> list[Path]:
    """Every Python file under the given folders of the project (all of its own, if none is given)."""
    found = [path for folder in folders or _FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if not _NOT_OURS & set(path.parts))


def files(*suffixes: str) -> list[Path]:
    """Every file of the project with one of these suffixes, hidden tool folders left out."""
    found = [path for suffix in suffixes for path in ROOT.rglob(f"*{suffix}") if path.is_file()]
    parts = {path: set(path.relative_to(ROOT).parts) for path in found}
    return sorted(path for path in found if not _NOT_OURS & parts[path] and not _cache(parts[path]))


def _cache(parts: set[str]) -> bool:
    return any(part.startswith(".") and part.endswith("_cache") for part in parts)


@lru_cache(maxsize=2_000)
def tree(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(path: Path, node: ast.AST | None = None) -> str:
    """`folder/file.py:12`, as an editor opens it."""
    where = path.relative_to(ROOT).as_posix()
    return f"{where}:{node.lineno}" if isinstance(node, ast.expr | ast.stmt) else where


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file, those inside others too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a file with what is called, imports resolved: `from time import sleep` gives `time.sleep`."""
    names = imported_names(path)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            dotted = _dotted(node.func)
            head, _, rest = dotted.partition(".")
            known = names.get(head, head)
            yield (f"{known}.{rest}" if rest else known), node


def imported_names(path: Path) -> dict[str, str]:
    """Local name to the full name that it was imported from."""
    names: dict[str, str] = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module or '.'}.{alias.name}"
    return names


def imported_modules(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Each module that a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level) + (node.module or ""), node


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return "?"
