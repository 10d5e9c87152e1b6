"""A connection that only reads, at one moment: for long queries in worker threads beside the writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import apsw

from ciaosfs.base.errors import LogDamagedError, NoSpaceError, StoreError
from ciaosfs.meta.connections import open_reader, translated

CALL_STEPS: Final = 200_000
"""Of SQLite's machine between two calls of a callback: some ten milliseconds."""


class Reader:
    """All queries of one reader see the same commit: the last one when it was made. A context manager.

    While it is open, checkpoints copy nothing newer and the write-ahead log grows: do not keep it for hours.
    """

    def __init__(self, path: Path) -> None:
        with translated(path):
            self._connection = open_reader(path)
            try:
                self._connection.execute("BEGIN")  # alone it fixes no moment, the first read does
                self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close(True)

    def call_often(self, callback: Callable[[], None]) -> None:
        """Call `callback` many times a second while a query runs; what it raises ends the query."""

        def called() -> bool:
            callback()
            return False

        self._connection.set_progress_handler(called, CALL_STEPS)

    def rows(self, statement: str, bindings: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, one by one. LogDamagedError when the file is damaged."""
        try:
            yield from self._connection.execute(statement, bindings)
        except apsw.CorruptError as error:
            raise LogDamagedError(f"The metadata database is damaged: {error}.") from error

    def quick_check(self) -> list[str]:
        """What SQLite finds wrong with pages, indexes and types; empty when all is sound."""
        try:
            found = [row[0] for row in self._connection.execute("PRAGMA quick_check")]
        except apsw.CorruptError as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def copy_to(self, path: Path) -> None:
        """Write a compact copy of the database as of the last commit to `path`, which must not exist."""
        self._connection.execute("COMMIT")  # VACUUM takes its own moment
        try:
            self._connection.execute("VACUUM INTO ?", (str(path),))
        except apsw.FullError as error:
            path.unlink(missing_ok=True)
            raise NoSpaceError(f"There is no space for a copy of the metadata at {path}.") from error
        except (apsw.CantOpenError, apsw.IOError, apsw.SQLError) as error:
            raise StoreError(f"The metadata cannot be copied to {path}: {error}.") from error
        self._connection.execute("BEGIN")
