"""The bytes of images, the copy of the database they are made of, and shards that moved since."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from ciaosfs.base import limits
from ciaosfs.base.errors import LogDamagedError, NoSpaceError, StoreError
from ciaosfs.base.types import ShardPlace, StripeKind, StripeRecord
from ciaosfs.codec.checksum import hash64
from ciaosfs.codec.compression import compress_bytes
from ciaosfs.meta import imagefile, schema
from ciaosfs.meta.contents import follow_shards
from ciaosfs.meta.imagefile import DatabaseCopy, Payload, RestoredDatabase
from ciaosfs.meta.imageformat import (
    ImageRoot,
    ImageStripe,
    decode_payload,
    decode_root,
    encode_payload,
    encode_root,
)
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.state import State
from tests.unit.meta.support import give_token, give_user, make_stripe

STATE = State(b"s" * 16, 77, 12, 3, 555, 1_700_000_000_000_000_000, 900)


def stripe(number: int, offset: int, length: int, payload: bytes = b"x" * 1000) -> ImageStripe:
    places = tuple(ShardPlace(index, 100 + index, 4096 * number) for index in range(6))
    record = StripeRecord(number, StripeKind.IMAGE, 4, 2, len(payload), 256, places)
    return ImageStripe(record, offset, length, hash64(payload))


ROOT = ImageRoot(STATE, schema.FORMAT, 8192, 41, (stripe(1, 0, 4096), stripe(2, 4096, 4096)))


def test_root_comes_back_as_it_was() -> None:
    assert decode_root(encode_root(ROOT)) == ROOT
    assert ROOT.stored_bytes == 2000


def test_root_bytes_are_pinned() -> None:
    data = encode_root(ROOT)
    assert len(data) == 120 + 2 * (56 + 6 * 24)
    assert data[:16] == b"CIAOSIMG\x01\0\0\0" + schema.FORMAT.to_bytes(4, "little")
    assert data[16:32] == STATE.store_id
    assert int.from_bytes(data[32:40], "little") == 12
    assert int.from_bytes(data[56:64], "little") == STATE.commit_id
    assert int.from_bytes(data[120:128], "little") == 1


@pytest.mark.parametrize("at", [0, 9, 20, 40, 60, 100, 115, 120, 200, -1])
def test_a_flipped_bit_in_a_root_is_damage(at: int) -> None:
    data = bytearray(encode_root(ROOT))
    data[at] ^= 1
    with pytest.raises((LogDamagedError, StoreError)):
        decode_root(data)


@pytest.mark.parametrize("length", [0, 50, 119, 120, 300])
def test_a_torn_root_is_damage(length: int) -> None:
    with pytest.raises(LogDamagedError):
        decode_root(encode_root(ROOT)[:length])


@pytest.mark.parametrize(
    "root",
    [
        replace(ROOT, database_bytes=8193),
        replace(ROOT, stripes=ROOT.stripes[:1]),
        replace(ROOT, stripes=(stripe(1, 0, 4096), stripe(2, 5000, 3192))),
        replace(ROOT, stripes=(*ROOT.stripes, stripe(3, 8192, 0))),
    ],
)
def test_stripes_that_are_not_the_whole_database_are_damage(root: ImageRoot) -> None:
    with pytest.raises(LogDamagedError):
        decode_root(encode_root(root))


def test_a_newer_root_is_refused_with_a_sentence() -> None:
    with pytest.raises(StoreError, match="newer ciaosfs"):
        decode_root(encode_root(replace(ROOT, tables=schema.FORMAT + 1)))


def test_payload_comes_back_in_pieces() -> None:
    pieces = [b"a" * 5000, random.Random(1).randbytes(3000), b"c"]
    payload = encode_payload([(compress_bytes(piece), len(piece)) for piece in pieces])
    assert decode_payload(payload, stripe(1, 0, 8001, payload)) == pieces


def test_payload_of_another_stripe_or_length_is_damage() -> None:
    payload = encode_payload([(compress_bytes(b"abc"), 3)])
    with pytest.raises(LogDamagedError):
        decode_payload(payload, stripe(1, 0, 3))
    with pytest.raises(LogDamagedError):
        decode_payload(payload, stripe(1, 0, 4, payload))
    with pytest.raises(LogDamagedError):
        decode_payload(payload[:9], stripe(1, 0, 3, payload[:9]))
    torn = payload[:-2]
    with pytest.raises(LogDamagedError):
        decode_payload(torn, stripe(1, 0, 3, torn))


def committed(meta: Metadata, log_volume_min: int = 5) -> bytes:
    meta.state.save(meta.state.successor(epoch=1, time_ns=1, log_volume_min=log_volume_min))
    changeset = meta.take_changeset()
    meta.commit()
    return changeset


def filled(path: Path, values: int = 60) -> Metadata:
    """A database of some MiB, most of which cannot be compressed."""
    meta = Metadata.create_fresh(path, b"s" * 16)
    dice = random.Random(7)
    for number in range(values):
        meta.xattrs.set(number + 2, b"user.x", dice.randbytes(limits.XATTR_VALUE_BYTES_MAX))
    committed(meta)
    return meta


def payloads(copy: DatabaseCopy) -> list[Payload]:
    found = []
    while (payload := copy.next_payload()) is not None:
        found.append(payload)
    return found


def test_a_database_goes_through_payloads_and_is_the_same(tmp_path: Path) -> None:
    meta = filled(tmp_path / "meta.sqlite", 150)
    copy = meta.copy_for_image()
    sent = payloads(copy)
    assert len(sent) > 2 and max(len(payload.data) for payload in sent) <= limits.STRIPE_PAYLOAD_BYTES_MAX
    stripes = tuple(
        replace(stripe(number, payload.offset, payload.length, payload.data), checksum=payload.checksum)
        for number, payload in enumerate(sent)
    )
    root = ImageRoot(copy.state, copy.tables, copy.database_bytes, copy.inodes, stripes)
    copy.close()
    assert root.state == meta.state.load()
    expected = [meta.xattrs.get(number + 2, b"user.x") for number in range(150)]
    meta.close()

    target = tmp_path / "other" / "meta.sqlite"
    target.parent.mkdir()
    target.with_name("meta.sqlite-wal").write_bytes(b"of the database before")
    restored = RestoredDatabase(target, root)
    for image_stripe, payload in reversed(list(zip(root.stripes, sent, strict=True))):
        restored.put(image_stripe, payload.data)
    restored.install()
    restored.close()
    again = Metadata.open(target)
    assert [again.xattrs.get(number + 2, b"user.x") for number in range(150)] == expected
    assert again.state.load() == root.state
    again.close()
    assert not list(tmp_path.rglob("*-restored")) and not list(tmp_path.rglob("*-image"))


def test_an_image_of_an_older_format_gets_the_tables_it_lacks(tmp_path: Path) -> None:
    path, former = tmp_path / "meta.sqlite", min(schema.ADDED) - 1
    filled(path, 1).close()
    connection = apsw.Connection(str(path))
    for added in (
        "DROP INDEX stripes_small",
        "ALTER TABLE stripes DROP COLUMN file_bytes",
        "DROP TABLE trims",
        "DROP TABLE users",
        "DROP TABLE tokens",
    ):
        connection.execute(added)
    connection.pragma("user_version", former)
    connection.close()
    copy = DatabaseCopy.make(path, tmp_path / "copy")
    [payload] = payloads(copy)
    stripes = (stripe(1, 0, payload.length, payload.data),)
    root = ImageRoot(copy.state, former, copy.database_bytes, 0, stripes)
    copy.close()
    with pytest.raises(LogDamagedError, match=f"older format {former}"):
        Metadata.open(path)
    restored = RestoredDatabase(path, root)
    restored.put(root.stripes[0], payload.data)
    restored.install()
    restored.close()
    meta = Metadata.open(path)
    assert meta.state.load() == root.state
    with meta.reader() as reader:
        assert {row[0] for row in reader.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")} == set(
            schema.TABLES
        )
        assert {row[0] for row in reader.rows("SELECT name FROM sqlite_schema WHERE type = 'index'")} == {
            name.split()[2] for name in schema.INDEXES
        }
    meta.trims.put(2, 5)
    meta.stripes.insert(make_stripe(99), 7)
    assert give_token(meta, give_user(meta)) == 1
    committed(meta)
    meta.close()
    assert (
        sorted(file.name for file in tmp_path.iterdir() if "copy" in file.name or "restored" in file.name)
        == []
    )


def test_every_format_since_images_says_what_it_added() -> None:
    assert {1, 2, *schema.ADDED} == {*range(1, schema.FORMAT + 1)} - {3}
    assert tuple(range(1, schema.FORMAT)) == schema.REBUILT_FORMATS


def test_an_image_of_another_commit_is_not_installed(tmp_path: Path) -> None:
    meta = filled(tmp_path / "meta.sqlite", 1)
    copy = meta.copy_for_image()
    [payload] = payloads(copy)
    wrong = copy.state._replace(sequence=9)
    root = ImageRoot(
        wrong, copy.tables, copy.database_bytes, 0, (stripe(1, 0, payload.length, payload.data),)
    )
    copy.close()
    meta.close()
    before = (tmp_path / "meta.sqlite").read_bytes()
    restored = RestoredDatabase(tmp_path / "meta.sqlite", root)
    restored.put(root.stripes[0], payload.data)
    with pytest.raises(LogDamagedError, match="holds the metadata"):
        restored.install()
    restored.close()
    assert (tmp_path / "meta.sqlite").read_bytes() == before


def test_a_damaged_database_makes_no_image(tmp_path: Path) -> None:
    """The log it would replace is the only way back."""
    path = tmp_path / "meta.sqlite"
    meta = filled(path)
    checkpoint = meta.database.begin_checkpoint()
    checkpoint.run()
    checkpoint.finish()
    size = path.stat().st_size
    with path.open("r+b") as file:
        for at in range(4096 * 3, size, 4096):
            file.seek(at)
            file.write(b"\xff" * 16)
    with pytest.raises(LogDamagedError):
        meta.copy_for_image()
    meta.close()
    assert not list(tmp_path.glob("*-image"))


def test_no_copy_is_made_that_could_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = filled(tmp_path / "meta.sqlite", 1)
    monkeypatch.setattr(imagefile, "_SPACE_FACTOR", 1 << 40)
    with pytest.raises(NoSpaceError):
        meta.copy_for_image()
    meta.close()


def test_shards_are_followed_through_changesets(tmp_path: Path) -> None:
    meta = Metadata.create_fresh(tmp_path / "meta.sqlite", b"s" * 16)
    one = stripe(1, 0, 4096).record
    meta.stripes.insert(one)
    meta.stripes.insert(replace(one, stripe_id=3))
    changesets = [committed(meta)]
    meta.stripes.put_shard(1, ShardPlace(0, 100, 8192))  # the same volume
    meta.stripes.put_shard(1, ShardPlace(1, 200, 4096))  # the same offset
    meta.stripes.put_shard(3, ShardPlace(1, 300, 64))
    changesets.append(committed(meta))
    meta.stripes.forget_shard(1, ShardPlace(2, 102, 4096))
    meta.stripes.forget_shard(1, ShardPlace(3, 103, 4096))
    changesets.append(committed(meta))
    meta.stripes.put_shard(1, ShardPlace(3, 400, 4096))
    changesets.append(committed(meta))
    now = meta.stripes.load(1)
    meta.close()
    assert now is not None
    root = replace(ROOT, stripes=(stripe(1, 0, 8192),))
    moved = root.at(follow_shards(changesets[1:], root.places()))
    assert moved.stripes[0].record.places == now.places
    assert root.at(follow_shards(changesets, root.places())) == moved


def test_a_changeset_of_before_a_column_fits_the_table_of_today() -> None:
    """The log after an older image is applied to the tables of today: what is added comes last and has a default."""
    former, today = apsw.Connection(":memory:"), apsw.Connection(":memory:")
    for connection in (former, today):
        connection.execute(schema.TABLES["stripes"])
    former.execute("ALTER TABLE stripes DROP COLUMN file_bytes")
    for change, rows in (
        ("INSERT INTO stripes VALUES (7, 1, 4, 2, 100, 64, 9, 0)", [(7, 1, 4, 2, 100, 64, 9, 0, 0)]),
        ("UPDATE stripes SET missing = 1", [(7, 1, 4, 2, 100, 64, 9, 1, 0)]),
        ("DELETE FROM stripes", []),
    ):
        session = apsw.Session(former, "main")
        session.attach()
        former.execute(change)
        apsw.Changeset.apply(session.changeset(), today)
        session.close()
        assert today.execute("SELECT * FROM stripes").fetchall() == rows
    former.close()
    today.close()
