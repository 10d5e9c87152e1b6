"""The dumbest possible POSIX tree: a dictionary of nodes, each with its bytes. What the file system is compared with.

Every operation first checks everything, then does everything, so one that fails has changed nothing. Nodes have
numbers of the model's own. A time that the operation sets is `NOW` until `settle` is told what the file system made
of it. What the kernel checks before it asks (permissions, a directory moved below itself) is not in here.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator

from ciaosfs.base import limits
from ciaosfs.base.errors import FsError
from ciaosfs.fs import acl
from tests.support.model_node import ACLS, COMPRESSION, EXCHANGE, NOREPLACE, NOW, ROOT, ModelError, Node

__all__ = ["ACLS", "COMPRESSION", "EXCHANGE", "NOREPLACE", "NOW", "ROOT", "ModelError", "ModelFs", "Node"]


class ModelFs:
    """The tree. `opened` counts the handles on a node: one without names stays as long as it has any."""

    def __init__(self, uid: int, gid: int) -> None:
        self.nodes = {ROOT: Node(stat.S_IFDIR | 0o755, uid, gid, 2)}
        self.opened: dict[int, int] = {}
        self.next_number = ROOT + 1

    # Names

    def create(
        self,
        parent: int,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        target: bytes | None = None,
    ) -> int:
        check_name(name)
        if target is not None and len(target) > limits.SYMLINK_BYTES_MAX:
            raise ModelError(errno.ENAMETOOLONG)
        directory = self.directory(parent)
        if name in directory.entries:
            raise ModelError(errno.EEXIST)
        node = Node(mode, uid, gid, 1, rdev=rdev, target=target, is_raw=directory.is_raw)
        default = directory.xattrs.get(acl.DEFAULT)
        if default is not None and not stat.S_ISLNK(mode):
            node.mode, access = acl.inherit(acl.decode(default), mode)
            if not acl.is_minimal(access):
                node.xattrs[acl.ACCESS] = acl.encode(access)
            if node.is_directory:
                node.xattrs[acl.DEFAULT] = default
        if directory.mode & stat.S_ISGID:
            node.gid = directory.gid
        if node.is_directory:
            node.nlink = 2
            node.mode |= directory.mode & stat.S_ISGID
            directory.nlink += 1
            if node.is_raw:
                node.xattrs[COMPRESSION] = b"none"
        number, self.next_number = self.next_number, self.next_number + 1
        self.nodes[number] = node
        directory.entries[name] = number
        directory.mtime = directory.ctime = NOW
        return number

    def link(self, number: int, parent: int, name: bytes) -> None:
        check_name(name)
        directory = self.directory(parent)
        node = self.nodes.get(number)
        if node is None or node.nlink == 0:
            raise ModelError(errno.ENOENT)
        if node.is_directory:
            raise ModelError(errno.EPERM)
        if name in directory.entries:
            raise ModelError(errno.EEXIST)
        directory.entries[name] = number
        directory.mtime = directory.ctime = NOW
        node.nlink += 1
        node.ctime = NOW

    def unlink(self, parent: int, name: bytes) -> None:
        directory = self.directory(parent)
        if self._named(directory, name).is_directory:
            raise ModelError(errno.EISDIR)
        self._remove(directory, name)

    def rmdir(self, parent: int, name: bytes) -> None:
        directory = self.directory(parent)
        node = self._named(directory, name)
        if not node.is_directory:
            raise ModelError(errno.ENOTDIR)
        if node.entries:
            raise ModelError(errno.ENOTEMPTY)
        self._remove(directory, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        if flags not in (0, NOREPLACE, EXCHANGE):
            raise ModelError(errno.EINVAL)
        check_name(new_name)
        source, destination = self.directory(parent), self.directory(new_parent)
        node = self._named(source, name)
        number = source.entries[name]
        other_number = destination.entries.get(new_name)
        other = None if other_number is None else self.nodes[other_number]
        if flags == EXCHANGE:
            if other is None or other_number is None:
                raise ModelError(errno.ENOENT)
            if node is not other:
                self._exchange(source, name, destination, new_name)
            return
        if other is not None:
            if flags == NOREPLACE:
                raise ModelError(errno.EEXIST)
            if other is node:
                return
            if node.is_directory and not other.is_directory:
                raise ModelError(errno.ENOTDIR)
            if other.is_directory and not node.is_directory:
                raise ModelError(errno.EISDIR)
            if other.entries:
                raise ModelError(errno.ENOTEMPTY)
            self._remove(destination, new_name)
        del source.entries[name]
        destination.entries[new_name] = number
        if node.is_directory:
            source.nlink -= 1
            destination.nlink += 1
        for touched in (source, destination):
            touched.mtime = touched.ctime = NOW
        node.ctime = NOW

    def _exchange(self, source: Node, name: bytes, destination: Node, new_name: bytes) -> None:
        one, two = source.entries[name], destination.entries[new_name]
        source.entries[name], destination.entries[new_name] = two, one
        for number, left, came in ((one, source, destination), (two, destination, source)):
            if self.nodes[number].is_directory:
                left.nlink -= 1
                came.nlink += 1
            self.nodes[number].ctime = NOW
        for touched in (source, destination):
            touched.mtime = touched.ctime = NOW

    def _remove(self, directory: Node, name: bytes) -> None:
        number = directory.entries.pop(name)
        node = self.nodes[number]
        directory.mtime = directory.ctime = NOW
        node.ctime = NOW
        if node.is_directory:
            directory.nlink -= 1
            node.nlink = 0
        else:
            node.nlink -= 1

    # Attributes

    def set_attributes(
        self,
        number: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
    ) -> None:
        """By a user who is not root: privileges go with chown and with a change of size."""
        node = self.node(number)
        if size is not None:
            if node.is_directory:
                raise ModelError(errno.EISDIR)
            if not stat.S_ISREG(node.mode):
                raise ModelError(errno.EINVAL)
            if size > limits.FILE_BYTES_MAX:
                raise ModelError(errno.EFBIG)
        if mode is not None:
            node.mode = stat.S_IFMT(node.mode) | mode
            access = node.xattrs.get(acl.ACCESS)
            if access is not None:
                node.xattrs[acl.ACCESS] = acl.encode(acl.with_mode(acl.decode(access), mode))
        elif stat.S_ISREG(node.mode) and (uid is not None or gid is not None or size is not None):
            node.mode &= ~stat.S_ISUID
            if node.mode & stat.S_IXGRP:
                node.mode &= ~stat.S_ISGID
        node.uid = node.uid if uid is None else uid
        node.gid = node.gid if gid is None else gid
        if size is not None:
            self._resize(node, size)
            node.mtime = NOW
        node.atime = node.atime if atime is None else atime
        node.mtime = node.mtime if mtime is None else mtime
        node.ctime = NOW

    def _resize(self, node: Node, size: int) -> None:
        node.frozen = None
        del node.data[size:]
        node.data.extend(bytes(size - len(node.data)))

    def set_xattr(self, number: int, name: bytes, value: bytes, gid: int | None = None) -> None:
        """By a user of group `gid`: a stranger's ACL takes the set-group-id bit away."""
        node = self.node(number)
        check_xattr_name(name)
        if len(value) > limits.XATTR_VALUE_BYTES_MAX:
            raise ModelError(errno.E2BIG)
        if name in ACLS:
            self._set_acl(node, name, value)
            if name == acl.ACCESS and gid not in (None, node.gid):
                node.mode &= ~stat.S_ISGID
        elif name == COMPRESSION:
            if value not in (b"auto", b"zstd", b"none"):
                raise ModelError(errno.EINVAL)
            node.is_raw = value == b"none"
            node.xattrs[name] = value
        elif name.startswith(b"user.ciaos."):
            raise ModelError(errno.EINVAL)
        else:
            node.xattrs[name] = value
        node.ctime = NOW

    def _set_acl(self, node: Node, name: bytes, value: bytes) -> None:
        if name == acl.DEFAULT and not node.is_directory:
            raise ModelError(errno.EACCES)
        try:
            entries = acl.decode(value) if value else []
        except FsError as error:
            raise ModelError(error.errno) from error
        if name == acl.ACCESS and entries:
            node.mode = acl.mode_of(entries, node.mode)
            if acl.is_minimal(entries):
                entries = []
        if entries:
            node.xattrs[name] = value
        else:
            node.xattrs.pop(name, None)

    def remove_xattr(self, number: int, name: bytes) -> None:
        node = self.node(number)
        check_xattr_name(name)
        if name not in node.xattrs:
            if name in ACLS:
                return
            raise ModelError(errno.ENODATA)
        del node.xattrs[name]
        if name == COMPRESSION:
            node.is_raw = False
        node.ctime = NOW

    # Files

    def open(self, number: int, *, truncate: bool = False) -> None:
        self.node(number)
        if truncate:
            self.set_attributes(number, size=0)
        self.opened[number] = self.opened.get(number, 0) + 1

    def release(self, number: int) -> None:
        self.opened[number] -= 1
        if not self.opened[number]:
            del self.opened[number]

    def write(self, number: int, offset: int, data: bytes) -> None:
        node = self.nodes[number]
        node.frozen = None
        if offset > len(node.data):
            node.data.extend(bytes(offset - len(node.data)))
        node.data[offset : offset + len(data)] = data

    def forget(self, number: int) -> None:
        """The kernel has no reference to it any more: without names it is gone."""
        if number in self.nodes and self.nodes[number].nlink == 0 and number not in self.opened:
            del self.nodes[number]

    # Looking

    def node(self, number: int) -> Node:
        node = self.nodes.get(number)
        if node is None:
            raise ModelError(errno.ENOENT)
        return node

    def directory(self, number: int) -> Node:
        node = self.nodes.get(number)
        if node is None or node.nlink == 0:
            raise ModelError(errno.ENOENT)
        if not node.is_directory:
            raise ModelError(errno.ENOTDIR)
        return node

    def _named(self, directory: Node, name: bytes) -> Node:
        number = directory.entries.get(name)
        if number is None:
            raise ModelError(errno.ENOENT)
        return self.nodes[number]

    def paths(self) -> Iterator[tuple[bytes, int]]:
        """Every path and the node it leads to, the root as b"", in order."""
        waiting = [(b"", ROOT)]
        while waiting:
            path, number = waiting.pop()
            yield path, number
            entries = self.nodes[number].entries
            waiting += [(path + b"/" + name, entries[name]) for name in sorted(entries, reverse=True)]

    def is_below(self, number: int, ancestor: int) -> bool:
        """Whether directory `number` is `ancestor` or lies somewhere in it."""
        waiting = [ancestor]
        while waiting:
            at = waiting.pop()
            if at == number:
                return True
            entries = self.nodes[at].entries.values()
            waiting += [below for below in entries if self.nodes[below].is_directory]
        return False

    def settle(self, look: Callable[[int], tuple[int, int, int]], start: int, end: int) -> None:
        """Replace each NOW by what `look` says (atime, mtime, ctime), which must lie in `[start, end]`."""
        for number, node in self.nodes.items():
            if NOW in (node.atime, node.mtime, node.ctime):
                times = look(number)
                for name, time in zip(("atime", "mtime", "ctime"), times, strict=True):
                    if getattr(node, name) == NOW:
                        assert start <= time <= end, f"{name} of node {number} is not from now"
                        setattr(node, name, time)


def check_name(name: bytes) -> None:
    if len(name) > limits.NAME_BYTES_MAX:
        raise ModelError(errno.ENAMETOOLONG)


def check_xattr_name(name: bytes) -> None:
    if not name.startswith((b"user.", b"trusted.", b"security.")) and name not in ACLS:
        raise ModelError(errno.EOPNOTSUPP)
    if len(name) > limits.XATTR_NAME_BYTES_MAX:
        raise ModelError(errno.ERANGE)
