"""The writes of one request, reconciled: whether the other side wrote the same rows, the same way, in the same order.

Writes are taken row by row, a row being an entity and a key. Only writes that were applied count; a failed one matters
where the other side applied it. Rows that one side alone wrote may be one row under two generated keys, if a rule says
that the entity's keys are generated (`generated_id` for `/{entity}/*`).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw, UnsetType

from verifier.core import arrays
from verifier.core.canonical import Json, NotJson, canonical, json_type, parse, plain_number
from verifier.core.difference import NOTHING, Change, Comparison, Kind
from verifier.core.documents import compare_documents
from verifier.core.events import Write
from verifier.core.findings import ABSENT, Findings
from verifier.core.limits import Limits
from verifier.core.mapping import IdMapping
from verifier.core.masking import masked
from verifier.core.policy import Policy
from verifier.core.rules import GENERATED_ID
from verifier.core.witness import segment

STATE_DIVERGED = "state_diverged"
_DIVERGED_RULE = "state-diverged"
_NOT_APPLIED_RULE = "not-applied"
_LIMITS = Limits()
_WRITE = Kind.WRITE
_KEY_MEMBERS = ("id", "_id", "uuid", "key")

Placed = tuple[int, Write]  # a write with its place in the side's sequence
Row = tuple[str, str]  # entity and key


def compare_writes(
    main: Sequence[Write],
    other: Sequence[Write],
    *,
    route: str,
    policy: Policy,
    limits: Limits = _LIMITS,
    mapping: IdMapping | None = None,
) -> Comparison:
    """Compare what both sides wrote for one request.

    A row whose image before its first write differs between the sides had diverged already: there is a doubt
    (`state_diverged`), and what differs in its operation and data is ignored as a consequence (`state-diverged`).
    Failed writes that have no counterpart changed nothing; they are ignored as `not-applied`, not lost.
    """
    tracking = policy.tracks_ids(route, _WRITE)
    if not tracking and len(main) == len(other) and all(map(_identical_in_place, main, other)):
        return NOTHING
    mine, theirs = _in_order(main), _in_order(other)
    if not tracking and len(mine) == len(theirs) and all(map(_identical, mine, theirs)):
        return NOTHING
    findings = Findings(route, policy, limits, mapping)
    _Reconciliation(findings).run(mine, theirs)
    return findings.result()


def _in_order(writes: Sequence[Write]) -> list[Write]:
    """Order by `seq`; a write without one stands where it was given."""
    places = [(at if write.seq is None else write.seq, at) for at, write in enumerate(writes)]
    return [writes[at] for _, at in sorted(places)]


def _identical_in_place(main: Write, other: Write) -> bool:
    """Whether two writes are the same and stand at the same place of their sides, which need not be ordered then."""
    return main.seq == other.seq and _identical(main, other)


def _identical(main: Write, other: Write) -> bool:
    return (
        main.data == other.data
        and main.before == other.before
        and main.key == other.key
        and main.entity == other.entity
        and main.op == other.op
        and main.status == other.status
    )


class _Reconciliation:
    """Walks through the rows of both sides. Pairs of applied writes are remembered for the order."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._pairs: list[tuple[Placed, Placed]] = []

    def run(self, main: list[Write], other: list[Write]) -> None:
        mine, theirs = _by_row(main), _by_row(other)
        partners = self._partners(mine, theirs)
        taken = set(partners.values())
        for row, writes in mine.items():
            partner = partners.get(row)
            self._row(row, writes, theirs[partner] if partner else [], partner)
        for row, writes in theirs.items():
            if row not in taken:
                self._row(row, [], writes, None)
        self._order()

    def _generated(self, entity: str) -> str | None:
        """Return the space of an entity's generated keys, None if its keys are not generated."""
        found = self._findings.rule_at(_WRITE, f"/{segment(entity)}/*")
        if found is None or not found.at or found.action != GENERATED_ID:
            return None
        return str(found.rule.params.get("space", ""))

    def _partners(self, mine: dict[Row, list[Placed]], theirs: dict[Row, list[Placed]]) -> dict[Row, Row]:
        """Say which row of the other side is which of main's: first by key, then by generated keys."""
        partners = {row: row for row in mine if row in theirs}
        for entity in dict.fromkeys(entity for entity, _ in mine):
            space = self._generated(entity)
            if space is None:
                continue
            left = [row for row in mine if row[0] == entity and row not in partners]
            free = [row for row in theirs if row[0] == entity and row not in partners]
            for row in list(left):
                known = entity, self._findings.mapping.other_of(row[1], space) or ""
                if known in free:
                    partners[row] = known
                    left.remove(row)
                    free.remove(known)
            for row in left:
                operation = mine[row][0][1].op
                match = next((each for each in free if theirs[each][0][1].op == operation), None)
                if match is not None:
                    partners[row] = match
                    free.remove(match)
        return partners

    def _row(self, row: Row, main: list[Placed], other: list[Placed], partner: Row | None) -> None:
        path, field = f"/{segment(row[0])}/{segment(row[1])}", f"/{segment(row[0])}/*"
        if partner is not None and self._generated(row[0]) is not None:
            if partner == row:
                self._findings.equal(_WRITE, path, field, row[1])
            else:
                self._findings.value(_WRITE, path, field, row[1], partner[1])
        diverged = bool(main and other) and self._diverged(main[0][1], other[0][1], path, field)
        if diverged:
            self._findings.doubt(STATE_DIVERGED)
        applied, applied_other = _with_status(main, applied=True), _with_status(other, applied=True)
        failed, failed_other = _with_status(main, applied=False), _with_status(other, applied=False)
        pairs, missing, extra = self._pair(applied, applied_other, path, field)
        labels = {self._label(mine[1], field) for mine, _ in pairs} if extra else set()
        for mine, theirs in pairs:
            self._write(mine[1], theirs[1], path, field, diverged=diverged)
        self._pairs += pairs
        for mine in missing:
            if failed_other:
                failed_other.pop(0)
                self._findings.statement(_WRITE, path, field, "applied", "failed")
            else:
                self._findings.structure(_WRITE, path, field, Change.MISSING, _shown(mine[1]), ABSENT)
        for theirs in extra:
            if failed:
                failed.pop(0)
                self._findings.statement(_WRITE, path, field, "failed", "applied")
            elif self._label(theirs[1], field) in labels:
                self._findings.structure(_WRITE, path, field, Change.DUPLICATE, ABSENT, _shown(theirs[1]))
            else:
                self._findings.structure(_WRITE, path, field, Change.EXTRA, ABSENT, _shown(theirs[1]))
        self._failed(failed, failed_other, path, field, diverged=diverged)

    def _failed(
        self, main: list[Placed], other: list[Placed], path: str, field: str, *, diverged: bool
    ) -> None:
        both = min(len(main), len(other))
        for mine, theirs in zip(main, other, strict=False):
            self._write(mine[1], theirs[1], path, field, diverged=diverged)
        part = self._part()
        for mine in main[both:]:
            part.structure(_WRITE, path, field, Change.MISSING, _shown(mine[1]), ABSENT)
        for theirs in other[both:]:
            part.structure(_WRITE, path, field, Change.EXTRA, ABSENT, _shown(theirs[1]))
        self._findings.absorb(part.result(), rule=_NOT_APPLIED_RULE)

    def _pair(
        self, main: list[Placed], other: list[Placed], path: str, field: str
    ) -> tuple[list[tuple[Placed, Placed]], list[Placed], list[Placed]]:
        """Pair the applied writes of one row: in order if there are as many, else by what they wrote."""
        if len(main) == len(other) or not main or not other:
            return list(zip(main, other, strict=False)), main[len(other) :], other[len(main) :]
        labels = [self._label(write, field) for _, write in main]
        others = [self._label(write, field) for _, write in other]
        steps_max = self._findings.limits.align_steps_max
        plan = arrays.align(labels, others, lambda _one, _two: 0.0, steps_max=steps_max)
        if plan is None:
            return list(zip(main, other, strict=False)), main[len(other) :], other[len(main) :]
        if plan.moved:
            names = [[_name(write) for _, write in side] for side in (main, other)]
            self._findings.structure(_WRITE, path, field, Change.ORDER, [*names[0]], [*names[1]])
        # What is left over on both sides is taken for the same writes, done otherwise.
        otherwise = list(zip(plan.missing, plan.extra, strict=False))
        pairs = sorted([*plan.same, *plan.replaced, *otherwise])
        missing, extra = plan.missing[len(otherwise) :], plan.extra[len(otherwise) :]
        together = [(main[one], other[two]) for one, two in pairs]
        return together, [main[at] for at in missing], [other[at] for at in extra]

    def _label(self, write: Write, field: str) -> bytes:
        found = _image(write.data)
        if isinstance(found, dict | list):
            found = masked(
                found, field, lambda at: None if at == field else self._findings.rule_at(_WRITE, at)
            )
        return write.op.encode(errors="surrogatepass") + b" " + canonical(found)

    def _write(self, main: Write, other: Write, path: str, field: str, *, diverged: bool) -> None:
        part = self._part() if diverged else self._findings
        if main.op != other.op:
            part.statement(_WRITE, path, field, main.op, other.op)
        if main.data != other.data or part.tracks_ids(_WRITE):
            self._data(main, other, path, field, part)
        if diverged:
            self._findings.absorb(part.result(), rule=_DIVERGED_RULE)

    def _data(self, main: Write, other: Write, path: str, field: str, part: Findings) -> None:
        mine, theirs = _image(main.data), _image(other.data)
        if mine is None and isinstance(theirs, dict):
            mine = {}
        if theirs is None and isinstance(mine, dict):
            theirs = {}
        if isinstance(mine, dict | list) and json_type(mine) == json_type(theirs):
            if main.key != other.key and isinstance(mine, dict) and isinstance(theirs, dict):
                theirs = self._with_key_of(main, other, mine, theirs, field)
            compare_documents(mine, theirs, part, kind=_WRITE, path=path, field=field)
        elif mine != theirs:
            found = part.rule_at(_WRITE, field)
            if found is not None and found.action == GENERATED_ID:  # it speaks of the key, not of the value
                part.statement(_WRITE, path, field, mine, theirs)
            else:
                part.value(_WRITE, path, field, mine, theirs)

    def _with_key_of(
        self, main: Write, other: Write, mine: dict[str, Json], theirs: dict[str, Json], field: str
    ) -> dict[str, Json]:
        """Return the other row with main's key in the members that repeat the key: the key itself is judged once."""
        keys, others = _key_members(main.key), _key_members(other.key)
        changed = dict(theirs)
        for name in keys.keys() & others.keys() & mine.keys() & theirs.keys():
            repeats = _same_id(mine[name], keys[name]) and _same_id(theirs[name], others[name])
            ruled = self._findings.rule_at(_WRITE, f"{field}/{segment(name)}") is not None
            if repeats and not ruled and json_type(mine[name]) == json_type(theirs[name]):
                changed[name] = mine[name]
        return changed if type(theirs) is dict else theirs

    def _diverged(self, main: Write, other: Write, path: str, field: str) -> bool:
        """Say whether both tell the row's image before, and the images differ in more than rules let differ."""
        if (
            isinstance(main.before, UnsetType)
            or isinstance(other.before, UnsetType)
            or main.before == other.before
        ):
            return False
        mine, theirs = _image(main.before), _image(other.before)
        if main.key != other.key and isinstance(mine, dict) and isinstance(theirs, dict):
            theirs = self._with_key_of(main, other, mine, theirs, field)
        scratch = Findings(self._findings.route, self._findings.policy, self._findings.limits, IdMapping())
        if isinstance(mine, dict | list) and json_type(mine) == json_type(theirs):
            compare_documents(mine, theirs, scratch, kind=_WRITE, path=path, field=field)
            return bool(scratch.result().differences)
        return canonical(mine) != canonical(theirs)

    def _order(self) -> None:
        """Note once if the same writes were applied in another sequence, at the first that is out of place."""
        in_main = sorted(self._pairs, key=lambda pair: pair[0][0])
        in_other = sorted(self._pairs, key=lambda pair: pair[1][0])
        for mine, theirs in zip(in_main, in_other, strict=True):
            if mine[0][0] != theirs[0][0]:
                write = mine[0][1]
                path, field = f"/{segment(write.entity)}/{segment(write.key)}", f"/{segment(write.entity)}/*"
                names: list[Json] = [_name(pair[0][1]) for pair in in_main]
                others: list[Json] = [_name(pair[1][1]) for pair in in_other]
                self._findings.structure(_WRITE, path, field, Change.ORDER, names, others)
                return

    def _part(self) -> Findings:
        whole = self._findings
        return Findings(whole.route, whole.policy, whole.limits, whole.mapping)


