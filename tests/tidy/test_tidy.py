"""What STYLE asks for and a linter does not see: sizes, names, banned calls, bounds, the core's purity."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.tidy.source_files import ROOT, calls, files, functions, imported_modules, place, python_files, tree

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400
TEST_MODULE_LINES_MAX = 600
# place: (lines it may have, why). An entry that is no longer needed fails, so that none outlives its reason.
LONGER_FUNCTIONS: dict[str, tuple[int, str]] = {
    "verifier/web/openapi_schemas.py:_counts": (80, "one JSON Schema, written out: data, not steps"),
    "verifier/web/openapi_schemas.py:_request": (80, "the same"),
}
LONGER_MODULES: dict[str, tuple[int, str]] = {}

BANNED_MODULE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}
# The parts whose business is to talk to a person at a terminal.
PRINTING = ("verifier/cli.py", "verifier/commands/", "verifier/demo/", "verifier/report")
WALL_CLOCK = {
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
}
CORE_MAY_IMPORT = {"msgspec"}
# Standard library, but a clock, the outside world, or a thread of control.
CORE_MAY_NOT_IMPORT = {
    *(
        "asyncio",
        "concurrent",
        "ctypes",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "random",
    ),
    *("secrets", "select", "selectors", "shutil", "signal", "socket", "ssl", "subprocess", "sys", "tempfile"),
    *("threading", "time"),
}
SEEDED = {"random.Random", "random.seed"}
UNBOUNDED_QUEUES = {
    "asyncio.Queue",
    "asyncio.PriorityQueue",
    "asyncio.LifoQueue",
    "queue.Queue",
    "queue.PriorityQueue",
}
MARKED = (".py", ".md", ".sql", ".yaml", ".yml", ".toml", ".js", ".html", ".css", ".template", "Makefile")
# Put together so that this file does not find itself.
UNFINISHED = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")


def test_functions_stay_short() -> None:
    lengths = {
        f"{place(path)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in python_files()
        for node in functions(path)
    }
    assert too_long(lengths, FUNCTION_LINES_MAX, LONGER_FUNCTIONS) == []


def test_modules_stay_short() -> None:
    product = {place(path): lines(path) for path in python_files("verifier", "bench")}
    tests = {place(path): lines(path) for path in python_files("tests")}
    allowed_tests = {where: why for where, why in LONGER_MODULES.items() if where.startswith("tests/")}
    allowed = {where: why for where, why in LONGER_MODULES.items() if where not in allowed_tests}
    assert too_long(product, MODULE_LINES_MAX, allowed) == []
    assert too_long(tests, TEST_MODULE_LINES_MAX, allowed_tests) == []


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def too_long(lengths: dict[str, int], bound: int, allowed: dict[str, tuple[int, str]]) -> list[str]:
    found = [
        f"{where} has {length} lines, {max(bound, allowed.get(where, (0, ''))[0])} are allowed"
        for where, length in lengths.items()
        if length > max(bound, allowed.get(where, (0, ""))[0])
    ]
    found += [f"{where} needs no exception" for where in allowed if lengths.get(where, 0) <= bound]
    return sorted(found)


def test_no_module_is_named_after_nothing() -> None:
    found = [place(path) for path in python_files("verifier", "bench") if path.stem in BANNED_MODULE_NAMES]
    found += [place(path) for path in python_files("verifier") if path.parent.name in BANNED_MODULE_NAMES]
    assert found == []


def test_library_modules_neither_print_nor_sleep_a_thread() -> None:
    found = [
        f"{place(path, node)} calls {name}"
        for path in python_files("verifier")
        if not place(path).startswith(PRINTING)
        for name, node in calls(path)
        if name in {"print", "time.sleep", "input", "breakpoint", "sys.exit", "os._exit"}
    ]
    assert found == []


def test_the_core_imports_the_standard_library_and_msgspec_alone() -> None:
    found = [
        f"{place(path, node)} imports {module}"
        for path in python_files("verifier/core")
        for module, node in imported_modules(path)
        if not core_may_import(module)
    ]
    assert found == []


def core_may_import(module: str) -> bool:
    top = module.partition(".")[0]
    if top == "verifier":
        return module == "verifier.core" or module.startswith("verifier.core.")
    return top in CORE_MAY_IMPORT or (top in sys.stdlib_module_names and top not in CORE_MAY_NOT_IMPORT)


def test_the_core_reads_no_clock() -> None:
    found = [
        f"{place(path, node)} calls {name}"
        for path in python_files("verifier/core")
        for name, node in calls(path)
        if name in WALL_CLOCK
    ]
    assert found == []


def test_the_capture_library_imports_nothing_else_of_the_verifier() -> None:
    found = [
        f"{place(path, node)} imports {module}"
        for path in python_files("verifier/capture")
        for module, node in imported_modules(path)
        if module.startswith("verifier") and module.split(".")[:2] != ["verifier", "capture"]
    ]
    assert found == []


def test_randomness_has_a_seed() -> None:
    found = [
        f"{place(path, node)} calls {name}"
        for path in python_files()
        for name, node in calls(path)
        if unseeded(name, node)
    ]
    assert found == []


def unseeded(name: str, call: ast.Call) -> bool:
    if name in SEEDED:
        return not call.args and not call.keywords
    return name.startswith("random.")


def test_a_test_sleeps_only_in_a_loop_that_polls() -> None:
    found = [
        f"{place(path, node)} sleeps and hopes"
        for path in python_files("tests")
        for name, node in calls(path)
        if name in {"time.sleep", "asyncio.sleep"} and hopes(node) and id(node) not in in_loops(path)
    ]
    assert found == []


def hopes(call: ast.Call) -> bool:
    """Whether a sleep is of a fixed time: `sleep(0)` yields, `sleep(delay_s)` is a backend being slow."""
    return isinstance(call.args[0], ast.Constant) and call.args[0].value != 0


def in_loops(path: Path) -> set[int]:
    loops = (node for node in ast.walk(tree(path)) if isinstance(node, ast.While | ast.For | ast.AsyncFor))
    return {id(inner) for loop in loops for inner in ast.walk(loop)}


def test_queues_and_caches_are_bounded() -> None:
    found = []
    for path in python_files("verifier"):
        for name, call in calls(path):
            if name in UNBOUNDED_QUEUES and not call.args and not call.keywords:
                found.append(f"{place(path, call)} makes a queue without a bound")
            if name == "functools.lru_cache" and is_none(call):
                found.append(f"{place(path, call)} makes a cache without a bound")
        found += [
            f"{place(path)}:{node.name} is cached without a bound"
            for node in functions(path)
            if node.args.args
            and any(ast.unparse(by) in {"cache", "functools.cache"} for by in node.decorator_list)
        ]
    assert found == []


def is_none(call: ast.Call) -> bool:
    values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "maxsize")]
    return any(isinstance(value, ast.Constant) and value.value is None for value in values)


def test_nothing_is_marked_as_unfinished() -> None:
    found = [
        f"{place(path)}:{number}"
        for path in files(
            ".py", ".md", ".sql", ".yaml", ".yml", ".toml", ".js", ".html", ".css", ".template", "Makefile"
        )
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("program", ["import time\ntime.sleep(1)", "from time import sleep as nap\nnap(1)"])
def test_calls_are_seen_through_their_imports(tmp_path: Path, program: str) -> None:
    source = tmp_path / "sample.py"
    source.write_text(program, encoding="utf-8")
    assert [name for name, _ in calls(source)] == ["time.sleep"]


def test_the_project_is_where_it_is_looked_for() -> None:
    assert (ROOT / "pyproject.toml").is_file()
    assert len(python_files("verifier/core")) > 1
