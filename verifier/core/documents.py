"""Two JSON documents compared: every place where they differ, outermost first.

The walk keeps its own queue, so no nesting is too deep for it. Equal subtrees are passed over at once, unless ids are
tracked on the route: then equal ids must be seen, too.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from verifier.core import arrays
from verifier.core.canonical import Json, NotJson, Repeated, canonical, json_type, known_same, parse
from verifier.core.difference import Change, Kind
from verifier.core.findings import ABSENT, Findings
from verifier.core.masking import masked
from verifier.core.policy import Match
from verifier.core.rules import UNORDERED
from verifier.core.witness import step

IDENTITY_MEMBERS = ("id", "key", "uuid", "name")
_CONTAINERS = frozenset((list, dict, Repeated))


def compare_documents(
    main: Json, other: Json, findings: Findings, *, kind: Kind, path: str = "", field: str = ""
) -> None:
    """Note every difference of two values. `path` and `field` are where the values stand; see `Difference`."""
    Walk(findings, kind).run(main, other, path, field)


class _Labels:
    """Labels of two arrays' elements; `certain` if equal labels mean equal elements."""

    __slots__ = ("certain", "main", "other")

    def __init__(self, main: list[bytes], other: list[bytes], *, certain: bool) -> None:
        self.main = main
        self.other = other
        self.certain = certain


class Walk:
    """The walk itself: a queue of pairs of containers that differ, outermost first."""

    __slots__ = ("_findings", "_kind", "_label_bytes_left", "_queue", "_ruled", "_tracking")

    def __init__(self, findings: Findings, kind: Kind) -> None:
        self._findings = findings
        self._kind = kind
        self._queue: deque[tuple[Any, Any, str, str, int]] = deque()
        self._tracking = findings.tracks_ids(kind)
        self._ruled = findings.policy.has_rules(findings.route, kind)
        self._label_bytes_left = findings.limits.align_bytes_max

    def run(self, main: Json, other: Json, path: str, field: str) -> None:
        queue = self._queue
        self._visit(main, other, path, field, 0)
        while queue:
            self._take(*queue.popleft())

    def _take(self, main: Json, other: Json, path: str, field: str, depth: int) -> None:
        """Compare a pair of containers of one type."""
        if depth >= self._findings.limits.depth_max:
            if canonical(main) != canonical(other):
                self._findings.value(self._kind, path, field, main, other)
        elif isinstance(main, dict) and isinstance(other, dict):
            self._objects(main, other, path, field, depth)
        elif isinstance(main, list) and isinstance(other, list):
            self._arrays(main, other, path, field, depth)

    def _visit(self, main: Json, other: Json, path: str, field: str, depth: int) -> None:
        """Take up a pair: settle it if it is no pair of containers, else queue it."""
        if known_same(main, other):
            if not self._tracking:
                return
            if type(main) not in _CONTAINERS:
                self._findings.equal(self._kind, path, field, main)
                return
        if type(main) in _CONTAINERS and json_type(main) == json_type(other):
            self._queue.append((main, other, path, field, depth))
        else:
            self._findings.value(self._kind, path, field, main, other)

    def _objects(
        self, main: dict[str, Json], other: dict[str, Json], path: str, field: str, depth: int
    ) -> None:
        tracking = self._tracking
        for name, mine in main.items():
            if name in other:
                theirs = other[name]
                try:
                    same = mine == theirs
                except RecursionError:  # nested too deep to be told at once
                    same = False
                if tracking or not same:
                    below = step(name)
                    self._visit(mine, theirs, path + below, field + below, depth + 1)
            else:
                below = step(name)
                self._findings.structure(
                    self._kind, path + below, field + below, Change.MISSING, mine, ABSENT
                )
        for name, theirs in other.items():
            if name not in main:
                below = step(name)
                self._findings.structure(
                    self._kind, path + below, field + below, Change.EXTRA, ABSENT, theirs
                )
        if isinstance(main, Repeated) or isinstance(other, Repeated):
            self._repeats(main, other, path, field)

    def _repeats(self, main: dict[str, Json], other: dict[str, Json], path: str, field: str) -> None:
        mine = main.repeats if isinstance(main, Repeated) else {}
        theirs = other.repeats if isinstance(other, Repeated) else {}
        for name in dict.fromkeys((*mine, *theirs)):
            if name in main and name in other:
                every = mine.get(name, [main[name]]), theirs.get(name, [other[name]])
                if canonical(list(every[0])) != canonical(list(every[1])):
                    below = step(name)
                    change = Change.DUPLICATE
                    self._findings.structure(
                        self._kind, path + below, field + below, change, *map(list, every)
                    )

    def _arrays(self, main: list[Json], other: list[Json], path: str, field: str, depth: int) -> None:
        below = field + "/*"
        found = self._findings.rule_at(self._kind, field)
        unordered = found if found is not None and found.at and found.action == UNORDERED else None
        try:
            head, tail = arrays.trim(main, other)
        except RecursionError:
            head = tail = 0
        mine, theirs = main[head : len(main) - tail], other[head : len(other) - tail]
        if self._tracking:
            for at in (*range(head), *range(-tail, 0)):
                place = at if at >= 0 else len(main) + at
                self._visit(main[at], other[at], f"{path}/{place}", below, depth + 1)
        if not mine and not theirs:
            return
        plan, certain = self._plan(mine, theirs, below, unordered)
        if plan is None:
            self._by_index(mine, theirs, path, field, head, depth)
            if len(main) != len(other):
                lengths = str(len(main)).encode(), str(len(other)).encode()
                self._findings.structure(self._kind, path, field, Change.LENGTH, *lengths)
            return
        if plan.moved:
            self._findings.structure(self._kind, path, field, Change.ORDER, main, other)
        pairs = plan.replaced if certain and not self._tracking else [*plan.same, *plan.replaced]
        for one, two in sorted(pairs):
            self._visit(mine[one], theirs[two], f"{path}/{head + one}", below, depth + 1)
        for one in plan.missing:
            self._findings.structure(
                self._kind, f"{path}/{head + one}", below, Change.MISSING, mine[one], ABSENT
            )
        for two in plan.extra:
            self._findings.structure(
                self._kind, f"{path}/{head + two}", below, Change.EXTRA, ABSENT, theirs[two]
            )

    def _by_index(
        self, main: list[Json], other: list[Json], path: str, field: str, head: int, depth: int
    ) -> None:
        for at, (mine, theirs) in enumerate(zip(main, other, strict=False)):
            self._visit(mine, theirs, f"{path}/{head + at}", field + "/*", depth + 1)

    def _plan(
        self, main: list[Json], other: list[Json], below: str, unordered: Match | None
    ) -> tuple[arrays.Plan | None, bool]:
        """Say how elements belong together, and whether equal labels mean equal elements. None: too costly to tell."""
        if not main or not other:
            return arrays.Plan(missing=list(range(len(main))), extra=list(range(len(other)))), True
        if len(main) == len(other) == 1:
            return arrays.Plan(replaced=[(0, 0)]), True
        if unordered is None:
            try:
                plan = arrays.in_place(main, other)
            except RecursionError:
                plan = None
            if plan is not None and not any(_renamed(main[at], other[at]) for at, _ in plan.replaced):
                return plan, True
        labels = self._labels(main, other, below, unordered)
        if labels is None:
            return None, False
        if unordered is not None:
            return arrays.match_any_order(labels.main, labels.other), labels.certain
        plan = arrays.align(
            labels.main,
            labels.other,
            lambda one, two: _similarity(main[one], other[two]),
            steps_max=self._findings.limits.align_steps_max,
        )
        return plan, labels.certain

    def _labels(
        self, main: list[Json], other: list[Json], below: str, unordered: Match | None
    ) -> _Labels | None:
        """Label the elements by the rule's key, by an evident identity, or by their content. None: beyond the bound."""
        if unordered is not None and "key" in unordered.rule.params:
            members = [str(unordered.rule.params["key"])]
        else:
            members = ["/" + name for name in IDENTITY_MEMBERS if self._compared_exactly(f"{below}/{name}")]
        for pointer in members:
            names = _identities(main, pointer), _identities(other, pointer)
            if names[0] is not None and names[1] is not None and not set(names[0]).isdisjoint(names[1]):
                return _Labels(names[0], names[1], certain=False)
        texts = self._texts(main, below), self._texts(other, below)
        if texts[0] is None or texts[1] is None:
            return None
        return _Labels(texts[0], texts[1], certain=not self._ruled)

    def _rule_at(self, field: str) -> Match | None:
        return self._findings.rule_at(self._kind, field)

    def _compared_exactly(self, field: str) -> bool:
        return not self._ruled or self._findings.rule_at(self._kind, field) is None

    def _texts(self, elements: list[Json], below: str) -> list[bytes] | None:
        texts: list[bytes] = []
        for element in elements:
            text = canonical(masked(element, below, self._rule_at) if self._ruled else element)
            self._label_bytes_left -= len(text)
            if self._label_bytes_left < 0:
                return None
            texts.append(text)
        return texts


