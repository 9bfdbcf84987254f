"""Two JSON documents compared without reading what both write alike.

A document is opened one level at a time: an object to its members, an array to its elements, each still as the bytes it
is written in. Equal bytes are equal values. What is written differently is opened further, and of the rest only the
values that differ are read. Whatever is not plain to see this way (members named twice, escaped names, an array whose
elements may have moved) is read whole there and compared by `documents`. What is found, and its order, is the same
either way; the property tests hold the two against each other.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from verifier.core.arrays import trim
from verifier.core.canonical import Json, known_same, read_plain
from verifier.core.difference import Change, Kind
from verifier.core.documents import IDENTITY_MEMBERS, Walk
from verifier.core.findings import ABSENT, Findings
from verifier.core.rules import UNORDERED
from verifier.core.sameness import surely_same
from verifier.core.witness import step

Members: TypeAlias = dict[str, Raw]
Opened: TypeAlias = tuple[Raw, Members]  # an object's text and its members

_read_object = msgspec.json.Decoder(Members).decode
_read_array = msgspec.json.Decoder(list[Raw]).decode
_read_objects = msgspec.json.Decoder(list[Members]).decode
_CONTAINERS = frozenset((b"{", b"["))
_QUOTES = {b'"'}

# What stands in the queue: a pair of values, of unread arrays, or of opened objects.
Pair: TypeAlias = "tuple[Any, Any, str, str, int]"


def compare_unread(main: bytes, other: bytes, findings: Findings, *, kind: Kind) -> bool:
    """Compare two JSON texts as `compare_documents` compares what they hold, and return True.

    Return False, with nothing noted, unless both plainly are objects, or both arrays, and no ids are tracked there.
    """
    first = main[:1]
    if first != other[:1] or first not in _CONTAINERS or findings.tracks_ids(kind):
        return False
    if findings.limits.depth_max < 1:
        return False
    walk = _UnreadWalk(findings, kind)
    before = findings.mark()
    try:
        for text in (main, other):
            if not text.isascii():
                text.decode()
        # Opening checks all of the text's grammar, more strictly than RFC 8259 asks, but for UTF-8.
        if first == b"[":
            walk.arrays(Raw(_compacted(main)), Raw(_compacted(other)))
            return True
        opened = _read_object(main), _read_object(other)
        if _is_turned(*opened):
            return surely_same(main, other)
        mine, theirs = _plain(main, opened[0]), _plain(other, opened[1])
        if mine is None or theirs is None:
            return False
        walk.objects(mine, theirs)
    except (ValueError, RecursionError):  # it is no JSON, or nests deeper than the stack goes here
        findings.back_to(before)
        return False
    return True


def _plain(text: bytes, members: Members) -> Members | None:
    """Return a document's members without blanks; None if it names one twice or escapes a name."""
    if _is_plain(text, members):
        return members
    compact = _compacted(text)
    members = _read_object(compact)
    return members if _is_plain(compact, members) else None


def _compacted(text: bytes) -> bytes:
    return msgspec.json.format(text, indent=-1)


def _is_plain(text: Raw | bytes, members: Members) -> bool:
    """Say whether an object's text is nothing but these members, without blanks: then none of them is repeated.

    What the decoder left out (an earlier value of a repeated name, blanks, the longer spelling of an escaped name) can
    only make the text longer than its members are.
    """
    names = "".join(members)
    size = len(names) if names.isascii() else len(names.encode())
    return len(text) == len(b"".join(members.values())) + size + (4 * len(members) + 1 if members else 2)


def _is_turned(main: Members, other: Members) -> bool:
    """Say whether the same members stand in another order.

    That is another encoder's work: little below is written alike, so reading all of it at once is cheaper.
    """
    return list(main) != list(other) and main.keys() == other.keys()