def _by_row(writes: list[Write]) -> dict[Row, list[Placed]]:
    rows: dict[Row, list[Placed]] = {}
    for at, write in enumerate(writes):
        rows.setdefault((write.entity, write.key), []).append((at, write))
    return rows


def _with_status(writes: list[Placed], *, applied: bool) -> list[Placed]:
    return [placed for placed in writes if (placed[1].status != "failed") is applied]


def _image(raw: Raw | UnsetType) -> Json:
    if isinstance(raw, UnsetType):
        return None
    data = bytes(raw)
    try:
        return parse(data)
    except NotJson:
        return data.decode(errors="surrogateescape")


def _shown(write: Write) -> Json:
    image = _image(write.data)
    return {"op": write.op} if image is None else image


def _name(write: Write) -> str:
    return f"{write.op} /{segment(write.entity)}/{segment(write.key)}"


def _key_members(key: str) -> dict[str, str]:
    """Return the row's members that hold its key, with their texts: those a composite key names, else the usual."""
    if key.startswith("{"):
        try:
            members = parse(key)
        except NotJson:
            members = None
        if isinstance(members, dict):
            return {name: _id_text(value) for name, value in members.items()}
    return dict.fromkeys(_KEY_MEMBERS, key)


def _same_id(value: Json, key: str) -> bool:
    return isinstance(value, str | bytes) and _id_text(value) == key


def _id_text(value: Json) -> str:
    if isinstance(value, bytes):
        return plain_number(value)
    return value if isinstance(value, str) else canonical(value).decode()
