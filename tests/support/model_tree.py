"""A tree of the model as a value: what can be seen by walking it, to be compared, kept, and made a model again."""

from __future__ import annotations

from typing import NamedTuple

from tests.support.model_fs import COMPRESSION, ROOT, ModelFs, Node


class Leaf(NamedTuple):
    """What can be seen of one inode: `first` is the first path, in order, that leads to it."""

    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    size: int
    atime: int
    mtime: int
    ctime: int
    target: bytes | None
    xattrs: tuple[tuple[bytes, bytes], ...]
    content: bytes
    first: bytes


Tree = dict[bytes, Leaf]


def tree_of(model: ModelFs) -> Tree:
    """All that can be seen by walking the tree; shares no mutable state with the model."""
    tree: Tree = {}
    firsts: dict[int, bytes] = {}
    for path, number in model.paths():
        first = firsts.setdefault(number, path)
        tree[path] = leaf_of(model.nodes[number], first)
    return tree


def leaf_of(node: Node, first: bytes) -> Leaf:
    return Leaf(
        node.mode,
        node.uid,
        node.gid,
        node.nlink,
        node.rdev,
        node.size,
        node.atime,
        node.mtime,
        node.ctime,
        node.target,
        tuple(sorted(node.xattrs.items())),
        node.content,
        first,
    )


def from_tree(tree: Tree) -> tuple[ModelFs, dict[bytes, int]]:
    """A model that looks like `tree`, and the number of each path: how a run goes on after a crash."""
    root = tree[b""]
    model = ModelFs(root.uid, root.gid)
    numbers: dict[bytes, int] = {b"": ROOT}
    for path, leaf in sorted(tree.items(), key=lambda item: item[0].count(b"/")):
        number = numbers.get(leaf.first)
        if number is None:
            number, model.next_number = model.next_number, model.next_number + 1
        numbers[path] = numbers[leaf.first] = number
        if leaf.first == path or number not in model.nodes:
            model.nodes[number] = Node(
                leaf.mode,
                leaf.uid,
                leaf.gid,
                leaf.nlink,
                leaf.rdev,
                leaf.atime,
                leaf.mtime,
                leaf.ctime,
                bytearray(leaf.content),
                leaf.target,
                xattrs=dict(leaf.xattrs),
                is_raw=dict(leaf.xattrs).get(COMPRESSION) == b"none",
            )
        if path:
            parent, name = path.rsplit(b"/", 1)
            model.nodes[numbers[parent]].entries[name] = number
    return model, numbers
