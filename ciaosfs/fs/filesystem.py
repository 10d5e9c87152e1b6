"""The facade: a mounted tree as a set of calls that any edge (FUSE, the control socket, a test) can make.

Calls that change something are async, because they wait at the gate while a commit makes its cut; past the gate
each is one step without an await. Calls that only look are plain functions. Inodes and names are the kernel's:
ints and bytes. Every refusal is an FsError with a POSIX errno.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from ciaosfs.base import limits
from ciaosfs.base.crashpoints import reach
from ciaosfs.base.errors import CiaosError, FsError
from ciaosfs.base.types import Buffer, Space
from ciaosfs.drive.workers import Workers
from ciaosfs.fs import attributes, namespace, unnamed, xattrs
from ciaosfs.fs.attributes import SetAttributes
from ciaosfs.fs.commit import CommitStatus, Committer
from ciaosfs.fs.files import Files, Handle
from ciaosfs.fs.flush import Flusher
from ciaosfs.fs.gate import Gate
from ciaosfs.fs.listing import Listings
from ciaosfs.fs.parts import Parts
from ciaosfs.fs.reading import Reader
from ciaosfs.fs.reclaim import FORGOTTEN_MAX, Reclaimer
from ciaosfs.fs.requester import Requester
from ciaosfs.fs.room import NAME_BYTES, RoomMaker
from ciaosfs.fs.slicing import Slicer
from ciaosfs.fs.statistics import FileSystemStatistics, gather
from ciaosfs.fs.unnamed import Naming
from ciaosfs.meta import losses, reports
from ciaosfs.meta.dentries import ListedRow
from ciaosfs.meta.inodes import FLAG_COMPRESS_NONE, ROOT_INO, Inode
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.slowness import Slowness
from ciaosfs.stripe.store import ChunkStore, DriveState, DriveStatus

COMMIT_CHECK_OPERATIONS = 32
"""Changes between two looks at the size of the open transaction."""


@dataclass(frozen=True, slots=True)
class FileSystemStatus:
    """What `ciaosfs status` shows of a mounted store. Sizes in bytes, times in nanoseconds since the epoch.

    `weakness` says what the loss of one disk or host would cost; None when nothing.
    """

    space: Space
    inodes: int
    stripes_by_missing: dict[int, int]
    drives: tuple[DriveStatus, ...]
    pending_bytes: int
    open_handles: int
    commit: CommitStatus
    reports: tuple[str, ...]
    weakness: str | None = None
    slowness: Slowness = field(default_factory=Slowness)


class FileSystem:
    """Made by `opening.open_store`, which also runs its background tasks and closes it."""

    def __init__(
        self,
        meta: Metadata,
        chunks: ChunkStore,
        files: Files,
        gate: Gate,
        flusher: Flusher,
        reader: Reader,
        reclaimer: Reclaimer,
        committer: Committer,
        room: RoomMaker,
        slicer: Slicer,
        workers: Workers,
        parts: Parts,
        recovery_reports: Sequence[str] = (),
        *,
        compress: bool = True,
    ) -> None:
        self._meta = meta
        self._chunks = chunks
        self._files = files
        self._gate = gate
        self._flusher = flusher
        self._reader = reader
        self._reclaimer = reclaimer
        self._committer = committer
        self._room = room
        self._slicer = slicer
        self._workers = workers
        self._reports = tuple(recovery_reports)
        self._compress = compress
        self._operations = 0
        self.parts = parts
        self._listings = Listings(meta)

    def prepare(self) -> None:
        """Before the first request: make the root of a new store, and queue what a crash left without a name."""
        if self._meta.inodes.load(ROOT_INO) is None:
            namespace.create_root(self._meta, Requester(os.getuid(), os.getgid(), os.getpid(), 0o022))
        self._reclaimer.purge_leftovers()
        # Recovery left a commit that is on the drives: what was dead in it may go, even if nothing ever changes again.
        self._reclaimer.committed()
        self._reclaimer.synced()

    # Looking

    def lookup(self, parent: int, name: bytes) -> Inode | None:
        """The inode `name` stands for in directory `parent`; None when there is no such name."""
        if len(name) > limits.NAME_BYTES_MAX:
            raise FsError(errno.ENAMETOOLONG)
        return self._meta.dentries.lookup_inode(parent, name)

    def getattr(self, ino: int) -> Inode:
        inode = self._meta.inodes.load(ino)
        if inode is None:
            raise FsError(errno.ENOENT)
        return inode

    def has_inode(self, ino: int) -> bool:
        return self._meta.inodes.load(ino) is not None

    def pending_bytes_of(self, ino: int) -> int:
        """Bytes of the file that no extent covers yet, for st_blocks."""
        file = self._files.get(ino)
        return file.counted if file is not None else 0

    def readlink(self, ino: int) -> bytes:
        target = self.getattr(ino).target
        if target is None:
            raise FsError(errno.EINVAL)
        return target

    @property
    def listing_mark(self) -> tuple[int, int]:
        """Changes of the tree, and of what is pending (0 while nothing is): while both stay, so do all listings."""
        return self._meta.database.tree_changes, self._files.pending_mark

    def list_directory(self, ino: int, cookie: int, limit: int) -> Sequence[ListedRow]:
        """Up to `limit` entries after `cookie` (0 to start), in cookie order. The sequence is not to be changed.

        Cookies are stable: an entry that exists all the while is listed once, whatever happens to others.
        """
        return self._listings.after(ino, cookie, limit)

    def use_idle_moment(self) -> bool:
        """Do a little of what waits (about 20 us); False when there is nothing."""
        return self._reclaimer.purge_forgotten(1)

    def list_ahead(self) -> tuple[int, Sequence[ListedRow]] | None:
        """In an idle moment: the beginning of a directory that will probably be listed soon, as `list_directory` will give
        it then, and its inode; None when there is none. Under 0.3 ms."""
        return self._listings.read_ahead()

    def list_grown(self) -> tuple[int, Sequence[ListedRow]] | None:
        """When nothing happens: as `list_ahead`, of a directory that was given a name and not listed since. None, too, while
        stripes are written: each changes rows of files when it lands."""
        return None if self._flusher.flights else self._listings.read_grown()

    async def wait_cut(self) -> None:
        """Return when the next commit has been cut, or could not be. What waited in memory has its place on the drives then,
        which changed rows of many files at once; the sync that follows changes none."""
        await self._gate.wait_cut()

    def names_after(self, ino: int, cookie: int, limit: int) -> list[tuple[int, bytes, int, int]]:
        """As `list_directory`, of the directory as it is now: (cookie, name, ino, mode)."""
        return self._meta.dentries.names_after(ino, cookie, limit)

    def settle(self) -> None:
        """Do what waits for idle moments, before nothing happens for a while (under 2 ms)."""
        self._reclaimer.purge_forgotten(FORGOTTEN_MAX)

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        """None when there is none: no error, for the kernel asks in vain before each write."""
        return xattrs.find(self._meta, ino, name)

    def listxattr(self, ino: int) -> list[bytes]:
        return self._meta.xattrs.names(ino)

    def space(self) -> Space:
        return replace(self._chunks.space(), available=self._room.available)

    def inode_count(self) -> int:
        return self._meta.inodes.count()

    # Changing the tree

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, who: Requester
    ) -> tuple[int, Inode]:
        """Make a regular file and open it; (handle, inode)."""
        await self._enter(NAME_BYTES)
        self._listings.note_grown(parent)
        inode = namespace.create(self._meta, parent, name, stat.S_IFREG | mode & 0o7777, who)
        return self._open(inode, flags), inode

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, who: Requester) -> Inode:
        await self._enter(NAME_BYTES)
        self._listings.note_grown(parent)
        return namespace.create(self._meta, parent, name, mode, who, rdev=rdev)

    async def mkdir(self, parent: int, name: bytes, mode: int, who: Requester) -> Inode:
        return await self.mknod(parent, name, stat.S_IFDIR | mode & 0o7777, 0, who)

    async def symlink(self, parent: int, name: bytes, target: bytes, who: Requester) -> Inode:
        if len(target) > limits.SYMLINK_BYTES_MAX:
            raise FsError(errno.ENAMETOOLONG)
        await self._enter(NAME_BYTES)
        return namespace.create(self._meta, parent, name, stat.S_IFLNK | 0o777, who, target=target)

    async def link(self, ino: int, parent: int, name: bytes) -> Inode:
        await self._enter(NAME_BYTES)
        return namespace.link(self._meta, ino, parent, name)

    async def unlink(self, parent: int, name: bytes) -> None:
        await self._enter()
        self._left(namespace.unlink(self._meta, parent, name))

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self._enter()
        self._left(namespace.rmdir(self._meta, parent, name))

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        await self._enter()
        replaced = namespace.rename(self._meta, parent, name, new_parent, new_name, flags)
        if replaced is not None:
            self._left(replaced)

    async def setattr(self, ino: int, changes: SetAttributes, who: Requester) -> Inode:
        await self._enter()
        if changes.size is None:
            return attributes.set_attributes(self._meta, self._files, ino, changes, who)
        while self._slicer.is_in_way(ino, changes.size):
            await self._slicer.wait(ino, changes.size)
            await self._gate.wait_open()
        inode = attributes.set_attributes(self._meta, self._files, ino, changes, who)
        self._demand_if_large()
        return inode

    async def setxattr(self, ino: int, name: bytes, value: bytes, who: Requester) -> None:
        await self._enter(NAME_BYTES)
        xattrs.set_value(self._meta, ino, name, value, who)

    async def removexattr(self, ino: int, name: bytes) -> None:
        await self._enter()
        xattrs.remove(self._meta, ino, name)

    # Files

    async def open(self, ino: int, flags: int, who: Requester) -> int:
        """A handle on a regular file; O_TRUNC empties it first."""
        if flags & os.O_TRUNC:
            await self._enter()
            attributes.set_attributes(self._meta, self._files, ino, SetAttributes(size=0), who)
            self._demand_if_large()
        return self._open(self.getattr(ino), flags)

    def _open(self, inode: Inode, flags: int) -> int:
        number, handle = self._files.open(inode.ino, flags)
        handle.file.is_blank = inode.allocated == 0
        handle.file.compress = self._compress and not inode.flags & FLAG_COMPRESS_NONE
        return number

    async def create_unnamed(self, directory: int, who: Requester) -> int:
        """A handle on a new file without a name, stored as files in `directory` are. `publish` it or `give_up`."""
        await self._enter(NAME_BYTES)
        return self._open(unnamed.create(self._meta, directory, who), os.O_RDWR)

    async def publish(self, fh: int, parent: int, name: bytes, naming: Naming) -> tuple[Inode, Inode | None]:
        """Give the file of `fh` its name, and take it from the file that has it, in one step; (new, former or None).

        The handle stays open. What the kernel has cached of the name is as it was: see `unnamed`. Refuses as that says.
        """
        handle = self._handle(fh)
        await self._room.wait_room(NAME_BYTES + sum(map(len, naming.values.values())))
        reach("publish.written")
        await self._enter()
        published, former = unnamed.publish(self._meta, handle.file.ino, parent, name, naming)
        if former is not None:
            self._left(former)
        reach("publish.named")
        return published, former

    def moved_to(self, ino: int, parent: int, name: bytes) -> tuple[int, bytes] | None:
        """Where the inode has a name when `name` in `parent` is none of its any more; None when it is, or it has none."""
        inode = self._meta.inodes.load(ino)
        if inode is None or inode.nlink == 0 or self._meta.dentries.lookup(parent, name) == ino:
            return None
        found = self._meta.dentries.name_in(inode.parent, ino)
        return None if found is None else (inode.parent, found)

    def give_up(self, fh: int) -> None:
        """Close a handle on a file without a name, which nobody else knows: its bytes and its inode go at once."""
        ino = self._handle(fh).file.ino
        self._reclaimer.unlinked(ino)
        self._reader.forget(self._handle(fh))
        self._files.release(fh)
        self._reclaimer.forgotten([ino])

    def release(self, fh: int) -> None:
        """Close a handle. A file without names and handles is purged when the kernel forgets it, not before."""
        self._reader.forget(self._handle(fh))
        self._files.release(fh)

    def read_nowait(self, fh: int, offset: int, size: int) -> Buffer | None:
        """The bytes, fewer at the end of the file; None when they are not at hand and `read` must be awaited."""
        return self._reader.read_nowait(self._handle(fh), offset, size)

    async def read(self, fh: int, offset: int, size: int) -> Buffer:
        return await self._reader.read(self._handle(fh), offset, size)

    async def write(self, fh: int, offset: int, data: Buffer) -> int:
        """Take `data` (never changed afterwards) at `offset`. ENOSPC or DriveGoneError before anything is taken; EFBIG."""
        handle = self._handle(fh)
        length = len(data)
        if not length:
            return 0
        end = offset + length
        if end > limits.FILE_BYTES_MAX:
            raise FsError(errno.EFBIG)
        file = handle.file
        await self._enter()
        while True:
            if not (self._flusher.has_room(length) and self._room.has_room(length)):
                try:
                    await self._flusher.wait_room(length)
                    await self._room.wait_room(length)
                except CiaosError as error:
                    self._files.refused(file, error.errno)
                    raise
            elif self._slicer.is_in_way(file.ino, end):
                await self._slicer.wait(file.ino, end)
            else:
                break
            await self._gate.wait_open()
        if not self._meta.inodes.grow(file.ino, end):
            raise FsError(errno.ENOENT)
        file.overlay.write(offset, data)
        self._flusher.wrote(file)
        return length

    async def wait_room(self, length: int) -> None:
        """Return when `length` more bytes have room on the drives. ENOSPC; DriveGoneError when too few are there."""
        await self._room.wait_room(length)

    def has_told_writers(self, code: int) -> bool:
        """Whether writes were refused with errno `code`, and all files that were refused some are closed again: so that an
        error that the kernel reports of writing back is no news to those who wrote."""
        return self._files.have_told(code)

    async def fsync(self, fh: int) -> None:
        """Everything done to the tree before this call is on the drives when it returns; errors of the file's bytes."""
        await self.sync()

    async def sync(self) -> None:
        """As `fsync`, for the whole tree. Raises what kept the commit from becoming durable (CiaosError)."""
        await self._committer.sync()

    def forget(self, inodes: Sequence[int]) -> None:
        """The kernel dropped its last reference to each of these."""
        self._reclaimer.forgotten(inodes)

    def forget_later(self, inodes: Sequence[int]) -> None:
        """As `forget`, of which all but a note is left to `use_idle_moment` and `settle`."""
        self._reclaimer.forget_later(inodes)

    # Administration

    def status(self) -> FileSystemStatus:
        return FileSystemStatus(
            space=self.space(),
            inodes=self._meta.inodes.count(),
            stripes_by_missing=self._meta.stripes.count_by_missing(),
            drives=tuple(self._chunks.drive_statuses()),
            pending_bytes=self._files.pending_bytes,
            open_handles=self._files.handle_count,
            commit=self._committer.status,
            reports=self._reports,
            weakness=self._chunks.weakness(),
            slowness=Slowness.of(self._chunks.statistics()),
        )

    def statistics(self) -> FileSystemStatistics:
        return gather(self._chunks, self._reader, self._listings, self._committer, self._workers)

    async def stripes_by_missing(self) -> dict[int, int]:
        """How many stripes miss how many shards now; a shard on a drive that is away is missing, too."""
        absent = [drive.number for drive in self._chunks.drive_statuses() if drive.state is DriveState.ABSENT]
        if not absent:
            return self._meta.stripes.count_by_missing()

        def count() -> dict[int, int]:
            with self._meta.reader() as reader:
                return reports.stripes_by_missing(reader, absent)

        return await self._workers.run(count)

    async def stripes_by_spare(self, found_lost: Collection[int] = ()) -> dict[int, int]:
        """How many stripes can do without how many more shards now; whole ones may be left out. Below 0: lost.

        `found_lost` are stripes with too many damaged shards, of which the metadata does not know.
        """
        absent = [drive.number for drive in self._chunks.drive_statuses() if drive.state is DriveState.ABSENT]

        def count() -> dict[int, int]:
            with self._meta.reader() as reader:
                gone = losses.gone_volumes(reader, self._chunks.has_lost_volume)
                by_spare = losses.stripes_by_spare(reader, gone, absent)
                if found_lost:
                    lost = sum(1 for _ in losses.lost_stripes(reader, gone, absent, found_lost=found_lost))
                    by_spare = {spare: count for spare, count in by_spare.items() if spare >= 0} | {-1: lost}
                return by_spare

        return await self._workers.run(count)

    # Inside

    async def _enter(self, room: int = 0) -> None:
        """Wait for room on the drives and at the gate; past it the caller has no await until its change is complete."""
        if room and not self._room.has_room(room):
            await self._room.wait_room(room)
        if self._gate.closed:
            await self._gate.wait_open()
        self._operations += 1
        if self._operations % COMMIT_CHECK_OPERATIONS == 0:
            self._demand_if_large()

    def _demand_if_large(self) -> None:
        """What has changed is enough for a commit: it is to begin early."""
        if self._meta.database.changeset_bytes > limits.COMMIT_CHANGESET_BYTES:
            self._committer.demand()

    def _left(self, inode: Inode) -> None:
        if inode.nlink == 0 and inode.ino != ROOT_INO:
            self._reclaimer.unlinked(inode.ino)

    def _handle(self, fh: int) -> Handle:
        try:
            return self._files.handle(fh)
        except KeyError:
            raise FsError(errno.EBADF) from None
