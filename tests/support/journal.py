"""A writer that keeps a journal of what it did and what was synced, and the check of what a crash left of it.

Run as `python -m tests.support.journal DIRECTORY JOURNAL SEED`, it changes the tree in DIRECTORY, one
operation after the other, until a call fails because the file system is gone. Operations are drawn from the
seed and the state of the tree, so that the checker draws the same ones. The journal has a line for each
operation that begins (`begin N`) and one for each fsync that returned (`synced N`: everything up to
operation N is promised).

Every operation changes the tree at one instant, as the daemon sees it: a replacement by its rename, an
append or overwrite by the one request that closing the file sends. So a crash leaves the tree as it was
after some operation, not before the last one that was synced.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".temporary"
FILES_MAX = 40
PIECE_BYTES_MAX = 500_000
"""Less than the largest FUSE write, so that no operation is sent in two requests."""

Tree = dict[str, bytes | None]
"""Contents by path relative to the directory; None for a directory."""

Operation = tuple[str, str, bytes | int | str]


def read_tree(directory: Path) -> Tree:
    """The tree without what a replacement had not renamed yet."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
        if not path.name.startswith(TEMPORARY)
    }


def operations(tree: Tree, seed: int) -> Iterator[Operation]:
    """Random operations that are legal in *tree*; the caller applies each to *tree* before it asks for the next."""
    dice = random.Random(seed)
    while True:
        files = sorted(path for path, content in tree.items() if content is not None)
        folders = ["", *sorted(f"{path}/" for path, content in tree.items() if content is None)]
        name = f"{dice.choice(folders)}file{dice.randrange(1000)}"
        if len(files) < 3 or (len(files) < FILES_MAX and dice.random() < 0.2):
            yield "replace", name, _data(dice)
            continue
        path = dice.choice(files)
        size = len(tree[path] or b"")
        match dice.choices(
            ("replace", "append", "overwrite", "truncate", "rename", "unlink", "mkdir", "fsync"),
            (20, 30, 10, 5, 15, 5 if len(files) < FILES_MAX else 20, 1 if len(folders) < 6 else 0, 8),
        )[0]:
            case "replace":
                yield "replace", path, _data(dice)
            case "append":
                yield "append", path, dice.randbytes(1 + dice.randrange(300))
            case "overwrite" if size > 1:
                start = dice.randrange(size - 1)
                length = dice.randrange(1, min(size - start, PIECE_BYTES_MAX))
                yield "overwrite", path, start.to_bytes(8, "big") + dice.randbytes(length)
            case "truncate":
                yield "truncate", path, dice.randrange(size + 1000)
            case "rename" if tree.get(name, b"") is not None:
                yield "rename", path, name
            case "unlink":
                yield "unlink", path, 0
            case "mkdir":
                yield "mkdir", f"folder{dice.randrange(10**6)}", 0
            case "fsync":
                yield "fsync", path, 0


def _data(dice: random.Random) -> bytes:
    length = dice.choice((0, 50, 3000, 20_000, 200_000, PIECE_BYTES_MAX))
    return dice.randbytes(dice.randrange(length + 1))


def apply(tree: Tree, operation: Operation) -> None:
    """Change the model as the operation changes the file system."""
    kind, path, value = operation
    content = tree.get(path) or b""
    match kind, value:
        case "replace", bytes():
            tree[path] = value
        case "append", bytes():
            tree[path] = content + value
        case "overwrite", bytes():
            start = int.from_bytes(value[:8], "big")
            tree[path] = content[:start] + value[8:] + content[start + len(value) - 8 :]
        case "truncate", int():
            tree[path] = content[:value].ljust(value, b"\0")
        case "rename", str():
            tree[value] = tree.pop(path)
        case "unlink", _:
            del tree[path]
        case "mkdir", _:
            tree[path] = None


def perform(directory: Path, operation: Operation) -> None:
    """Change the file system."""
    kind, name, value = operation
    path = directory / name
    match kind, value:
        case "replace", bytes():
            temporary = path.with_name(f"{TEMPORARY}.{path.name}")
            temporary.write_bytes(value)
            temporary.rename(path)
        case "append", bytes():
            with path.open("ab", buffering=0) as file:
                file.write(value)
        case "overwrite", bytes():
            with path.open("r+b", buffering=0) as file:
                file.seek(int.from_bytes(value[:8], "big"))
                file.write(value[8:])
        case "truncate", int():
            os.truncate(path, value)
        case "rename", str():
            path.rename(directory / value)
        case "unlink", _:
            path.unlink()
        case "mkdir", _:
            path.mkdir()
        case "fsync", _:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def write_on(directory: Path, journal: Path, seed: int) -> None:
    """Carry out operations and note them, until one fails."""
    tree = read_tree(directory)
    notes = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    try:
        for number, operation in enumerate(operations(tree, seed), 1):
            os.write(notes, b"begin %d\n" % number)
            perform(directory, operation)
            if operation[0] == "fsync":
                os.write(notes, b"synced %d\n" % number)
            apply(tree, operation)
    except OSError as error:
        os.write(notes, b"ended %s\n" % str(error).encode())
    finally:
        os.close(notes)


def check(directory: Path, journal: Path, seed: int, before: Tree) -> tuple[int, int, int]:
    """Find the moment the recovered tree shows.

    Returns (last synced, the moment, last begun) as numbers of operations; AssertionError when the tree is none of
    the states between the first and the last of them.
    """
    notes = [line.split() for line in journal.read_text().splitlines()]
    synced = max((int(words[1]) for words in notes if words[0] == "synced"), default=0)
    begun = max((int(words[1]) for words in notes if words[0] == "begin"), default=0)
    actual = read_tree(directory)
    tree = dict(before)
    moment = None
    nearest: list[str] | None = None
    for number, operation in enumerate(operations(tree, seed), 1):
        if number > synced:  # `tree` is what the operations before this one left
            wrong = _wrong(tree, actual)
            if not wrong:
                moment = number - 1
            elif nearest is None or len(wrong) < len(nearest):
                nearest = [f"nearest to the state after operation {number - 1}:", *wrong]
        if number > begun + 1:
            break
        apply(tree, operation)
    assert moment is not None, f"seed {seed}: no state from {synced} to {begun} is there: {nearest}"
    return synced, moment, begun


def _wrong(expected: Tree, actual: Tree) -> list[str]:
    return [
        f"{path}: expected {_length(expected, path)}, found {_length(actual, path)}"
        for path in sorted(expected.keys() | actual.keys())
        if path not in expected or path not in actual or expected[path] != actual[path]
    ]


def _length(tree: Tree, path: str) -> str:
    if path not in tree:
        return "nothing"
    content = tree[path]
    return "a directory" if content is None else f"{len(content)} bytes"


if __name__ == "__main__":
    write_on(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