def _identities(elements: list[Json], pointer: str) -> list[bytes] | None:
    """Return each element's identity, or None unless every element has one that is its alone."""
    names = [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]
    found: list[bytes] = []
    for element in elements:
        value: Json = element
        for name in names:
            if not isinstance(value, dict) or name not in value:
                return None
            value = value[name]
        if not isinstance(value, str | bytes):
            return None
        # A number's text never begins with a quote, so the two never meet.
        found.append(value if isinstance(value, bytes) else b'"' + value.encode(errors="surrogatepass"))
    return found if len(set(found)) == len(found) else None


def _renamed(main: Json, other: Json) -> bool:
    """Say whether two objects name themselves differently, so that one may not be the other changed."""
    if not (isinstance(main, dict) and isinstance(other, dict)):
        return False
    return any(
        name in main and name in other and not known_same(main[name], other[name])
        for name in IDENTITY_MEMBERS
    )


def _similarity(main: Json, other: Json) -> float:
    """Say how much two elements have in common, from 0 to 1: for objects the share of equal members."""
    if isinstance(main, dict) and isinstance(other, dict):
        equal = sum(1 for name, mine in main.items() if name in other and known_same(mine, other[name]))
        return equal / max(len(main), len(other), 1)
    return 1.0 if known_same(main, other) else 0.0


def unwrapped(main: Json, other: Json) -> tuple[Json, Json]:
    """Return the documents that two JSON strings hold, if each holds an array or object; else the two as they are."""
    if isinstance(main, str) and isinstance(other, str):
        try:
            inner = parse(main), parse(other)
        except NotJson:
            return main, other
        if all(isinstance(each, list | dict) for each in inner):
            return inner
    return main, other
