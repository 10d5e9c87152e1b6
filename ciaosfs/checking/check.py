"""The whole check of one store at one moment, whoever has it open: metadata, needles, commit log.

`check_open` is for a running file system, and disturbs nothing: a thread of its own works with read-only
connections. A store that nobody has open is opened for it by `offline.check`.
"""

from __future__ import annotations

import trio

from ciaosfs.base.errors import CiaosError, LogDamagedError
from ciaosfs.checking.findings import Findings, Progress, StoppedError
from ciaosfs.checking.history import HistoryCheck
from ciaosfs.checking.needles import NeedleCheck
from ciaosfs.checking.source import Source
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta import integrity
from ciaosfs.meta.state import read_state


async def check_store(filesystem: FileSystem, *, data: bool = False) -> list[str]:
    """What is wrong with an open store, a sentence each; nothing when it is sound."""
    return (await check_open(filesystem, data=data)).problems


async def check_open(
    filesystem: FileSystem,
    *,
    data: bool = False,
    replay: bool | None = None,
    findings: Findings | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Check the last commit of an open store. With `data` every block of every shard is read and verified.

    With `replay` (by default with `data`) a database is built from the commit log and compared. Who passes
    `findings` and `progress` can look at them meanwhile. Cancelled, it ends at its next step.
    """
    parts = filesystem.parts
    source = Source(parts.meta.state.load().store_id, parts.meta.reader, parts.chunks)
    return await run(source, parts.workers, data=data, replay=replay, findings=findings, progress=progress)


async def run(
    source: Source,
    workers: Workers,
    *,
    data: bool = False,
    replay: bool | None = None,
    findings: Findings | None = None,
    progress: Progress | None = None,
) -> Findings:
    """As `check_open`, of any source."""
    findings = findings or Findings()
    progress = progress or Progress()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_when_cancelled, progress)
        error = await _stages(source, workers, findings, progress, data, data if replay is None else replay)
        nursery.cancel_scope.cancel()
    await trio.lowlevel.checkpoint_if_cancelled()
    if error is not None:
        raise error
    return findings


async def _stop_when_cancelled(progress: Progress) -> None:
    try:
        await trio.sleep_forever()
    finally:
        progress.stop()


async def _stages(
    source: Source, workers: Workers, findings: Findings, progress: Progress, data: bool, replay: bool
) -> CiaosError | None:
    """All stages; what kept it from its end. When the tables cannot be read the later stages have nothing to go by."""
    try:
        if await workers.run(_check_metadata, source, findings, progress):
            await workers.run(NeedleCheck(source, findings, progress, data=data).run)
            await HistoryCheck(source, findings, progress, replay=replay).run(workers)
        progress.begin("done")
    except LogDamagedError as error:
        findings.problem(error.message)
    except CiaosError as error:
        return error
    except StoppedError:
        pass
    return None


def _check_metadata(source: Source, findings: Findings, progress: Progress) -> bool:
    """SQLite's structures and our invariants; False when the structures are so damaged that nothing can be read."""
    with source.reader() as reader:
        reader.call_often(lambda: progress.advance(0))
        progress.begin("checking the database file")
        broken = reader.quick_check()
        for sentence in broken:
            findings.problem(f"The metadata database is damaged: {sentence}.")
        if broken:
            findings.note("Unmount the store; then 'ciaosfs recover' rebuilds the database from the drives.")
            return False
        steps = integrity.steps()
        progress.begin("checking the metadata", len(steps), "invariants")
        for step in steps:
            for sentence in step(reader):
                findings.problem(sentence)
            progress.advance(1)
        state = read_state(reader)
        if state is not None and state.store_id != source.store_id:
            findings.problem("The metadata database belongs to another store.")
            return False
    return True
