"""What can be seen of a file system through its facade, in the form the model has it."""

from __future__ import annotations

import stat
from collections.abc import Sequence

from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO, Inode
from tests.support.builders import content
from tests.support.model_tree import Leaf, Tree


def times_of(inode: Inode) -> tuple[int, int, int]:
    return inode.atime_ns, inode.mtime_ns, inode.ctime_ns


def list_directory(filesystem: FileSystem, ino: int) -> dict[bytes, int]:
    """All names, in small pieces; each exactly once."""
    found: dict[bytes, int] = {}
    cookie = 0
    while part := filesystem.list_directory(ino, cookie, 3):
        for _, name, child, *_ in part:
            assert name not in found
            found[name] = child
        cookie = part[-1][0]
    return found


async def read_tree(filesystem: FileSystem) -> tuple[Tree, dict[bytes, int]]:
    """Everything that can be seen, and the inode number of each path."""
    tree: Tree = {}
    inodes: dict[bytes, int] = {}
    firsts: dict[int, bytes] = {}
    waiting = [(b"", ROOT_INO)]
    while waiting:
        path, ino = waiting.pop()
        inode = filesystem.getattr(ino)
        is_file = stat.S_ISREG(inode.mode)
        xattrs = sorted((name, filesystem.getxattr(ino, name) or b"") for name in filesystem.listxattr(ino))
        tree[path] = Leaf(
            inode.mode, inode.uid, inode.gid, inode.nlink, inode.rdev, inode.size, *times_of(inode), inode.target,
            tuple(xattrs), await content(filesystem, ino) if is_file else b"", firsts.setdefault(ino, path),
        )  # fmt: skip
        inodes[path] = ino
        if stat.S_ISDIR(inode.mode):
            entries = list_directory(filesystem, ino)
            waiting += [(path + b"/" + name, entries[name]) for name in sorted(entries, reverse=True)]
    return tree, inodes


def describe(found: Tree, allowed: Sequence[Tree]) -> str:
    """How the tree that was found differs from each that would have been right, in a few lines."""
    lines = [f"After the crash the tree is none of the {len(allowed)} that it may be:"]
    for tree in allowed[-4:]:
        paths = sorted(path for path in {*found, *tree} if found.get(path) != tree.get(path))
        lines.append(f"  {len(paths)} paths differ: {paths[:3]}")
        for path in paths[:2]:
            for title, leaf in (("found", found.get(path)), ("expected", tree.get(path))):
                short = None if leaf is None else leaf._replace(content=b"%d bytes" % len(leaf.content))
                lines.append(f"    {title} {short}")
    return "\n".join(lines)
