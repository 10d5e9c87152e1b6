"""Is the commit log whole, on as many drives as it should be, and does it give the database that there is?

The chain is followed from the commit the database is at, parent by parent, to the beginning: what a later commit
adds meanwhile, and what a forgotten one left behind, is not on it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.checking.findings import Findings, Progress
from ciaosfs.checking.source import Source
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.meta.commitlog import CommitRecord, decode_commit
from ciaosfs.meta.compare import differences
from ciaosfs.meta.images import newest_sequence
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.reader import Reader
from ciaosfs.meta.state import State, read_state

CHECKPOINT_COMMITS = 256


@dataclass(slots=True)
class _Found:
    """One commit of the log, and the drives that have a whole copy. Without `record` only what names it is kept."""

    sequence: int
    parent_id: int
    record: CommitRecord | None
    drives: set[int] = field(default_factory=set)


class HistoryCheck:
    """One run, in a worker thread. With `replay`, a database is made from the log and compared, row by row."""

    def __init__(self, source: Source, findings: Findings, progress: Progress, *, replay: bool) -> None:
        self._reader = source.reader
        self._chunks = source.chunks
        self._torn_commit = source.torn_commit
        self._findings = findings
        self._progress = progress
        self._replay = replay

    def run(self) -> None:
        """Everything; what is wrong goes to the findings."""
        with self._reader() as reader:
            state = read_state(reader)
            if state is None:
                return  # nothing was ever committed
            chain = self._chain(state)
            if chain is None:
                return
            imaged = newest_sequence(reader)
            self._count_copies([step for step in chain if step.sequence > imaged])
            if self._replay:
                self._compare(reader, state, chain)

    def _chain(self, state: State) -> list[_Found] | None:
        """The commits up to that of the database, oldest first; None when one is missing, which is reported."""
        self._progress.begin("reading the commit log", 0, "commits")
        found = self._scan()
        chain: list[_Found] = []
        commit_id, sequence = state.commit_id, state.sequence
        while sequence > 0:
            step = found.get(commit_id)
            if step is None or step.sequence != sequence:
                self._findings.problem(
                    f"Commit {sequence} is not in the drives' log, which does not lead up to commit "
                    f"{state.sequence} of the database then."
                )
                return None
            chain.append(step)
            commit_id, sequence = step.parent_id, sequence - 1
        if commit_id != 0:
            self._findings.problem("The first commit in the drives' log builds on another one.")
            return None
        chain.reverse()
        return chain

    def _scan(self) -> dict[int, _Found]:
        found: dict[int, _Found] = {}
        for entry in self._chunks.scan_log(0):
            self._progress.advance(1)
            if entry.kind is not NeedleKind.COMMIT:
                continue
            try:
                record = decode_commit(entry.payload())
            except LogDamagedError as error:
                self._findings.problem(
                    f"Commit {entry.sequence} in volume {entry.volume_id:016x} on drive {entry.drive_number} is "
                    f"damaged: {error}"
                )
                continue
            kept = record if self._replay else None
            step = found.setdefault(record.commit_id, _Found(record.sequence, record.parent_id, kept))
            step.drives.add(entry.drive_number)
        return found

    def _count_copies(self, chain: list[_Found]) -> None:
        """Fewer than there should be are a loss, unless drives are away that may have the others.

        Of commits that come after the newest image: those before it may have lost a drive that was removed since.
        """
        wanted = self._chunks.commit_copies
        away = sum(not self._chunks.is_there(drive.number) for drive in self._chunks.drive_statuses())
        hidden = 0
        for step in chain:
            count = len(step.drives)
            if count + away >= wanted or step.sequence == self._torn_commit:
                hidden += count + away >= wanted > count
                continue
            drives = ", ".join(map(str, sorted(step.drives)))
            self._findings.problem(
                f"Commit {step.sequence} is whole on {count} of {wanted} drives only (drive {drives})."
            )
        if hidden:
            self._findings.note(
                f"{hidden} commits are on fewer than {wanted} of the drives that are there: others are away."
            )

    def _compare(self, reader: Reader, state: State, chain: list[_Found]) -> None:
        self._progress.begin("building the metadata from the log", len(chain), "commits")
        with tempfile.TemporaryDirectory(prefix="ciaosfs-check-") as directory:
            meta = Metadata.create_fresh(Path(directory) / "replayed.sqlite", state.store_id)
            try:
                for number, step in enumerate(chain, 1):
                    assert step.record is not None
                    try:
                        meta.apply(step.record.changeset)
                    except LogDamagedError as error:
                        self._findings.problem(f"Commit {step.sequence} cannot be applied: {error}")
                        return
                    meta.commit()
                    step.record = None
                    self._progress.advance(1)
                    if number % CHECKPOINT_COMMITS == 0:
                        _checkpoint(meta)
                self._progress.begin("comparing the metadata with the log")
                with meta.reader() as replayed:
                    for sentence in differences(reader, replayed):
                        self._progress.advance(0)
                        self._findings.problem(sentence)
            finally:
                meta.close()


def _checkpoint(meta: Metadata) -> None:
    """Keep the write-ahead log of a long history short."""
    checkpoint = meta.database.begin_checkpoint()
    try:
        checkpoint.run()
    finally:
        checkpoint.finish()
    if meta.database.renew_transaction():
        meta.database.sync_wal()