class _UnreadWalk(Walk):
    """The walk over pairs that may be unread: two `Raw`, or two `Opened`; a pair of anything else is read."""

    __slots__ = ()

    def objects(self, main: Members, other: Members) -> None:
        """Compare two documents that are objects."""
        self._members(main, other, "", "", 0)
        self._empty_queue()

    def arrays(self, main: Raw, other: Raw) -> None:
        """Compare two documents that are arrays."""
        self._unread_arrays(main, other, "", "", 0)
        self._empty_queue()

    def _empty_queue(self) -> None:
        depth_max = self._findings.limits.depth_max
        queue: deque[Pair] = self._queue
        while queue:
            mine, theirs, path, field, depth = queue.popleft()
            kind = type(mine)
            if kind is tuple:
                if depth >= depth_max:
                    self._read_whole(mine[0], theirs[0], path, field, depth)
                else:
                    self._opened(mine, theirs, path, field, depth)
            elif kind is Raw:
                if depth >= depth_max:
                    self._read_whole(mine, theirs, path, field, depth)
                else:
                    self._unread_arrays(mine, theirs, path, field, depth)
            else:
                self._take(mine, theirs, path, field, depth)

    def _visit_unread(self, main: Raw, other: Raw, path: str, field: str, depth: int) -> None:
        """Take up a pair of values that are written differently."""
        mine, theirs = bytes(main), bytes(other)
        first = mine[:1]
        if first == theirs[:1] and first in _CONTAINERS:
            if first == b"[":
                self._queue.append((main, other, path, field, depth))
            else:
                opened = (main, _read_object(mine)), (other, _read_object(theirs))
                self._queue.append((*opened, path, field, depth))
            return
        read, read_other = read_plain(mine), read_plain(theirs)
        if read != read_other:
            self._findings.value(self._kind, path, field, read, read_other)

    def _opened(self, main: Opened, other: Opened, path: str, field: str, depth: int) -> None:
        mine, theirs = main[1], other[1]
        turned = _is_turned(mine, theirs)
        if turned and surely_same(bytes(main[0]), bytes(other[0])):
            return
        if turned or not (_is_plain(main[0], mine) and _is_plain(other[0], theirs)):
            self._read_whole(main[0], other[0], path, field, depth)
        else:
            self._members(mine, theirs, path, field, depth)

    def _members(self, main: Members, other: Members, path: str, field: str, depth: int) -> None:
        found, kind = self._findings, self._kind
        for name, one in main.items():
            two = other.get(name)
            if one == two:
                continue
            below = step(name)
            if two is not None:
                self._visit_unread(one, two, path + below, field + below, depth + 1)
            else:
                found.structure(kind, path + below, field + below, Change.MISSING, _read(one), ABSENT)
        if main.keys() != other.keys():
            for name, two in other.items():
                if name not in main:
                    below = step(name)
                    found.structure(kind, path + below, field + below, Change.EXTRA, ABSENT, _read(two))

    def _unread_arrays(self, main: Raw, other: Raw, path: str, field: str, depth: int) -> None:
        mine, theirs = _read_array(main), _read_array(other)
        head, tail = trim(mine, theirs)
        left, left_other = len(mine) - head - tail, len(theirs) - head - tail
        if not (left or left_other):
            return
        below = field + "/*"
        found = self._rule_at(field)
        named = None
        if found is not None and found.action == UNORDERED:
            pass
        elif left == left_other == 1:
            self._visit_unread(mine[head], theirs[head], f"{path}/{head}", below, depth + 1)
            return
        elif not (left and left_other):
            if self._inserted(mine, theirs, head, path, below):
                return
        elif left == left_other:
            named = self._named_alike(main, other, head, left, below)
        if named is None:
            self._read_whole(main, other, path, field, depth)
            return
        for at, (one, two) in enumerate(zip(*named, strict=True), start=head):
            if mine[at] != theirs[at]:
                opened = (mine[at], one), (theirs[at], two)
                self._queue.append((*opened, f"{path}/{at}", below, depth + 1))

    def _inserted(self, main: list[Raw], other: list[Raw], head: int, path: str, below: str) -> bool:
        """Note the elements that one side has and the other has not, all in one place; False if it is not so plain."""
        if head < min(len(main), len(other)) and known_same(_read(main[head]), _read(other[head])):
            return False  # more is equal at the beginning than is written alike
        more = len(main) - len(other)
        for at in range(head, head + abs(more)):
            here = f"{path}/{at}"
            if more > 0:
                self._findings.structure(self._kind, here, below, Change.MISSING, _read(main[at]), ABSENT)
            else:
                self._findings.structure(self._kind, here, below, Change.EXTRA, ABSENT, _read(other[at]))
        return True

    def _named_alike(
        self, main: Raw, other: Raw, head: int, count: int, below: str
    ) -> tuple[list[Members], list[Members]] | None:
        """Return the members of `count` objects from `head` on, if each is evidently the one it stands opposite to.

        That is so if each has an identity that is its alone, written alike on both sides.
        """
        name = next((each for each in IDENTITY_MEMBERS if self._compared_exactly(f"{below}/{each}")), None)
        if name is None:
            return None
        try:
            mine, theirs = (_read_objects(side)[head : head + count] for side in (main, other))
        except ValueError:  # not all are objects
            return None
        ids: list[Raw | None] = [element.get(name) for element in mine]
        if None in ids or ids != [element.get(name) for element in theirs]:
            return None
        return (mine, theirs) if _are_identities([bytes(each) for each in ids if each is not None]) else None

    def _read_whole(self, main: Raw, other: Raw, path: str, field: str, depth: int) -> None:
        mine, theirs = _read(main), _read(other)
        if not known_same(mine, theirs):
            self._take(mine, theirs, path, field, depth)


def _are_identities(texts: list[bytes]) -> bool:
    """Say whether values are texts and numbers, no two of them equal."""
    joined = b"".join(texts)
    if joined.isdigit() or ({text[:1] for text in texts} == _QUOTES and b"\\" not in joined):
        return len(set(texts)) == len(texts)  # no two are one value written in two ways
    read = [read_plain(text) for text in texts]
    return all(isinstance(each, str | bytes) for each in read) and len(set(read)) == len(read)


def _read(text: Raw) -> Json:
    return read_plain(bytes(text))
