"""What takes a look at the whole store: whether it is consistent, and which files cannot be read any more."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, StoreBusyError
from ciaosfs.checking.check import check_open
from ciaosfs.checking.findings import Findings, Progress
from ciaosfs.fs.parts import Parts
from ciaosfs.meta.losses import DamagedFile, damaged_files, gone_volumes, lost_stripes
from ciaosfs.meta.reader import Reader
from ciaosfs.stripe.store import DriveState
from ciaosfsd.control.call import Call, Operation, Send
from ciaosfsd.control.needs import ADMIN

if TYPE_CHECKING:
    from ciaosfs.fs.filesystem import FileSystem

PROGRESS_S = 0.5
PATHS_SHOWN = 4
"""Of a file with more names so many are shown."""
PATH_BYTES_SHOWN = 4096
ESCAPED_BYTES = 6
"""What a byte of a path may become in JSON."""

assert PATHS_SHOWN * PATH_BYTES_SHOWN * ESCAPED_BYTES < limits.CONTROL_REPLY_BYTES_MAX // 2


class CheckHandlers:
    """The handlers of one mounted store. All work is done in worker threads with read-only connections."""

    def __init__(self, filesystem: FileSystem, lost_stripes: Callable[[], Collection[int]]) -> None:
        """`lost_stripes` are those that repair found to have too few good shards."""
        self._fs = filesystem
        self._lost_stripes = lost_stripes
        self._is_checking = False

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation("check", ADMIN, self.check, streams=True),
            Operation("damaged", ADMIN, self.damaged, streams=True),
        )

    async def check(self, call: Call) -> dict[str, Any]:
        """Check the store, with `data` every block of every shard.

        Parts: `stage`, `done` of `total` `unit`, twice a second; `problems` and `notes` as they are found.
        """
        if self._is_checking:
            raise StoreBusyError("The store is being checked already: wait until that has ended.")
        findings, progress = Findings(), Progress()
        teller = _Teller(findings, progress, call.send)
        error: CiaosError | None = None
        self._is_checking = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(teller.run)
                try:
                    await check_open(
                        self._fs,
                        data=call.arguments.get("data") is True,
                        findings=findings,
                        progress=progress,
                    )
                except CiaosError as failure:
                    error = failure
                nursery.cancel_scope.cancel()
        finally:
            self._is_checking = False
        if error is not None:
            raise error
        await teller.tell_new()
        return {"problem_count": findings.problem_count}

    async def damaged(self, call: Call) -> dict[str, Any]:
        """The files with bytes in stripes that cannot be read, in parts of `files`: `ino`, `paths`.

        A shard on a drive that is away counts as lost; the reply says which are.
        """
        parts = self._fs.parts
        absent = [drive.number for drive in parts.chunks.drive_statuses() if drive.state is DriveState.ABSENT]
        count = 0
        reader = await parts.workers.run(parts.meta.reader)
        try:
            found = _damaged(reader, parts, absent, self._lost_stripes())
            while page := await parts.workers.run(_page, found):
                count += len(page)
                await call.send({"files": page})
        finally:
            reader.close()
        return {"files": count, "absent_drives": absent}


class _Teller:
    """Sends what is new in the findings, and how far the check is."""

    def __init__(self, findings: Findings, progress: Progress, send: Send) -> None:
        self._findings = findings
        self._progress = progress
        self._send = send
        self._told = {"problems": 0, "notes": 0}

    async def run(self) -> None:
        while True:
            await trio.sleep(PROGRESS_S)
            progress = self._progress
            await self._send(
                {
                    "stage": progress.stage,
                    "done": progress.done,
                    "total": progress.total,
                    "unit": progress.unit,
                }
            )
            await self.tell_new()

    async def tell_new(self) -> None:
        for kind, sentences in (("problems", self._findings.problems), ("notes", self._findings.notes)):
            while new := sentences[self._told[kind] : self._told[kind] + limits.CONTROL_PAGE_ITEMS]:
                self._told[kind] += len(new)
                await self._send({kind: new})


def _damaged(
    reader: Reader, parts: Parts, absent: Collection[int], found_lost: Collection[int]
) -> Iterator[DamagedFile]:
    """Blocking, in pieces. What lies in volumes that have vanished from drives that are there is lost, too."""
    gone = gone_volumes(reader, parts.chunks.has_lost_volume)
    yield from damaged_files(reader, lost_stripes(reader, gone, absent, found_lost=found_lost))


def _page(files: Iterator[DamagedFile]) -> list[dict[str, Any]]:
    """The next files, as many as fit a message; empty at the end. Blocking."""
    page: list[dict[str, Any]] = []
    room = limits.CONTROL_REPLY_BYTES_MAX // 2
    while room > 0 and len(page) < limits.CONTROL_PAGE_ITEMS and (file := next(files, None)) is not None:
        paths = [os.fsdecode(path[:PATH_BYTES_SHOWN]) for path in file.paths[:PATHS_SHOWN]]
        page.append({"ino": file.ino, "paths": paths})
        room -= sum(map(len, paths)) * ESCAPED_BYTES
    return page
