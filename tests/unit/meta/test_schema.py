"""What every table and every statement must be like."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from ciaosfs.meta import (
    counters,
    dentries,
    extents,
    inodes,
    reports,
    schema,
    state,
    stripes,
    volumes,
    xattrs,
)
from ciaosfs.meta.metadata import Metadata

MODULES = (counters, dentries, extents, inodes, reports, state, stripes, volumes, xattrs)

MAY_SCAN = {
    ("counters", "_SELECT"): "a handful of rows, when a database is opened",
    ("state", "_SELECT"): "one row",
    ("volumes", "_ALL"): "says so",
    ("volumes", "_DRIVES"): "says so",
    ("reports", "_ALL_NAMES"): "in a worker thread",
    ("stripes", "_MISSING"): "the index of incomplete stripes only",
    ("stripes", "_WITH_MISSING"): "the index of incomplete stripes only, up to a limit",
    ("stripes", "_DEAD"): "the index of dead stripes only, up to a limit",
    ("inodes", "_ORPHANS"): "the index of orphans only",
}
"""Statements that read more than they are asked about, and why they may."""


def test_every_table_has_a_primary_key_without_nulls(meta: Metadata) -> None:
    """Sessions do not see rows without one."""
    with meta.reader() as reader:
        for table in schema.TABLES:
            keys = [row for row in reader.rows(f"PRAGMA table_info({table})") if row[5] > 0]
            assert keys, table
            is_rowid = len(keys) == 1 and keys[0][2] == "INTEGER"
            assert is_rowid or all(row[3] for row in keys), table


def statements(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        if isinstance(value, str) and value.split(" ", 1)[0] in (
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "WITH",
        ):
            yield name, value


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def test_statements_find_rows_by_an_index(meta: Metadata, module: ModuleType) -> None:
    short = module.__name__.rsplit(".", 1)[-1]
    found = list(statements(module))
    assert found
    with meta.reader() as reader:
        for name, statement in found:
            count = statement.count("?") if "?1" not in statement else 0
            if count == 0 and "?1" in statement:
                count = max(number for number in range(1, 20) if f"?{number}" in statement)
            plan = [row[3] for row in reader.rows("EXPLAIN QUERY PLAN " + statement, (None,) * count)]
            scans = [
                step for step in plan if step.startswith(("SCAN inodes", "SCAN dentries", "SCAN extents"))
            ]
            scans += [
                step for step in plan if step.startswith(("SCAN s", "SCAN volumes", "SCAN drives", "SCAN c"))
            ]
            scans = [step for step in scans if step != "SCAN CONSTANT ROW"]
            assert not scans or (short, name) in MAY_SCAN, (name, plan)
            if MAY_SCAN.get((short, name), "").startswith("the index"):
                assert all("COVERING INDEX" in step for step in scans), (name, plan)
            assert "USE TEMP B-TREE FOR ORDER BY" not in plan or short == "volumes", (name, plan)
