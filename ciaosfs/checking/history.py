"""Is the commit log whole, on as many drives as it should be, and does it give the database that there is?

The *chain* is followed from the commit the database is at, parent by parent, back to the newest image of the metadata
that is kept, or to the first commit: what a later commit adds meanwhile, and what a forgotten one left behind, is not on
it. What lies before that image is needed no more, and may have lost drives that were removed since. On a mounted store
an image may be let go meanwhile, and log with it; then the look is repeated at a later moment.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ciaosfs.base.errors import CiaosError, DamagedError, DriveGoneError, LogDamagedError
from ciaosfs.checking.findings import Findings, Progress
from ciaosfs.checking.source import Source
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.restoring import restore
from ciaosfs.meta.commitlog import CommitRecord, decode_commit
from ciaosfs.meta.compare import differences
from ciaosfs.meta.imageformat import ImageRoot, decode_root
from ciaosfs.meta.images import kept_images
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.reader import Reader
from ciaosfs.meta.state import State, read_state

CHECKPOINT_COMMITS = 256
ATTEMPTS = 3


@dataclass(slots=True)
class _Found:
    """One commit of the log, and the drives that have a whole copy. Without `record` only what names it is kept."""

    sequence: int
    parent_id: int
    record: CommitRecord | None
    drives: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Log:
    """What all log volumes hold: commits and roots of images by the id of their commit, and what of it is damaged."""

    commits: dict[int, _Found] = field(default_factory=dict)
    roots: dict[int, ImageRoot] = field(default_factory=dict)
    root_drives: dict[int, set[int]] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Chain:
    """The commits from behind `root` (None: from the first) to `state`, oldest first."""

    state: State
    root: ImageRoot | None
    commits: list[_Found]


class HistoryCheck:
    """One run. With `replay`, a database is made from the log and compared, row by row."""

    def __init__(self, source: Source, findings: Findings, progress: Progress, *, replay: bool) -> None:
        self._reader = source.reader
        self._chunks = source.chunks
        self._torn_commit = source.torn_commit
        self._findings = findings
        self._progress = progress
        self._replay = replay
        self._problems: list[str] = []
        self._notes: list[str] = []

    async def run(self, workers: Workers) -> None:
        """Everything; what is wrong goes to the findings. StoppedError."""
        for attempt in range(ATTEMPTS):
            self._problems, self._notes = [], []
            reader = await workers.run(self._reader)
            try:
                state = await workers.run(read_state, reader)
                if state is None:
                    return  # nothing was ever committed
                await self._look(reader, state, workers)
            finally:
                reader.close()
            if not self._problems or attempt == ATTEMPTS - 1 or not await workers.run(self._is_past, state):
                break
        for sentence in self._problems:
            self._findings.problem(sentence)
        for sentence in self._notes:
            self._findings.note(sentence)

    def _is_past(self, state: State) -> bool:
        with self._reader() as reader:
            return read_state(reader) != state

    async def _look(self, reader: Reader, state: State, workers: Workers) -> None:
        chain = await workers.run(self._chain, reader, state)
        if chain is None or not self._replay:
            return
        with tempfile.TemporaryDirectory(prefix="ciaosfs-check-") as directory:
            database = Path(directory) / "replayed.sqlite"
            if chain.root is not None and not await self._restore(chain, chain.root, database, workers):
                return
            await workers.run(self._compare, reader, chain, database)

    async def _restore(self, chain: _Chain, root: ImageRoot, database: Path, workers: Workers) -> bool:
        self._progress.begin("reading an image of the metadata")
        records = [step.record for step in chain.commits if step.record is not None]
        try:
            await restore(root, records, database, self._chunks, workers)
        except (DamagedError, DriveGoneError) as error:
            self._problems.append(
                f"The image of the metadata as of commit {root.state.sequence} cannot be read: {error}"
            )
            return False
        return True

    def _chain(self, reader: Reader, state: State) -> _Chain | None:
        """The commits that lead up to the database; None when one is missing, which is reported."""
        self._progress.begin("reading the commit log", 0, "commits")
        log = self._scan()
        newest = max((image.sequence for image in kept_images(reader)), default=0)
        walked: list[_Found] = []
        commit_id, sequence = state.commit_id, state.sequence
        # The commit of an image need not be there itself: the image has all of it.
        while sequence > newest:
            step = log.commits.get(commit_id)
            if step is None or step.sequence != sequence:
                origin = f"from the image of commit {newest} " if newest else ""
                self._problems.append(
                    f"Commit {sequence} is not in the drives' log, which does not lead {origin}up to commit "
                    f"{state.sequence} of the database then."
                )
                return None
            walked.append(step)
            commit_id, sequence = step.parent_id, sequence - 1
        if not newest and commit_id != 0:
            self._problems.append("The first commit in the drives' log builds on another one.")
            return None
        self._problems += log.damaged
        self._count_copies(walked)
        root = log.roots.get(commit_id)
        if newest and self._lacks_copies(drives := log.root_drives.get(commit_id, set())):
            self._problems.append(f"The image of commit {newest} {self._only_on(drives)}")
        walked.reverse()
        return None if newest and root is None else _Chain(state, root, walked)

    def _scan(self) -> _Log:
        log = _Log()
        for entry in self._chunks.scan_log(0):
            self._progress.advance(1)
            try:
                if entry.kind is NeedleKind.COMMIT:
                    record = decode_commit(entry.payload())
                    kept = record if self._replay else None
                    step = log.commits.setdefault(
                        record.commit_id, _Found(record.sequence, record.parent_id, kept)
                    )
                    step.drives.add(entry.drive_number)
                else:
                    root = decode_root(entry.payload())
                    log.roots[root.state.commit_id] = root
                    log.root_drives.setdefault(root.state.commit_id, set()).add(entry.drive_number)
            except LogDamagedError as error:
                log.damaged.append(
                    f"The needle of commit {entry.sequence} in volume {entry.volume_id:016x} on drive "
                    f"{entry.drive_number} holds something else: {error}"
                )
        return log

    def _count_copies(self, walked: list[_Found]) -> None:
        """Fewer than there should be are a loss, unless drives are away that may have the others."""
        hidden = 0
        for step in reversed(walked):
            if step.sequence != self._torn_commit and self._lacks_copies(step.drives):
                self._problems.append(f"Commit {step.sequence} {self._only_on(step.drives)}")
            else:
                hidden += len(step.drives) < self._chunks.commit_copies and bool(self._away())
        if hidden:
            self._notes.append(
                f"{hidden} commits are on fewer than {self._chunks.commit_copies} of the drives that are there: "
                "others are away."
            )

    def _away(self) -> int:
        return sum(not self._chunks.is_there(drive.number) for drive in self._chunks.drive_statuses())

    def _lacks_copies(self, drives: set[int]) -> bool:
        return len(drives) + self._away() < self._chunks.commit_copies

    def _only_on(self, drives: set[int]) -> str:
        if not drives:
            return "is on no drive."
        numbers = ", ".join(map(str, sorted(drives)))
        return f"is whole on {len(drives)} of {self._chunks.commit_copies} drives only (drive {numbers})."

    def _compare(self, reader: Reader, chain: _Chain, database: Path) -> None:
        """Apply the chain to `database`, an image or nothing yet, and compare. Blocking."""
        self._progress.begin("building the metadata from the log", len(chain.commits), "commits")
        try:
            if chain.root is not None:
                meta = Metadata.open(database)
            else:
                meta = Metadata.create_fresh(database, chain.state.store_id)
            try:
                self._apply(meta, chain.commits)
                self._progress.begin("comparing the metadata with the log")
                with meta.reader() as replayed:
                    for sentence in differences(reader, replayed):
                        self._progress.advance(0)
                        self._problems.append(sentence)
            finally:
                meta.close()
        except CiaosError as error:
            self._problems.append(f"The drives' log does not give a database: {error}")

    def _apply(self, meta: Metadata, commits: list[_Found]) -> None:
        for number, step in enumerate(commits, 1):
            assert step.record is not None
            meta.apply(step.record.changeset)
            meta.commit()
            step.record = None
            self._progress.advance(1)
            if number % CHECKPOINT_COMMITS == 0:
                _checkpoint(meta)


def _checkpoint(meta: Metadata) -> None:
    """Keep the write-ahead log of a long history short."""
    checkpoint = meta.database.begin_checkpoint()
    try:
        checkpoint.run()
    finally:
        checkpoint.finish()
    if meta.database.renew_transaction():
        meta.database.sync_wal()
