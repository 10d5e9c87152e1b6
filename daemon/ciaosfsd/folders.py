"""Making the folders of users: the only thing in the tree that this process makes of its own accord.

It does so as the user, past the permissions of the directory above: who may add users was asked before.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ciaosfs.access.paths import Names, to_text
from ciaosfs.base.errors import FsError, UsageError
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.requester import Requester
from ciaosfs.meta.inodes import ROOT_INO

if TYPE_CHECKING:
    from ciaosfs.fs.filesystem import FileSystem

MODE = 0o700


class Folders:
    """The folders in one mounted tree. `forget_name` makes the kernel forget a name in a directory, and blocks."""

    def __init__(
        self,
        filesystem: FileSystem,
        workers: Workers,
        forget_name: Callable[[int, bytes, Sequence[int]], Any],
    ) -> None:
        self._fs = filesystem
        self._workers = workers
        self._forget_name = forget_name

    async def make(self, names: Names, uid: int, gid: int) -> bool:
        """Make the directory `names` for its user alone; False when it was there, and was left as it is.

        UsageError when the directory above is missing, or something else has the name.
        """
        directory = ROOT_INO
        for depth, name in enumerate(names, 1):
            found = self._fs.lookup(directory, name)
            if found is not None:
                if not stat.S_ISDIR(found.mode):
                    raise UsageError(
                        f"{to_text(names[:depth])} in the store is no directory: give another folder."
                    )
                directory = found.ino
            elif depth < len(names):
                raise UsageError(
                    f"{to_text(names[:depth])} is missing in the store: make that directory first."
                )
            else:
                return await self._make(directory, name, Requester(uid, gid, os.getpid(), 0))
        return False

    async def _make(self, directory: int, name: bytes, who: Requester) -> bool:
        try:
            await self._fs.mkdir(directory, name, MODE, who)
        except FsError as error:
            if error.errno == errno.EEXIST:  # somebody was faster
                return False
            raise
        await self._workers.run(self._forget_name, directory, name, ())
        return True
