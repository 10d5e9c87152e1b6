"""Whole directory trees as values, to be compared with each other."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Node:
    """What a test compares of one inode. `same_as` is the first path, in order, that names the same inode."""

    kind: str
    mode: int
    links: int
    owner: tuple[int, int]
    size: int
    content: str
    same_as: bytes
    xattrs: dict[str, bytes] = field(default_factory=dict)
    device: int = 0
    mtime_ns: int = 0


def read_tree(root: bytes | str | os.PathLike[str], *, times: bool = False) -> dict[bytes, Node]:
    """Every path below *root*, relative to it. Times are compared only where the caller set them."""
    top = os.fsencode(root)
    tree: dict[bytes, Node] = {}
    first: dict[int, bytes] = {}
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in sorted(os.listdir(os.path.join(top, directory))):
            path = os.path.join(directory, name)
            facts = os.lstat(os.path.join(top, path))
            tree[path] = _read_node(
                os.path.join(top, path), facts, first.setdefault(facts.st_ino, path), times
            )
            if stat.S_ISDIR(facts.st_mode):
                pending.append(path)
    return tree


def _read_node(path: bytes, facts: os.stat_result, same_as: bytes, times: bool) -> Node:
    kind = stat.filemode(facts.st_mode)[0]
    content = ""
    if kind == "-":
        content = hash_file(path)
    elif kind == "l":
        content = os.readlink(path).hex()
    return Node(
        kind=kind,
        mode=stat.S_IMODE(facts.st_mode),
        links=facts.st_nlink,
        owner=(facts.st_uid, facts.st_gid),
        size=0 if kind == "d" else facts.st_size,
        content=content,
        same_as=same_as,
        xattrs=read_xattrs(path),
        device=facts.st_rdev if kind in "bc" else 0,
        mtime_ns=facts.st_mtime_ns if times and kind != "d" else 0,
    )


def read_xattrs(path: bytes) -> dict[str, bytes]:
    """The extended attributes a test may have set."""
    names = os.listxattr(path, follow_symlinks=False)
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(names)
        if name.startswith(("user.", "trusted."))
    }


def hash_file(path: bytes | str) -> str:
    """A digest of the content, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def differences(left: dict[bytes, Node], right: dict[bytes, Node]) -> list[str]:
    """One sentence for each path that is not the same in both."""
    found = [f"only left: {path!r}" for path in left.keys() - right.keys()]
    found += [f"only right: {path!r}" for path in right.keys() - left.keys()]
    found += [
        f"{path!r}:\n  left  {left[path]}\n  right {right[path]}"
        for path in left.keys() & right.keys()
        if left[path] != right[path]
    ]
    return sorted(found)
