"""How safe the data of a mounted store is, in one line. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ciaosfs.base.units import format_duration

HEALING = ("repair", "drain")
"""Kinds of jobs that give stripes back what they miss."""
FINISHED = ("done", "failed")
"""States of jobs that are over."""


def safety_line(
    parity: int,
    by_spare: Mapping[str, int],
    by_missing: Mapping[str, int],
    jobs: Iterable[Mapping[str, Any]],
) -> str:
    """How many more drives may fail, or else what cannot be read already; what misses shards, and when that is over.

    `by_spare` says how many stripes can do without how many more shards (whole ones may be left out), `by_missing` how
    many miss how many.
    """
    lost = lost_stripes(by_spare)
    if lost:
        noun = "stripe cannot" if lost == 1 else "stripes cannot"
        parts = [f"{lost:,} {noun} be read any more ('ciaosfs status --damaged' lists the files)"]
    else:
        parts = [_may_fail(spare_drives(parity, by_spare))]
    missing = sorted((int(number), count) for number, count in by_missing.items() if int(number) and count)
    if missing:
        parts.append(", ".join(_misses(number, count) for number, count in missing))
        parts.append(_when_whole(jobs))
    return "; ".join(filter(None, parts))


def lost_stripes(by_spare: Mapping[str, int]) -> int:
    """How many stripes cannot be read any more."""
    return sum(count for spare, count in by_spare.items() if int(spare) < 0)


def spare_drives(parity: int, by_spare: Mapping[str, int]) -> int:
    """How many more drives may fail, whichever they are, without any file being hurt: 0 when some are already."""
    return max(0, min([*(int(spare) for spare, count in by_spare.items() if count), parity]))


def _may_fail(spare: int) -> str:
    if spare == 0:
        return "no more drive may fail"
    return "any 1 more drive may fail" if spare == 1 else f"any {spare} more drives may fail"


def _misses(number: int, count: int) -> str:
    return f"{count:,} {'stripe misses' if count == 1 else 'stripes miss'} {number}"


def _when_whole(jobs: Iterable[Mapping[str, Any]]) -> str:
    """When the healing that is under way ends; the last of several decides."""
    healing = [job for job in jobs if job["kind"] in HEALING and job["state"] not in FINISHED]
    if not healing:
        return ""
    if any(job["state"] == "paused" for job in healing):
        return "their repair is paused"
    left = [job["eta_s"] for job in healing if job["eta_s"] is not None]
    return f"whole again in {format_duration(max(left))}" if left else "being repaired"
