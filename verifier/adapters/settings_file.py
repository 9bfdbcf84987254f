"""Reading the YAML file: duplicate keys refused, `${VARIABLE}` filled in, no file content in error messages."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from verifier.adapters.settings_blocks import BLOCKS, Problem

FILE_BYTES_MAX = 4 * 2**20

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(slots=True)
class Document:
    """A configuration file's content: the migration's blocks apart from the verifier's own keys."""

    keys: dict[str, object] = field(default_factory=dict)
    blocks: dict[str, object] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """A safe loader to which a key given twice is an error, not a silent choice of the last."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT002 - PyYAML's signature
    ) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key_node.value!r} stands there twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def read_document(
    path: Path, environ: Mapping[str, str], problems: list[Problem], *, source: str
) -> Document:
    """The file's content; empty, with a problem added, if it cannot be read. `source` says who named the file.

    Keys starting with `x-` are for YAML anchors and are passed over. The verifier's own keys may also stand under
    one key `verifier:`.
    """
    content = _load(path, problems, source)
    if content is None:
        return Document()
    if not isinstance(content, dict):
        problems.append(
            Problem(
                name=path.name, expected="a mapping of keys to values", given=f"a {type(content).__name__}"
            )
        )
        return Document()
    document = Document()
    for raw_key, raw_value in content.items():
        key = str(raw_key)
        # A rule's pattern may hold "${" with its own meaning.
        value = (
            raw_value
            if key in ("rules", "verifier")
            else _fill_in(raw_value, environ, problems, f"{path.name}: {key}")
        )
        if key in BLOCKS:
            document.blocks[key] = value
        elif key == "verifier":
            _add_own(document, raw_value, environ, problems, path.name)
        elif not key.startswith("x-"):
            _add(document, key, value, problems, path.name)
    return document


def _add_own(
    document: Document, content: object, environ: Mapping[str, str], problems: list[Problem], file: str
) -> None:
    if content is None:
        return
    if not isinstance(content, dict):
        problems.append(Problem(name=f"{file}: verifier", expected="a mapping of the verifier's keys"))
        return
    for key, value in content.items():
        name = str(key)
        filled = value if name == "rules" else _fill_in(value, environ, problems, f"{file}: verifier.{name}")
        _add(document, name, filled, problems, file)


def _add(document: Document, key: str, value: object, problems: list[Problem], file: str) -> None:
    if key in document.keys:
        problems.append(
            Problem(name=f"{file}: {key}", expected="to be given once, at the top or under verifier:")
        )
    document.keys[key] = value


def _load(path: Path, problems: list[Problem], source: str) -> object:
    expected = "a readable YAML file"
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        problems.append(
            Problem(name=source, expected=expected, given=str(path), hint=error.strerror or "unreadable")
        )
        return None
    if len(raw) > FILE_BYTES_MAX:
        problems.append(Problem(name=source, expected="a file of at most 4 MiB", given=str(path)))
        return None
    try:
        content: object = yaml.load(raw.decode("utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        # Never the text around it, which str(error) would show: it may hold a password.
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        hint = error.problem if isinstance(error, yaml.constructor.ConstructorError) else "no valid YAML"
        problems.append(Problem(name=f"{path.name}{place}", expected="valid YAML", hint=str(hint)))
        return None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        problems.append(Problem(name=path.name, expected="valid YAML in UTF-8"))
        return None
    return content


def _fill_in(value: object, environ: Mapping[str, str], problems: list[Problem], place: str) -> object:
    """`${NAME}` and `${NAME:-default}` in texts, from the environment; one that is not set is a problem."""
    if isinstance(value, dict):
        return {key: _fill_in(item, environ, problems, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_in(item, environ, problems, f"{place}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replacement(found: re.Match[str]) -> str:
        name, default = found.groups()
        text = environ.get(name) or default
        if text is None:
            problems.append(Problem(name=place, expected=f"the environment variable {name} to be set"))
            return ""
        return text

    return _VARIABLE.sub(replacement, value)
