"""Moving committed pages from SQLite's write-ahead log into the database, beside the writer and synced.

Two rules make a checkpoint safe. It copies nothing that is not synced on the drives, so that the database is
never ahead of the log that is the truth: a read transaction begun at the right moment in the loop, the *pin*,
holds it back, whatever is committed while it runs. And it syncs: the write-ahead log before copying, the
database afterwards (synchronous=FULL), so that a power cut finds either the frames or the pages. When a sync of the
log has failed, another one proves nothing: the log is written again (`wal.write_again`). A sync may have failed in the
process before, which nobody knows: so the frames that it left are written again once.

While newer frames than the pin's exist, a page that changed again is not copied at all: the file alone is
then a mix and only right together with the write-ahead log. That is why recovery cuts that log back and never
removes it (`wal`).
"""

from __future__ import annotations

from pathlib import Path

import apsw

from ciaosfs.base.errors import NoSpaceError, StoreError
from ciaosfs.meta.connections import open_copier
from ciaosfs.meta.wal import committed_pages, note_copied, write_again


class Checkpointer:
    """Counts pages of the write-ahead log and what has been copied of them; makes checkpoints, one at a time.

    Its two connections are opened with the first checkpoint and kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pin: apsw.Connection | None = None
        self._copier: apsw.Connection | None = None
        self._running = False
        self.wal_pages = committed_pages(path)
        self._copied_pages = 0
        self._is_doubtful = False
        self.log_number = 0
        self.must_write_again = False
        """A sync of the log has failed."""
        self._inherited_pages = self.wal_pages
        """Frames that were there already, of which nobody knows whether a sync of them has failed."""

    def committed(self, connection: apsw.Connection, name: str, pages: int) -> int:
        """SQLite's hook: a commit left `pages` frames in the log."""
        if self._is_doubtful or pages < self.wal_pages:
            self._forget()
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def emptied(self) -> None:
        """The log was cut to nothing."""
        self.wal_pages = 0
        self._forget()

    def doubt(self) -> None:
        """The next commit may begin the log anew."""
        self._is_doubtful = True

    def _forget(self) -> None:
        """What has been copied is about another log than the one there is now."""
        self._copied_pages = 0
        self._is_doubtful = False
        self.log_number += 1

    @property
    def uncopied_pages(self) -> int:
        return self.wal_pages - self._copied_pages

    def unsure_pages(self, pinned_pages: int) -> int:
        """Of the first so many frames, those that another sync may not bring to the disk; they come first."""
        return pinned_pages if self.must_write_again else min(self._inherited_pages, pinned_pages)

    def written_again(self) -> None:
        """That has been done about all of these. In a worker thread, like the question."""
        self.must_write_again = False
        self._inherited_pages = 0

    @property
    def is_complete(self) -> bool:
        """Whether the log has frames and all of them are in the database, synced."""
        return self.wal_pages > 0 and self.uncopied_pages == 0 and not self._running

    def begin(self) -> Checkpoint:
        """Pin the last commit; see `Database.begin_checkpoint`."""
        assert not self._running, "one checkpoint at a time"
        if self._pin is None:
            self._pin = open_copier(self._path)
        if self._copier is None:
            self._copier = open_copier(self._path)
        self._pin.execute("BEGIN")
        self._pin.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        self._running = True
        return Checkpoint(self, self._path, self._pin, self._copier)

    def ended(self, log_number: int, copied: int) -> None:
        """A checkpoint of the log of this number has copied its first `copied` frames. In the loop."""
        self._running = False
        if log_number == self.log_number:
            self._copied_pages = min(copied, self.wal_pages)

    def close(self) -> None:
        assert not self._running, "a checkpoint is under way"
        for connection in (self._pin, self._copier):
            if connection is not None:
                connection.close(True)


class Checkpoint:
    """One checkpoint under way: `run` in a worker thread, then `finish` in the loop even if `run` raised."""

    def __init__(
        self, owner: Checkpointer, path: Path, pin: apsw.Connection, copier: apsw.Connection
    ) -> None:
        self._owner = owner
        self._path = path
        self._pin = pin
        self._copier = copier
        self._pinned_pages = owner.wal_pages
        self._log_number = owner.log_number
        self._copied_pages = 0

    def run(self) -> None:
        """Sync the write-ahead log, copy what is pinned, sync the database.

        NoSpaceError, StoreError when the disk fails, LogDamagedError when the log is not what was written to it.
        """
        try:
            note_copied(self._path, self._pinned_pages)
            if unsure_pages := self._owner.unsure_pages(self._pinned_pages):
                write_again(self._path, unsure_pages)
                self._owner.written_again()
            _, copied = self._copier.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._copied_pages = max(copied, 0)
        except apsw.BusyError:
            pass  # a reader works on the bare database file: nothing is copied this time
        except apsw.FullError as error:
            raise NoSpaceError("There is no space to write the metadata database.") from error
        except (apsw.IOError, OSError) as error:
            self._owner.must_write_again = True
            raise StoreError(f"The metadata database cannot be written: {error}.") from error
        finally:
            self._pin.execute("COMMIT")

    def finish(self) -> None:
        """Tell the owner how far it came."""
        self._owner.ended(self._log_number, self._copied_pages)
