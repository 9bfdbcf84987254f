"""Bounds on the work and the memory that one comparison may take."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of one comparison. None of them can turn a difference into a match.

    `value_bytes`: size of a witness as JSON; larger ones are cut and marked. `differences_max`: how many differences
    (and as many ignored ones) are kept, the rest are counted. `depth_max`: nesting beyond which two subtrees are
    compared as one value. `align_steps_max` and `align_bytes_max`: effort of aligning two arrays, in steps of the
    alignment and in bytes of canonical text; beyond it arrays are compared index by index. `inflate_bytes_max` and
    `inflate_ratio_max`: size of a decompressed body, absolute and (from 1 MiB) for each compressed byte; a body beyond
    one of them is not read and raises a doubt.
    `row_bytes`: size of a row's image that is stored whole.
    """

    value_bytes: int = 2048
    differences_max: int = 100
    depth_max: int = 200
    align_steps_max: int = 100_000
    align_bytes_max: int = 4 * 1024 * 1024
    form_fields_max: int = 10_000
    inflate_bytes_max: int = 32 * 1024 * 1024
    inflate_ratio_max: int = 200
    row_bytes: int = 4096
