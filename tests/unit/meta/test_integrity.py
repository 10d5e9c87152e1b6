"""Each invariant, broken alone: one sentence, and no other."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from ciaosfs.base.types import Codec
from ciaosfs.meta import integrity
from ciaosfs.meta.counters import Counter
from ciaosfs.meta.dentries import cookie_of
from ciaosfs.meta.images import ImageRow
from ciaosfs.meta.inodes import FLAG_ACL_ACCESS, FLAG_XATTRS, ROOT_INO
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.volumes import DriveRow, DriveState
from tests.unit.meta.breaking_access import (
    child_beyond_the_prefix,
    child_of_later,
    child_of_nobody,
    child_outlives,
    child_survives,
    child_with_more_scopes,
    impossible_token,
    impossible_user,
    token_beyond_the_folder,
    token_number_given_again,
    token_of_nobody,
    user_twice,
)
from tests.unit.meta.breaking_extents import (
    extent_between_the_file_and_its_trim,
    extent_beyond_the_file,
    extent_beyond_the_stripe,
    extent_in_no_stripe,
    extent_of_directory,
    extent_of_nobody,
    file_beyond_its_trim,
    impossible_extent,
    overlapping_extents,
    trim_of_directory,
    trim_of_nobody,
    wrong_allocated,
    wrong_live_bytes,
)
from tests.unit.meta.sound import Sound, loaded, set_flags, sound_tree
from tests.unit.meta.support import (
    VOLUME_ID,
    add_file,
    complaints,
    make_inode,
    make_stripe,
    raw,
    set_size,
)


@pytest.fixture
def sound(tmp_path: Path) -> Iterator[Sound]:
    with sound_tree(tmp_path / "m") as tree:
        yield tree


# The tree


def lose_root(s: Sound) -> None:
    s.sql("DELETE FROM dentries")
    s.sql("DELETE FROM inodes")
    s.sql("DELETE FROM extents")
    s.sql("DELETE FROM xattrs")
    s.sql("UPDATE stripes SET live_bytes = 0")
    s.meta.counters.values[Counter.FILES] = s.meta.counters.values[Counter.DIRECTORIES] = 0
    s.meta.counters.values[Counter.OTHERS] = s.meta.counters.values[Counter.ALLOCATED_BYTES] = 0


def lose_inode(s: Sound) -> None:
    s.meta.dentries.insert(s.inner, b"ghost", 4711)


def name_in_nowhere(s: Sound) -> None:
    s.meta.dentries.insert(4711, b"lost", s.file)
    s.meta.inodes.touch(s.file, 0, 0, 1)


def name_in_file(s: Sound) -> None:
    s.meta.dentries.insert(s.symlink, b"odd", s.file)
    s.meta.inodes.touch(s.file, 0, 0, 1)


def name_in_removed_directory(s: Sound) -> None:
    gone = s.meta.inodes.take_ino()
    s.meta.inodes.insert(make_inode(gone, stat.S_IFDIR, 0))
    s.meta.dentries.insert(gone, b"late", s.file)
    s.meta.inodes.touch(s.file, 0, 0, 1)


def name_twice(s: Sound) -> None:
    s.sql("INSERT INTO dentries SELECT parent, cookie + 1, name, ino FROM dentries WHERE name = ?", b"file")
    s.meta.inodes.touch(s.file, 0, 0, 1)


def too_many_links(s: Sound) -> None:
    s.meta.inodes.touch(s.file, 0, 0, 1)


def unreachable_file(s: Sound) -> None:
    s.meta.dentries.remove(ROOT_INO, b"file")


def wrong_subdirectories(s: Sound) -> None:
    s.meta.inodes.touch(s.directory, 0, 0, -1)


def directory_twice(s: Sound) -> None:
    s.meta.dentries.insert(s.directory, b"again", s.inner)
    s.meta.inodes.touch(s.directory, 0, 0, 1)


def directory_without_name(s: Sound) -> None:
    s.meta.dentries.remove(s.directory, b"inner")
    s.meta.inodes.touch(s.directory, 0, 0, -1)


def wrong_parent(s: Sound) -> None:
    s.meta.inodes.update(loaded(s.meta, s.inner)._replace(parent=ROOT_INO))


def circle(s: Sound) -> None:
    """`directory` is moved into `inner`, which is in it."""
    s.meta.dentries.remove(ROOT_INO, b"directory")
    s.meta.dentries.insert(s.inner, b"directory", s.directory)
    s.meta.inodes.touch(ROOT_INO, 0, 0, -1)
    s.meta.inodes.touch(s.inner, 0, 0, 1)
    s.meta.inodes.update(loaded(s.meta, s.directory)._replace(parent=s.inner))


# Inodes


def short_target(s: Sound) -> None:
    set_size(s.meta, s.symlink, 5)


def target_of_file(s: Sound) -> None:
    s.sql("UPDATE inodes SET target = ? WHERE ino = ?", b"x", s.file)


def attribute_of_nobody(s: Sound) -> None:
    s.meta.xattrs.set(4711, b"user.a", b"")


def attribute_unsaid(s: Sound) -> None:
    set_flags(s.meta, s.file, 0)


def acl_unsaid(s: Sound) -> None:
    s.meta.xattrs.set(s.file, b"system.posix_acl_default", b"")
    set_flags(s.meta, s.file, FLAG_XATTRS | FLAG_ACL_ACCESS)


# Stripes and counters


def impossible_stripe(s: Sound) -> None:
    s.sql("UPDATE stripes SET shard_bytes = 1 WHERE stripe = 2")


def shard_of_nothing(s: Sound) -> None:
    s.sql("INSERT INTO shards VALUES (4711, 0, ?, 4096)", VOLUME_ID)


def shard_outside(s: Sound) -> None:
    s.sql("UPDATE shards SET shard_index = 6 WHERE stripe = 2 AND shard_index = 5")


def wrong_missing(s: Sound) -> None:
    s.sql("UPDATE stripes SET missing = 1 WHERE stripe = 2")


def shard_in_no_volume(s: Sound) -> None:
    s.sql("UPDATE shards SET volume = 4711 WHERE stripe = 2 AND shard_index = 5")


def shard_in_dead_volume(s: Sound) -> None:
    s.meta.stripes.delete(2)
    s.meta.extents.replace(s.linked, 0, 100, [])
    s.meta.stripes.insert(make_stripe(3))
    s.sql("DELETE FROM shards WHERE stripe = 1 AND shard_index = 5")
    s.sql("UPDATE stripes SET missing = 1 WHERE stripe = 1")
    s.meta.volumes.note(VOLUME_ID + 5, 5, 1, "dead")


def shard_where_no_needle_begins(s: Sound) -> None:
    s.sql("UPDATE shards SET offset = offset + 1 WHERE stripe = 2 AND shard_index = 5")


def two_shards_on_a_drive(s: Sound) -> None:
    s.sql("UPDATE shards SET volume = ?, offset = 65536 WHERE stripe = 2 AND shard_index = 5", VOLUME_ID + 4)


def overlapping_needles(s: Sound) -> None:
    s.sql("UPDATE shards SET offset = 4096 + 64 WHERE stripe = 2 AND shard_index = 5")


def hidden_behind_a_long_needle(s: Sound) -> None:
    """The third needle overlaps the first, and not the second, which lies in the first."""
    s.sql("UPDATE stripes SET payload_bytes = 40000, shard_bytes = 10000 WHERE stripe = 1")
    s.meta.counters.add(Counter.PAYLOAD_BYTES, 40000 - 4096)
    s.sql("UPDATE shards SET offset = 65536 WHERE stripe = 2")
    s.meta.stripes.insert(make_stripe(3))
    s.sql("UPDATE shards SET offset = 65536 * 2 WHERE stripe = 3")
    s.meta.extents.replace(s.linked, 0, 100, [raw(0, 10, 2), raw(10, 10, 3)])
    assert complaints(s.meta) == []
    s.sql("UPDATE shards SET offset = 4096 + 8192 WHERE stripe = 3 AND shard_index = 5")


def odd_volume(s: Sound) -> None:
    s.meta.volumes.note(VOLUME_ID + 10, 0, 1, "ajar")


def volume_nowhere(s: Sound) -> None:
    every_drive(s)
    assert complaints(s.meta) == []
    s.meta.volumes.note(VOLUME_ID + 10, 17, 1, "sealed")


def odd_drive(s: Sound) -> None:
    every_drive(s)
    s.sql("UPDATE drives SET uuid = ? WHERE number = 3", b"short")


def drives_alike(s: Sound) -> None:
    every_drive(s)
    s.sql("UPDATE drives SET uuid = (SELECT uuid FROM drives WHERE number = 2) WHERE number = 5")


def every_drive(s: Sound) -> None:
    for number in range(6):
        s.meta.volumes.put_drive(DriveRow(number, bytes([number] * 16), DriveState.ACTIVE, 0))


def image_without_stripes(s: Sound) -> None:
    s.meta.images.keep(ImageRow(1, 0, 100, 200, 5, 0))


def images_share_stripes(s: Sound) -> None:
    s.meta.images.keep(ImageRow(0, 0, 100, 200, 0, 0))
    s.meta.images.keep(ImageRow(1, 0, 200, 300, 0, 0))


def image_of_the_future(s: Sound) -> None:
    s.meta.images.keep(ImageRow(17, 0, 100, 200, 0, 0))


def second_state(s: Sound) -> None:
    s.sql(
        "INSERT INTO state SELECT 2, store_id, name_seed, sequence, epoch, parent_id, time_ns, 0 FROM state"
    )


def no_name(s: Sound) -> None:
    s.sql("UPDATE dentries SET name = ?, cookie = ? WHERE name = ?", b"a/b", cookie(s, b"a/b"), b"file")


def dot_name(s: Sound) -> None:
    s.sql("UPDATE dentries SET name = ?, cookie = ? WHERE name = ?", b"..", cookie(s, b".."), b"file")


def misplaced_name(s: Sound) -> None:
    s.sql("UPDATE dentries SET name = ?, cookie = 4096 WHERE name = ?", b"elif", b"file")


def cookie(s: Sound, name: bytes) -> int:
    return cookie_of(name, s.meta.dentries.seed)


def root_below(s: Sound) -> None:
    s.sql("UPDATE inodes SET parent = ? WHERE ino = 1", s.inner)


def no_kind(s: Sound) -> None:
    s.sql("UPDATE inodes SET mode = ? WHERE ino = ?", 0o170644, s.symlink)
    s.sql("UPDATE inodes SET target = NULL WHERE ino = ?", s.symlink)


def sized_directory(s: Sound) -> None:
    set_size(s.meta, s.inner, 10)


def long_attribute(s: Sound) -> None:
    s.meta.xattrs.set(s.file, b"user.a", bytes(65537))


def long_block(s: Sound) -> None:
    s.sql("UPDATE extents SET skip = 131072 WHERE ino = ? AND codec = 1", s.file)


def wrong_counter(s: Sound) -> None:
    s.meta.counters.add(Counter.FILES, 1)


def number_given_again(s: Sound) -> None:
    s.meta.counters.values[Counter.NEXT_INO] = s.symlink


BROKEN: dict[Callable[[Sound], None], str] = {
    lose_root: "The root directory is missing.",
    lose_inode: "Name b'ghost' in directory {s.inner} stands for inode 4711, which does not exist.",
    name_in_nowhere: "Name b'lost' is in directory 4711, which does not exist.",
    name_in_file: "Name b'odd' is in inode {s.symlink}, which is no directory.",
    name_in_removed_directory: "Name b'late' is in directory 7, which was removed.",
    name_twice: "Name b'file' is 2 times in directory 1.",
    too_many_links: "Inode {s.file} counts 2 links and has 1 names.",
    unreachable_file: "Inode {s.file} counts 1 links and has 0 names.",
    wrong_subdirectories: "Directory {s.directory} counts 2 links and has 1 subdirectories.",
    directory_twice: "Directory {s.inner} has 2 names.",
    directory_without_name: "Directory {s.inner} has 0 names.",
    wrong_parent: "Directory {s.inner} takes 1 for its parent and is in {s.directory}.",
    short_target: "Inode {s.symlink} is a symbolic link of 5 bytes and has a target of 4.",
    target_of_file: "Inode {s.file} has a target and is no symbolic link.",
    attribute_of_nobody: "Attribute b'user.a' belongs to inode 4711, which does not exist.",
    attribute_unsaid: "Inode {s.file} has attribute b'user.a' and its flags do not say so.",
    acl_unsaid: "Inode {s.file} has attribute b'system.posix_acl_default' and its flags do not say so.",
    extent_of_nobody: "The extent at 0 belongs to inode 4711, which does not exist.",
    extent_of_directory: "The extent at 0 belongs to inode {s.directory}, which is no file.",
    impossible_extent: "The extent of inode {s.linked} at 0 has impossible numbers.",
    overlapping_extents: "The extent of inode {s.file} at 0 overlaps the next.",
    extent_beyond_the_file: "The extent of inode {s.file} at 50 reaches beyond the end of the file, 99.",
    extent_between_the_file_and_its_trim: "The extent of inode {s.file} at 50 reaches beyond the end of the file, 98.",
    trim_of_nobody: "Inode 4711, of which extents wait to be deleted, does not exist.",
    trim_of_directory: "Inode {s.directory}, of which extents wait to be deleted, is no file.",
    file_beyond_its_trim: "Inode {s.file} is 100 bytes long, and its extents from 99 on wait to be deleted.",
    extent_in_no_stripe: "The extent of inode {s.linked} at 0 lies in stripe 4711, which does not exist.",
    extent_beyond_the_stripe: "The extent of inode {s.linked} at 0 reaches beyond the end of stripe 2.",
    wrong_allocated: "Inode {s.file} counts 91 allocated bytes and its extents have 90.",
    wrong_live_bytes: "Stripe 2 counts 11 live bytes and its extents have 10.",
    impossible_stripe: "Stripe 2 has impossible numbers.",
    shard_of_nothing: "Shard 0 belongs to stripe 4711, which does not exist.",
    shard_outside: "Stripe 2 has a shard 6, outside its counts.",
    wrong_missing: "Stripe 2 counts 1 missing shards and misses 0.",
    shard_in_no_volume: "Shard 5 of stripe 2 lies in volume 0000000000001267, which does not exist.",
    shard_in_dead_volume: f"Shard 5 of stripe 3 lies in volume {VOLUME_ID + 5:016x}, which is dead.",
    shard_where_no_needle_begins: "Shard 5 of stripe 2 begins at byte 8193 of a volume, where no needle can begin.",
    two_shards_on_a_drive: "Stripe 2 has 2 shards on drive 4.",
    overlapping_needles: f"Shard 5 of stripe 2 overlaps shard 5 of stripe 1 in volume {VOLUME_ID + 5:016x}.",
    hidden_behind_a_long_needle: f"Shard 5 of stripe 3 overlaps shard 5 of stripe 1 in volume {VOLUME_ID + 5:016x}.",
    impossible_user: "User {s.user} has an impossible name, folder or owner.",
    user_twice: "Users {s.user} and 2 have one name.",
    token_of_nobody: "Token {s.child} belongs to user 4711, which does not exist.",
    impossible_token: "Token {s.child} has an impossible hash, name, scope, prefix or time.",
    token_beyond_the_folder: "Token 3 is good for more than the folder of user {s.user}.",
    child_of_nobody: "Token 4712 was derived from token 4711, which does not exist before it.",
    child_of_later: "Token {s.token} was derived from token 3, which does not exist before it.",
    child_with_more_scopes: "Token {s.child} allows more than token {s.token}, from which it was derived.",
    child_beyond_the_prefix: "Token {s.child} allows more than token {s.token}, from which it was derived.",
    child_outlives: "Token {s.child} allows more than token {s.token}, from which it was derived.",
    child_survives: "Token {s.child} was not revoked, and token {s.token}, from which it was derived, was.",
    token_number_given_again: "The next token would be {s.child} and token {s.child} exists.",
    odd_volume: f"Volume {VOLUME_ID + 10:016x} is of the unknown kind 1 or state 'ajar'.",
    volume_nowhere: f"Volume {VOLUME_ID + 10:016x} is on drive 17, which does not exist.",
    odd_drive: "Drive 3 has an impossible identity or state.",
    drives_alike: "Drives 2 and 5 have one identity.",
    image_without_stripes: "The image of commit 1 is of 5 bytes, and its stripes have 0.",
    images_share_stripes: "The images of commits 0 and 1 share stripes.",
    image_of_the_future: "There is an image of commit 17, and the database is at commit 2.",
    second_state: "The database does not say clearly which commit it is at: row 2 of its state, commit 1.",
    no_name: "Name b'a/b' in directory 1 cannot be a name.",
    dot_name: "Name b'..' in directory 1 cannot be a name.",
    misplaced_name: "Name b'elif' in directory 1 has the cookie 4096, which is not of its hash.",
    root_below: "The root directory takes {s.inner} for its parent.",
    no_kind: "Inode {s.symlink} is of the impossible kind 170644.",
    sized_directory: "Inode {s.inner} has impossible numbers.",
    long_attribute: "Attribute b'user.a' of inode {s.file} is longer than an attribute can be.",
    long_block: "The extent of inode {s.file} at 50 has impossible numbers.",
    wrong_counter: "The counter of files says 3 and there are 2.",
    number_given_again: "The next inode number would be {s.symlink} and inode {s.symlink} exists.",
}


@pytest.mark.parametrize("destroy", BROKEN, ids=lambda destroy: destroy.__name__)
def test_one_broken_invariant_is_one_sentence(sound: Sound, destroy: Callable[[Sound], None]) -> None:
    destroy(sound)
    assert complaints(sound.meta) == [BROKEN[destroy].format(s=sound)]


def test_a_circle_of_directories_is_not_reached(sound: Sound) -> None:
    circle(sound)
    assert sorted(complaints(sound.meta)) == [
        f"Directory {ino} cannot be reached from the root." for ino in (sound.directory, sound.inner)
    ]


def test_every_check_is_broken_by_a_test() -> None:
    """A check that nothing can trigger would be no check: compare the sentences without their numbers."""
    said = [*BROKEN.values(), "Directory 1 cannot be reached from the root."]
    for sentence, _ in integrity.CHECKS:
        if sentence.startswith("The counter of"):
            continue
        words = sentence.split("{")[0] + sentence.rsplit("}", 1)[-1]
        first, last = sentence.split("{")[0], sentence.rsplit("}", 1)[-1]
        assert any(text.startswith(first) and text.endswith(last) for text in said), words


UNCOUNTED = {Counter.NEXT_INO, Counter.LOG_BYTES, Counter.NEXT_TOKEN}
"""What no rows can be counted for."""


@pytest.mark.parametrize("counter", [counter for counter in Counter if counter not in UNCOUNTED])
def test_every_counter_is_checked(sound: Sound, counter: Counter) -> None:
    sound.meta.counters.add(counter, 1)
    found = complaints(sound.meta)
    assert len(found) == 1 and found[0].startswith("The counter of")


def test_what_waits_for_its_turn_is_no_damage(sound: Sound) -> None:
    """Orphans, dead stripes, missing shards, and extents beyond the end of a file that was cut short."""
    other = add_file(sound.meta, b"other", size=75)
    sound.meta.extents.replace(other, 0, 100, [raw(at, 10, 2, 50 + at) for at in range(0, 100, 10)])
    sound.meta.trims.put(other, 75)
    shorter = add_file(sound.meta, b"shorter", size=60)
    sound.meta.extents.replace(shorter, 0, 100, [raw(0, 60, 2, 150), raw(70, 30, 2, 220)])
    sound.meta.trims.put(shorter, 70)
    sound.meta.dentries.remove(ROOT_INO, b"file")
    sound.meta.inodes.touch(sound.file, 0, 0, -1)
    set_size(sound.meta, sound.file, 0)
    sound.meta.extents.replace(sound.linked, 0, 100, [])
    sound.meta.stripes.forget_shard(2, make_stripe(2).places[0])
    assert complaints(sound.meta) == []


def test_an_empty_database_is_sound(tmp_path: Path) -> None:
    meta = Metadata.create_fresh(tmp_path / "empty", bytes(16))
    with meta.reader() as reader:
        assert list(integrity.check(reader)) == []
    meta.close()


def test_codecs_are_those_the_check_knows() -> None:
    assert list(Codec) == [0, 1] and apsw.Connection is not None
