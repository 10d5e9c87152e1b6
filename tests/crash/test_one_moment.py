"""Promise 2 with many writers at a time: after a crash the whole tree is one moment, and nothing in it is torn.

Each writer does things in an order that the tree shows: b is written after a, a name appears after its bytes. A crash
may show any prefix of that order, never a later thing without an earlier one.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import Store, complaints, files_of, put
from tests.support.power import Fate, PoweredDrives

WRITERS = 5
_NUMBER = struct.Struct("<Q")


def page(writer: int, turn: int, length: int) -> bytes:
    """Bytes that say which turn wrote them, all over."""
    head = _NUMBER.pack(turn)
    return head + random.Random(writer * 100_000 + turn).randbytes(length - len(head))


def turn_of(data: bytes, writer: int) -> int:
    """Which turn wrote these bytes; AssertionError when they are not exactly what it wrote."""
    turn: int = _NUMBER.unpack_from(data)[0]
    assert data == page(writer, turn, len(data)), f"torn: begins as turn {turn} of writer {writer}"
    return turn


@dataclass
class Work:
    """What the writers have done and what has been promised to them."""

    filesystem: FileSystem
    done: dict[int, int] = field(default_factory=dict)
    promised: dict[int, int] = field(default_factory=dict)

    async def write(self, writer: int) -> None:
        dice = random.Random(writer)
        for turn in range(1, 100_000):
            length = dice.choice([100, 3_000, 150_000])
            await put(self.filesystem, b"%d-a" % writer, page(writer, turn, length))
            await put(self.filesystem, b"%d-b" % writer, page(writer, turn, 200))
            await put(self.filesystem, b"%d-new" % writer, page(writer, turn, length))
            await self.filesystem.rename(ROOT_INO, b"%d-new" % writer, ROOT_INO, b"%d-c" % writer, 0)
            self.done[writer] = turn
            if dice.random() < 0.2:
                await self.filesystem.sync()
                self.promised[writer] = turn
            await trio.sleep(dice.random() / 500)


def check(files: dict[bytes, bytes], promised: dict[int, int], done: dict[int, int]) -> None:
    for writer in range(WRITERS):
        seen = []
        for name in (b"a", b"b", b"c"):
            data = files.get(b"%d-%s" % (writer, name))
            # Emptied by O_TRUNC and not written yet is a moment too, but only of the file that is next.
            seen.append(turn_of(data, writer) if data else None)
        a, b, c = seen
        new = files.get(b"%d-new" % writer)
        low, high = promised.get(writer, 0), done.get(writer, 0) + 1
        if a is None:
            assert (b or 0) == (c or 0)
        else:
            assert low <= a <= high
            assert b is None or b in (a, a - 1)
            assert c is None or c in (a, a - 1)
            assert c != a or b == a
        assert c is not None or low == 0, "a file that was renamed over is gone or empty"
        if new:
            assert turn_of(new, writer) == a == b


@pytest.mark.parametrize("crash", ["kill", *Fate])
@trio_test
async def test_writers_are_cut_off_at_one_moment(tmp_path: Path, crash: str | Fate) -> None:
    dice = random.Random(1)
    store = Store.make(tmp_path / "store", data_count=2, parity_count=1, spare=1)
    power = PoweredDrives()
    left: list[tuple[Store, dict[int, int], dict[int, int]]] = []
    struck = 0

    def strike(what: str, where: str) -> None:
        nonlocal struck
        struck += 1
        if struck % 60 == 1:
            target = tmp_path / f"left{len(left)}"
            promised = dict(work.promised)
            copy = store.copy(target) if isinstance(crash, str) else power.cut(store, target, crash, dice)
            left.append((copy, promised, dict(work.done)))

    with trio.fail_after(60):
        async with store.open(opener=power) as filesystem:
            work = Work(filesystem)
            power.before = strike
            async with trio.open_nursery() as nursery:
                for writer in range(WRITERS):
                    nursery.start_soon(work.write, writer)
                while len(left) < 5:  # noqa: ASYNC110 - struck in a thread
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            power.before = lambda what, where: None
    for copy, promised, done in left:
        if isinstance(crash, Fate) and dice.random() < 0.4:
            copy.lose_database()
        check(await files_of(copy), promised, done)
        assert complaints(copy.database) == []
