"""The score of a run as sections of the report."""

from __future__ import annotations

from verifier.demo.faults import BY_NAME
from verifier.demo.score import Score
from verifier.report import Section

ROWS_MAX = 20


def planted_sections(score: Score, *, faults: bool) -> tuple[Section, ...]:
    """Planted faults by kind with how many were found, then what was missed and the false alarms, if any."""
    if not faults:
        note = "Both sides ran without faults: whatever the verifier says of them is a false alarm."
        return (
            Section(
                title="An A/A run",
                columns=("false alarms",),
                rows=((str(len(score.false_alarms)),),),
                note=note,
            ),
            *_wrong(score),
        )
    planted = sum(kind.planted for kind in score.kinds.values())
    rows = tuple(
        (name, BY_NAME[name].description, f"{kind.found} of {kind.planted}")
        for name, kind in score.kinds.items()
    )
    note = (
        f"{len(score.found)} of {planted} planted faults found, {len(score.missed)} missed, "
        f"{len(score.false_alarms)} false alarms."
    )
    table = Section(title="Planted faults", columns=("fault", "what it does", "found"), rows=rows, note=note)
    return (table, *_wrong(score))


def _wrong(score: Score) -> tuple[Section, ...]:
    sections = []
    if score.missed:
        missed = tuple((one.fault, one.request_id, one.seen) for one in score.missed[:ROWS_MAX])
        sections.append(Section(title="Missed", columns=("fault", "request", "said instead"), rows=missed))
    if score.false_alarms:
        alarms = tuple((one.request_id, one.what) for one in score.false_alarms[:ROWS_MAX])
        sections.append(Section(title="False alarms", columns=("request", "what was said"), rows=alarms))
    return tuple(sections)
