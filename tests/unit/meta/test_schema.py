"""What every table and every statement must be like."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import apsw
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
    tokens,
    trims,
    users,
    volumes,
    xattrs,
)
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_file, make_stripe, raw

MODULES = (
    counters,
    dentries,
    extents,
    inodes,
    reports,
    state,
    stripes,
    tokens,
    trims,
    users,
    volumes,
    xattrs,
)

MAY_SCAN = {
    ("counters", "_SELECT"): "a handful of rows, when a database is opened",
    ("state", "STATE_QUERY"): "one row",
    ("stripes", "_UNKEPT"): "the index holds the stripes of images only",
    ("volumes", "_ALL"): "says so",
    ("volumes", "_DRIVES"): "says so",
    (
        "volumes",
        "_ON_DRIVE",
    ): "when a drive is emptied; a volume is up to 1 GiB, so they are thousands at most",
    ("volumes", "_DELETE_ON_DRIVE"): "the same, once a drive",
    ("volumes", "_IS_USED"): "the same",
    ("volumes", "_HIGHEST_DRIVE"): "the same",
    ("reports", "_ON_DRIVES"): "all shards, in a thread",
    ("reports", "_BESIDE"): "all shards of a drive, in a thread",
    ("reports", "_ALL_NAMES"): "in a worker thread",
    ("reports", "_BY_MISSING"): "in a worker thread, while drives are away",
    ("reports", "_SMALL"): "through a partial index, a few thousand rows",
    ("reports", "_HALF_DEAD"): "in a worker thread, once it is known that much is dead",
    ("stripes", "_MISSING"): "the index of incomplete stripes only",
    ("stripes", "_WITH_MISSING"): "the index of incomplete stripes only, up to a limit",
    ("stripes", "_DEAD"): "the index of dead stripes only, up to a limit",
    ("inodes", "_ORPHANS"): "the index of orphans only",
    ("users", "_NAMED"): "thousands at most, when a user or a token is made",
    ("users", "_COUNT"): "the same",
    ("tokens", "_LIVE"): "when a database is opened",
    ("tokens", "_COUNT"): "the same",
    ("tokens", "_OF_USER"): "when a user is removed",
    ("tokens", "_ENDED"): "once an hour, and when there are too many",
    ("trims", "_COUNT"): "files cut short lately, when a database is opened",
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
                step
                for step in plan
                if step.startswith(
                    ("SCAN s", "SCAN volumes", "SCAN drives", "SCAN c", "SCAN t", "SCAN users")
                )
            ]
            scans = [step for step in scans if step != "SCAN CONSTANT ROW"]
            assert not scans or (short, name) in MAY_SCAN, (name, plan)
            if MAY_SCAN.get((short, name), "").startswith("the index"):
                assert all("COVERING INDEX" in step for step in scans), (name, plan)
            assert "USE TEMP B-TREE FOR ORDER BY" not in plan or short in ("volumes", "reports", "tokens"), (
                name,
                plan,
            )


def test_a_statement_is_compiled_once_whatever_is_bound(meta: Metadata) -> None:
    """Planned by the values, statements with a join or a subquery were compiled at each call and ten times
    slower.
    """
    compiled: list[object] = []

    def authorize(*what: object) -> int:
        """SQLite asks while it compiles, and at no other time."""
        compiled.append(what)
        return apsw.SQLITE_OK

    meta.stripes.insert(make_stripe(1))
    ino = add_file(meta, b"f", size=100)
    meta.extents.replace(ino, 0, 100, [raw(0, 100, 1)])
    meta.database._connection.authorizer = authorize
    for number in range(2, 8):
        compiled.clear()
        meta.dentries.lookup_inode(ROOT_INO, b"%d" % number)
        meta.dentries.list_after(ROOT_INO, number << 40, number)
        meta.extents.overlapping(number, number, number + 5)
        meta.extents.replace(ino, 10 * number, 10 * number + 1, [raw(10 * number, 1, 1, number)])
        meta.stripes.load(number)
        meta.stripes.dead(number)
        meta.inodes.load(number)
        meta.inodes.ancestors(number)
        add_file(meta, b"%d" % number)
        assert bool(compiled) == (number == 2), compiled
    meta.database._connection.authorizer = None
