"""One run: random steps done to a real store and to the model, compared after every step.

A step is a kind and a few numbers drawn beforehand; what they mean is decided when it is done, modulo what exists
then, so every step is legal in every state and a run can be shortened by leaving steps out.

Crashes are real to the store: its directory is copied at that moment, as a kill or a power cut leaves it, and the run goes
on with the copy. The tree found there must be one of `allowed`: the states that existed from the last sync that was
answered on. Only the drives of one fixed set, no larger than parity, are ever lost or damaged.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import trio

from ciaosfs.base import clock
from ciaosfs.base.errors import FsError
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.attributes import SetAttributes
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.model.looking import describe, list_directory, read_tree, times_of
from tests.support.builders import WHO, Store, complaints, content, eventually
from tests.support.model_fs import ROOT, ModelError, ModelFs
from tests.support.model_tree import Tree, from_tree, tree_of
from tests.support.power import PoweredDrives

NAMES = [b"a", b"b", b"c", b"d\xff", b"long" * 63 + b"xyz"]
STRANGE_NAMES = [b"x" * 256, b"nobody"]
MODES = [0o644, 0o600, 0o755, 0o4755, 0o2755, 0o2644, 0o1777, 0]
FILE_BYTES_MAX = 7 << 20
"""How far files reach in this machine; others may have smaller ones."""
QUIET_BYTES = 1 << 20
"""While all files together are smaller, every byte is compared after every step."""


class Step(NamedTuple):
    kind: str
    a: int
    b: int
    c: int
    d: int


class Exit(Enum):
    """Why the store is left."""

    END = "end"
    REMOUNT = "remount"
    CRASH = "crash"


Steps = dict[str, tuple[float, Callable[["Machine", Step], Awaitable[Exit | None]]]]
"""What there is to do: a name, how often, and how."""


class Machine:
    """A store, its model, and what a crash may show."""

    file_bytes_max = FILE_BYTES_MAX

    def __init__(
        self, place: Path, seed: int, table: Steps, make_workers: Callable[[], Workers] = Workers
    ) -> None:
        """`place` is an empty directory; `seed` decides the form of the store; each opening gets its own workers."""
        dice = random.Random(seed)
        self.place = place
        self.table = table
        self.make_workers = make_workers
        self.dice = dice
        data_count, parity_count, spare = dice.choice([(4, 2, 0), (2, 1, 1), (2, 2, 1), (1, 1, 1)])
        self.store = Store.make(place / "store0", data_count, parity_count, spare)
        self.generation = 0
        numbers = range(data_count + parity_count + spare)
        self.unlucky = dice.sample(numbers, parity_count)
        """The drives that may be lost or damaged."""
        self.destroyed: set[int] = set()
        self.ill: set[int] = set()
        """Drives that answer with errors."""
        self.strike: Callable[[str, str], None] = lambda what, where: None
        """Called, in a thread, before each operation on a drive."""
        self.power = PoweredDrives()
        self.fs: FileSystem
        self.nursery: trio.Nursery  # of the steps; tasks in it go on while others are done
        self.model = ModelFs(os.getuid(), os.getgid())
        self.real: dict[int, int] = {ROOT: ROOT_INO}
        """The inode number of each node of the model."""
        self.handles: list[tuple[int, int]] = []
        self.unforgotten: list[int] = []
        """Nodes without names of which the kernel has not let go."""
        self.touched: set[int] = set()
        """Nodes whose content the present step may have changed."""
        self.allowed: list[Tree] = []
        """What a crash now may show."""
        self.databases: list[Store] = []
        self.abandoned: Store | None = None
        self.log: list[str] = []

    # The run

    async def run(self, steps: Sequence[Step]) -> None:
        """Do all steps, then look whether anything is left over. AssertionError where store and model differ."""
        waiting = list(reversed(steps))
        is_first = True
        while True:
            leaving = Exit.END
            self.power = PoweredDrives()
            self.power.before = self.before
            self.ill.clear()
            async with self.store.open(self.power, self.make_workers()) as self.fs:
                await self.arrive(is_first=is_first)
                is_first = False
                async with trio.open_nursery() as self.nursery:
                    while waiting and leaving is Exit.END:
                        leaving = await self.do(waiting.pop())
                if leaving is Exit.END:
                    await self.end()
            if leaving is Exit.END:
                break
            if leaving is Exit.REMOUNT:
                self.allowed = [tree_of(self.model)]
            if self.abandoned is not None:
                shutil.rmtree(self.abandoned.path)
                self.abandoned = None
            self.handles.clear()
            self.unforgotten.clear()
        assert complaints(self.store.database) == []

    def before(self, what: str, where: str) -> None:
        if what != "punch" and int(where.split("/")[0]) in self.ill:
            raise OSError(errno.EIO, "the drive is ill")
        self.strike(what, where)

    async def arrive(self, *, is_first: bool) -> None:
        """Compare what is found with what may be found, and go on from there."""
        if is_first:
            await self.fs.sync()  # until then, each opening makes a root of its own
        found, inodes = await read_tree(self.fs)
        if is_first:
            self.model.settle(lambda number: times_of(self.fs.getattr(ROOT_INO)), 0, time.time_ns())
            self.allowed = [tree_of(self.model)]
        assert found in self.allowed, describe(found, self.allowed)
        self.allowed = [found]
        self.model, numbers = from_tree(found)
        self.real = {numbers[path]: ino for path, ino in inodes.items()}

    async def do(self, step: Step) -> Exit:
        self.touched.clear()
        self.log.append(f"{step.kind}{step[1:]}")
        start = clock.FILES.now_ns()
        leaving = await self.table[step.kind][1](self, step)
        if leaving is Exit.CRASH:
            return leaving
        self.settle(start)
        if leaving is None:
            await self.compare()
        return leaving or Exit.END

    def settle(self, start: int) -> None:
        """Take over the times of what was done since `start`; a commit may be made in this moment."""
        self.model.settle(lambda number: times_of(self.fs.getattr(self.real[number])), start, time.time_ns())
        self.note_state()

    def note_state(self) -> None:
        """A commit that nobody asked for may be made at any time: a crash may show every state since the last sync."""
        tree = tree_of(self.model)
        if tree != self.allowed[-1]:
            self.allowed.append(tree)

    async def end(self) -> None:
        """With everything closed and synced, nothing is left over: no orphan, no dead stripe, no state in memory."""
        for fh, number in self.handles:
            self.release_one(fh, number)
        self.handles.clear()
        for number in list(self.unforgotten):
            self.forget_one(number)
        await self.compare(everything=True)
        await eventually(lambda: self.fs.inode_count() == len(self.model.nodes))
        await eventually(lambda: self.fs._reclaimer.waiting == 0)
        for _ in range(200):
            # What a crash left dead is found with the next commit, and a commit needs a change.
            await self.stir()
            await self.fs.sync()
            if not self.fs._meta.stripes.dead(1):
                break
            await trio.sleep(0.02)
        assert self.fs._meta.stripes.dead(1) == []
        assert self.fs._meta.inodes.orphans() == []
        status = self.fs.status()
        assert (status.pending_bytes, status.open_handles, len(self.fs._files)) == (0, 0, 0)

    async def stir(self) -> None:
        """A change, so that there is something to commit."""
        await self.fs.setattr(ROOT_INO, SetAttributes(mtime_ns=self.model.nodes[ROOT].mtime), WHO)

    # Doing one thing to both

    async def both(
        self, model: Callable[[], object], real: Callable[[], Awaitable[object]]
    ) -> tuple[object, object] | None:
        """Both results, or None when both refuse with the same errno."""
        expected = 0
        mine: object = None
        try:
            mine = model()
        except ModelError as error:
            expected = error.errno
        try:
            theirs = await real()
        except FsError as error:
            assert errno.errorcode[error.errno] == errno.errorcode.get(expected, "success"), self.log[-1]
            return None
        assert expected == 0, f"{self.log[-1]}: expected {errno.errorcode[expected]}"
        return mine, theirs

    def pick(self, choice: int, wanted: Callable[[int], bool]) -> int | None:
        found = [number for number in sorted(self.model.nodes) if wanted(number)]
        return found[choice % len(found)] if found else None

    def directory(self, choice: int) -> int:
        """A directory that is there; sometimes one that was removed, or a file."""
        nodes = self.model.nodes
        if choice % 50 == 0:
            return self.any(choice // 50)
        found = self.pick(choice, lambda number: nodes[number].is_directory and nodes[number].nlink > 0)
        assert found is not None
        return found

    def any(self, choice: int) -> int:
        found = self.pick(choice, lambda number: True)
        assert found is not None
        return found

    def file(self, choice: int) -> int | None:
        return self.pick(choice, lambda number: stat.S_ISREG(self.model.nodes[number].mode))

    def name(self, choice: int) -> bytes:
        return STRANGE_NAMES[choice % 2] if choice % 40 == 0 else NAMES[choice % len(NAMES)]

    def existing(self, step: Step) -> tuple[int, bytes]:
        """A name that exists, mostly."""
        parent = self.directory(step.a)
        names = sorted(self.model.nodes[parent].entries)
        return parent, names[step.b % len(names)] if names and step.b % 10 else self.name(step.b)

    # What several steps do

    def forget_one(self, number: int) -> None:
        if number not in self.model.opened:
            self.unforgotten.remove(number)
            self.fs.forget([self.real[number]])
            self.model.forget(number)
            if number not in self.model.nodes:
                del self.real[number]

    def release_one(self, fh: int, number: int) -> None:
        self.fs.release(fh)
        self.model.release(number)

    async def write_one(self, fh: int, number: int, offset: int, data: bytes) -> bool:
        """One request; False when it was refused for a good reason, and nothing of it was taken."""
        assert await self.fs.write(fh, offset, data) == len(data)
        self.model.write(number, offset, data)
        self.note_state()
        return True

    async def sync_now(self, handle: int | None = None) -> None:
        before, generation = tree_of(self.model), self.generation
        self.allowed.append(before)
        await (self.fs.sync() if handle is None else self.fs.fsync(handle))
        at = next((index for index, tree in enumerate(self.allowed) if tree is before), None)
        # None: one that began later was answered first. Another generation: a crash has come in between.
        if at is not None and generation == self.generation:
            del self.allowed[:at]

    def next_place(self) -> Path:
        self.generation += 1
        return self.place / f"store{self.generation}"

    def go_on_with(self, left: Store) -> None:
        """The store that is open is left to itself: what it does from here on is nobody's affair."""
        self.nursery.cancel_scope.cancel()
        self.abandoned, self.store = self.store, left
        self.allowed = list(self.allowed)

    # Comparing

    async def compare(self, everything: bool = False) -> None:
        total = sum(len(node.data) for node in self.model.nodes.values())
        lucky = self.any(self.dice.randrange(1 << 30))
        for number in list(self.model.nodes):
            if number not in self.model.nodes:
                continue
            with_content = everything or total <= QUIET_BYTES or number == lucky or number in self.touched
            await self.compare_node(number, with_content=with_content)

    async def compare_node(self, number: int, *, with_content: bool) -> None:
        node, ino = self.model.nodes[number], self.real[number]
        inode = self.fs.getattr(ino)
        expected = (
            node.mode, node.uid, node.gid, node.nlink, node.rdev, node.size, node.atime, node.mtime, node.ctime,
            node.target,
        )  # fmt: skip
        found = (
            inode.mode, inode.uid, inode.gid, inode.nlink, inode.rdev, inode.size, *times_of(inode), inode.target
        )  # fmt: skip
        assert found == expected, f"attributes of node {number}"
        xattrs = {name: self.fs.getxattr(ino, name) for name in self.fs.listxattr(ino)}
        assert xattrs == node.xattrs
        if node.is_directory:
            entries = {name: self.real[below] for name, below in node.entries.items()}
            assert list_directory(self.fs, ino) == entries
        elif with_content and stat.S_ISREG(node.mode):
            # Not compared in the assertion: pytest would look for hours for the smallest difference of two files.
            is_same = await content(self.fs, ino) == node.content
            assert is_same, f"content of node {number}"
