"""Whatever is done to the tables, the changesets alone make the same tables elsewhere, and the tables stay
sound.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciaosfs.base.types import ShardPlace
from ciaosfs.meta import integrity
from ciaosfs.meta.inodes import FLAG_XATTRS, ROOT_INO
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.volumes import DriveRow, DriveState
from tests.unit.meta.support import (
    STORE_ID,
    VOLUME_ID,
    add_directory,
    add_file,
    commit,
    dump,
    fresh,
    give_token,
    give_user,
    make_inode,
    make_stripe,
    raw,
    set_size,
    zstd,
)

FILE_BYTES = 200


class Tree:
    """Random changes to a small tree, each legal, as the file system would make them."""

    def __init__(self, meta: Metadata, dice: random.Random) -> None:
        self.meta = meta
        self.dice = dice
        self.names: dict[tuple[int, bytes], int] = {}
        self.files: list[int] = []
        self.directories = [ROOT_INO]
        self.orphans: list[int] = []
        self.stripes: list[int] = []
        self.repaired = 0

    def step(self) -> None:
        changes: list[Callable[[], None]] = [
            self.create, self.create, self.make_directory, self.unlink, self.remove_directory, self.link, self.move,
            self.replace, self.touch, self.write, self.write, self.truncate, self.purge, self.collect, self.lose_shard,
            self.put_trim, self.end_trim, self.repair, self.set_xattr, self.remove_xattr, self.note_volume, self.put_drive,
            self.give_token, self.derive_token, self.revoke_token, self.remove_user,
        ]  # fmt: skip
        self.dice.choice(changes)()

    def _new_name(self) -> tuple[int, bytes] | None:
        key = (self.dice.choice(self.directories), b"n%d" % self.dice.randrange(12))
        return None if key in self.names else key

    def _pick_file(self) -> int | None:
        return self.dice.choice(self.files) if self.files else None

    def create(self) -> None:
        if key := self._new_name():
            ino = add_file(self.meta, key[1], FILE_BYTES, key[0])
            self.names[key] = ino
            self.files.append(ino)

    def make_directory(self) -> None:
        if key := self._new_name():
            ino = add_directory(self.meta, key[1], key[0])
            self.names[key] = ino
            self.directories.append(ino)

    def _file_name(self) -> tuple[int, bytes] | None:
        keys = [key for key, ino in self.names.items() if ino in self.files]
        return self.dice.choice(keys) if keys else None

    def unlink(self) -> None:
        if key := self._file_name():
            self._drop(key)

    def _drop(self, key: tuple[int, bytes]) -> None:
        self.meta.dentries.remove(*key)
        self._lose_link(self.names.pop(key))

    def _lose_link(self, ino: int) -> None:
        self.meta.inodes.touch(ino, 1, 2, -1)
        if ino not in self.names.values():
            self.files.remove(ino)
            self.orphans.append(ino)

    def remove_directory(self) -> None:
        for ino in self.directories[1:]:
            if not any(parent == ino for parent, _ in self.names):
                key = next(key for key, target in self.names.items() if target == ino)
                self.meta.dentries.remove(*key)
                self.meta.inodes.touch(key[0], 3, 3, -1)
                self.meta.inodes.touch(ino, 3, 3, -2)
                del self.names[key]
                self.directories.remove(ino)
                self.orphans.append(ino)
                return

    def link(self) -> None:
        ino, key = self._pick_file(), self._new_name()
        if ino is not None and key is not None:
            self.meta.dentries.insert(*key, ino)
            self.meta.inodes.touch(ino, 5, 5, 1)
            self.names[key] = ino

    def move(self) -> None:
        old, new = self._file_name(), self._new_name()
        if old is not None and new is not None:
            ino = self.names.pop(old)
            self.meta.dentries.insert(*new, ino)
            self.meta.dentries.remove(*old)
            self.names[new] = ino

    def replace(self) -> None:
        """As write-to-temporary-and-rename does."""
        old, new = self._file_name(), self._file_name()
        if old is not None and new is not None and self.names[old] != self.names[new]:
            ino, replaced = self.names.pop(old), self.names[new]
            self.meta.dentries.repoint(*new, ino)
            self.meta.dentries.remove(*old)
            self.names[new] = ino
            self._lose_link(replaced)

    def touch(self) -> None:
        if (ino := self._pick_file()) is not None:
            inode = self.meta.inodes.load(ino)
            assert inode is not None
            self.meta.inodes.update(
                inode._replace(uid=self.dice.randrange(3), atime_ns=self.dice.randrange(99))
            )
            set_size(self.meta, ino, FILE_BYTES)
            self.meta.inodes.touch(ino, self.dice.randrange(99), 7)

    def write(self) -> None:
        stripe_id = self.meta.stripes.highest_id() + 1
        self.meta.stripes.insert(make_stripe(stripe_id))
        self.stripes.append(stripe_id)
        place = 0
        for _ in range(self.dice.randrange(1, 4)):
            ino = self._pick_file()
            if ino is None:
                return
            start = self.dice.randrange(FILE_BYTES)
            length = self.dice.randrange(1, FILE_BYTES - start + 1)
            make = self.dice.choice((raw, zstd))
            self.meta.extents.replace(ino, start, start + length, [make(start, length, stripe_id, place)])
            place += length

    def truncate(self) -> None:
        if (ino := self._pick_file()) is not None:
            self.meta.extents.replace(ino, self.dice.randrange(FILE_BYTES), 1 << 63, [])

    def purge(self) -> None:
        if self.orphans and self.meta.extents.purge_step(self.orphans[0], 2):
            self.meta.trims.delete(self.orphans[0])
            self.meta.inodes.delete(self.orphans.pop(0))

    def put_trim(self) -> None:
        if (ino := self._pick_file()) is not None:
            self.meta.trims.put(ino, FILE_BYTES + self.dice.randrange(3))

    def end_trim(self) -> None:
        if (ino := self._pick_file()) is not None:
            self.meta.trims.delete(ino)

    def collect(self) -> None:
        for stripe_id in self.meta.stripes.dead(2):
            self.meta.stripes.delete(stripe_id)
            self.stripes.remove(stripe_id)

    def lose_shard(self) -> None:
        if self.stripes:
            record = self.meta.stripes.load(self.dice.choice(self.stripes))
            if record is not None and record.places:
                self.meta.stripes.forget_shard(record.stripe_id, self.dice.choice(record.places))

    def repair(self) -> None:
        if self.stripes:
            index = self.dice.randrange(6)
            self.repaired += 1
            place = ShardPlace(index, VOLUME_ID + index, (1 << 30) + self.repaired * 4096)
            self.meta.stripes.put_shard(self.dice.choice(self.stripes), place)

    def set_xattr(self) -> None:
        if (ino := self._pick_file()) is not None:
            self.meta.xattrs.set(
                ino, b"user.%d" % self.dice.randrange(3), self.dice.randbytes(self.dice.randrange(4))
            )
            inode = self.meta.inodes.load(ino)
            assert inode is not None
            self.meta.inodes.update(inode._replace(flags=inode.flags | FLAG_XATTRS))

    def remove_xattr(self) -> None:
        if (ino := self._pick_file()) is not None:
            self.meta.xattrs.remove(ino, b"user.%d" % self.dice.randrange(3))

    def note_volume(self) -> None:
        drive = self.dice.randrange(9)
        self.meta.volumes.note(VOLUME_ID + drive, drive, 1, self.dice.choice(("open", "sealed")))

    def put_drive(self) -> None:
        changed = self.dice.randrange(9)
        known = {drive.number for drive in self.meta.volumes.drives()}
        for number in {*range(9)} - known | {changed}:
            drive = DriveRow(number, self.dice.randbytes(16), DriveState.ACTIVE, 1)
            self.meta.volumes.put_drive(drive)

    def give_token(self) -> None:
        user = self.meta.users.named("ann")
        user_id = give_user(self.meta) if user is None else user.user_id
        give_token(self.meta, user_id, expires_ns=50)

    def derive_token(self) -> None:
        tokens = [row for row in self.meta.tokens.after(0, 99) if not row.revoked_ns]
        if tokens:
            above = self.dice.choice(tokens)
            give_token(self.meta, above.user_id, above.token_id, above.prefix + b"/x", 1, expires_ns=40)

    def revoke_token(self) -> None:
        if tokens := self.meta.tokens.after(0, 99):
            revoked = self.meta.tokens.with_below(self.dice.choice(tokens).token_id)
            self.meta.tokens.revoke(revoked, 10 + self.dice.randrange(40))

    def remove_user(self) -> None:
        user = self.meta.users.named("ann")
        if user is not None and self.dice.random() < 0.2:
            for row in self.meta.tokens.of_user(user.user_id):
                self.meta.tokens.delete(row.token_id)
            self.meta.users.delete(user.user_id)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32), st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_changesets_carry_everything(
    tmp_path_factory: pytest.TempPathFactory, seed: int, commits: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("changesets")
    meta = fresh(directory / "one")
    copy = Metadata.create_fresh(directory / "two", STORE_ID)
    tree = Tree(meta, random.Random(seed))
    for steps in commits:
        for _ in range(steps):
            tree.step()
            if tree.dice.random() < 0.05:
                meta.take_changeset()  # the append failed, and the transaction went on
        changeset = commit(meta).changeset
        copy.apply(changeset)
        assert copy.take_changeset() == b"", "what was applied was recorded"
        copy.commit()
        assert dump(copy) == dump(meta)
    with copy.reader() as reader:
        assert list(integrity.check(reader)) == []
    assert copy.counters.values == meta.counters.values
    assert copy.trims.count == meta.trims.count
    # The copy goes on as the original would.
    name = b"afterwards"
    assert add_file(copy, name) == add_file(meta, name)
    assert commit(copy).changeset == commit(meta).changeset
    assert dump(copy) == dump(meta)
    meta.close()
    copy.close()


def test_an_insert_and_a_delete_in_one_transaction_leave_no_trace(meta: Metadata) -> None:
    commit(meta)
    meta.inodes.insert(make_inode(99))
    meta.inodes.delete(99)
    meta.dentries.insert(ROOT_INO, b"n", 99)
    meta.dentries.remove(ROOT_INO, b"n")
    assert meta.take_changeset() == b""
