"""Do two databases hold the same rows? For the one that is in use and the one that the drives' log gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ciaosfs.meta import schema
from ciaosfs.meta.reader import Reader

_KEY: Final = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk"

_Row = tuple[Any, ...]


def differences(database: Reader, replayed: Reader) -> Iterator[str]:
    """A sentence for each row that only one of them has, or that is not the same in both."""
    for table in schema.TABLES:
        key = [row[0] for row in database.rows(_KEY, (table,))]
        columns = ", ".join(key)
        query = f"SELECT {columns}, * FROM {table} ORDER BY {columns}"
        yield from _merge(table, len(key), database.rows(query), replayed.rows(query))


def _merge(table: str, key_length: int, rows: Iterator[_Row], others: Iterator[_Row]) -> Iterator[str]:
    row, other = next(rows, None), next(others, None)
    while row is not None or other is not None:
        key = row[:key_length] if row is not None else None
        other_key = other[:key_length] if other is not None else None
        if other_key is None or (key is not None and key < other_key):
            yield f"Row {_named(key)} of table {table} is in the database, and not in what the log gives."
            row = next(rows, None)
        elif key is None or other_key < key:
            yield f"Row {_named(other_key)} of table {table} is in what the log gives, and not in the database."
            other = next(others, None)
        else:
            if row != other:
                yield f"Row {_named(key)} of table {table} is another one in what the log gives."
            row, other = next(rows, None), next(others, None)


def _named(key: _Row | None) -> str:
    assert key is not None
    return ", ".join(str(value) for value in key)
