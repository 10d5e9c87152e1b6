"""Check a store that nobody has open: what the next mount would show is looked at, and nothing is changed.

The database is copied into a temporary directory, and the copy brought to the moment that a mount would choose, by
the same code. So a store that a crash left is judged by what recovery makes of it: what recovery has to do is a note,
what it cannot mend is a problem.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ciaosfs.base.clock import IdSource
from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import CiaosError, LogDamagedError, NoSpaceError, StoreError
from ciaosfs.checking import check
from ciaosfs.checking.findings import Findings, Progress
from ciaosfs.checking.source import Source
from ciaosfs.drive.local import open_drive
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.boot import boot_path, database_path, is_same_boot
from ciaosfs.fs.recovery import Recovered, recover
from ciaosfs.meta.connections import database_files
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.reader import Reader
from ciaosfs.meta.state import read_state
from ciaosfs.stripe.arriving import open_drives
from ciaosfs.stripe.store import ChunkStore
from ciaosfs.volume.driveset import DriveOpener


async def check_closed(
    config: StoreConfig,
    workers: Workers,
    *,
    data: bool = False,
    replay: bool | None = None,
    findings: Findings | None = None,
    progress: Progress | None = None,
    opener: DriveOpener = open_drive,
) -> Findings:
    """Check the store in `config`, which the caller has locked; see `checking.check.check_open` for the rest.

    NoSpaceError when there is no room for the copy of the database.
    """
    findings = findings or Findings()
    progress = progress or Progress()
    progress.begin("copying the database")
    with _copied_database(config) as database:
        trouble = await workers.run(_database_trouble, database, config.store_id)
        if trouble is not None:
            findings.problem(trouble.replace(str(database), str(database_path(config.path))))
            for file in database_files(database):
                file.unlink(missing_ok=True)
        is_missing = trouble is None and not database.exists()
        drives = await open_drives(config, workers, opener)
        chunks = ChunkStore(
            drives, config.store_id, config.data_count, config.parity_count, IdSource(0), workers
        )
        is_booted = is_same_boot(boot_path(config.path))
        try:
            async with chunks:
                recovered = await recover(database, config.store_id, chunks, workers, is_same_boot=is_booted)
                try:
                    if is_missing and recovered.meta.state.load().sequence:
                        findings.problem("The metadata database is missing: 'ciaosfs recover' rebuilds it.")
                    _note(recovered, findings, is_replaced=trouble is not None)
                    source = Source(
                        config.store_id,
                        recovered.meta.reader,
                        chunks,
                        frozenset(recovered.torn_stripes),
                        0 if recovered.to_copy is None else recovered.to_copy.sequence,
                    )
                    await check.run(
                        source, workers, data=data, replay=replay, findings=findings, progress=progress
                    )
                finally:
                    await workers.run(recovered.meta.close)
        except CiaosError as error:
            findings.problem(error.message)
    return findings


@contextmanager
def _copied_database(config: StoreConfig) -> Iterator[Path]:
    """The path of a copy of the database, as far as there is one, for the length of a with block."""
    with tempfile.TemporaryDirectory(prefix="ciaosfs-check-") as directory:
        original = database_files(database_path(config.path))
        copy = database_files(Path(directory) / original.database.name)
        try:
            for source, target in zip(original, copy, strict=True):
                if source != original.shared_memory and source.exists():  # SQLite makes that one anew
                    shutil.copyfile(source, target)
        except OSError as error:
            raise NoSpaceError(
                f"The database cannot be copied to {directory} to be checked ({error.strerror}): "
                "set TMPDIR to a directory with room for it."
            ) from error
        yield copy.database


def _database_trouble(database: Path, store_id: bytes) -> str | None:
    """Why nothing can be read from the database; None when it can, or there is none."""
    if not database.exists():
        return None
    try:
        with Reader(database) as reader:
            broken = reader.quick_check()
            if broken:
                return f"The metadata database is damaged: {broken[0]}; 'ciaosfs recover' rebuilds it."
            state = read_state(reader)
        if state is not None and state.store_id != store_id:
            return "The metadata database belongs to another store: 'ciaosfs recover' rebuilds it."
        if state is not None:
            Metadata.open(database).close()
    except (LogDamagedError, StoreError) as error:
        return f"{error.message.rstrip('.')}: 'ciaosfs recover' rebuilds it."
    return None


def _note(recovered: Recovered, findings: Findings, *, is_replaced: bool) -> None:
    """What the next mount will do before it serves anybody; when the database is damaged, what recovering does."""
    for report in recovered.reports:
        # A mount opens a database that SQLite opens: it does not read all of it to find that out.
        findings.note(f"{'With ciaosfs recover' if is_replaced else 'At the next mount'}: {report}")
    if recovered.torn_stripes:
        findings.note(f"The next mount writes {len(recovered.torn_stripes)} stripes of the last commit anew.")
    if recovered.to_copy is not None:
        findings.note(f"The next mount copies commit {recovered.to_copy.sequence} to more drives.")
