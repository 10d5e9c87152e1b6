"""Stripes go to the drives that take them; what drives refuse is a state, no space is an error, nothing is
half."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError, NoSpaceError
from ciaosfs.base.limits import GIB, KIB, MIB
from ciaosfs.base.types import StripeKind, VolumeKind
from ciaosfs.codec.needle import NEEDLE_MAGIC
from ciaosfs.drive.interface import FreeSpace
from ciaosfs.stripe.store import ChunkStore
from tests.support.chunks import Bench, some_bytes

CODED_BYTES = 300_000


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def states(chunks: ChunkStore) -> list[str]:
    return [str(status.state) for status in chunks.drive_statuses()]


def report_free(bench: Bench, free: Sequence[int], total: int = 100 * GIB) -> None:
    for number, length in enumerate(free):
        bench.opener[number].free_reported = FreeSpace(1000 + number, length, total)


@pytest.mark.parametrize("length", [1, 100, 128 * KIB, 128 * KIB + 1, MIB, 4 * MIB - 1, 4 * MIB])
@pytest.mark.parametrize(("data_count", "parity_count"), [(1, 0), (1, 2), (2, 1), (4, 2)])
@trio_test
async def test_payloads_of_any_length_come_back(
    tmp_path: Path, length: int, data_count: int, parity_count: int
) -> None:
    bench = Bench.make(tmp_path, data_count, parity_count)
    payload = some_bytes(length)
    async with bench.store() as chunks:
        record = await chunks.write_stripe(
            [payload[: length // 3], payload[length // 3 :]], kind=StripeKind.IMAGE
        )
    assert record.payload_bytes == length and record.kind is StripeKind.IMAGE and record.missing_count == 0
    assert len(set(bench.drives_of(record))) == len(record.places), "every shard is on another drive"
    hot = length <= limits.HOT_PAYLOAD_BYTES_MAX
    assert (record.data_count, record.parity_count) == ((1 if hot else data_count), parity_count)
    kinds = {bench.volumes[place.volume_id][1] for place in record.places}
    assert kinds == {VolumeKind.LOG if hot else VolumeKind.DATA}
    async with bench.store() as chunks:
        assert bytes(await chunks.read(record, 0, length)) == payload


@trio_test
async def test_many_stripes_at_once_do_not_overlap(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    done = []

    async def write(length: int) -> None:
        payload = some_bytes(length)
        done.append((await chunks.write_stripe([payload]), payload))

    async with bench.store() as chunks:
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(write, 1 + number * 20_011)
        assert len(bench.volumes) == 3 + 2, (
            "one volume of each kind on each drive, however many asked at once"
        )
        for record, payload in done:
            assert bytes(await chunks.read(record, 0, len(payload))) == payload
    ranges = sorted((place.volume_id, place.offset) for record, _ in done for place in record.places)
    assert len(set(ranges)) == len(ranges)


@trio_test
async def test_which_drive_has_which_shard_turns_with_the_stripes(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        records = [await chunks.write_stripe([some_bytes(CODED_BYTES)]) for _ in range(12)]
    assert {bench.drives_of(record)[0] for record in records} == {0, 1, 2}


@trio_test
async def test_with_drives_away_stripes_have_fewer_shards_and_parity_is_what_is_missing(
    tmp_path: Path,
) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    for number in (1, 4):
        bench.hide(number)
    payload = some_bytes(CODED_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        assert [place.shard_index for place in record.places] == [0, 1, 2, 3]
        assert record.missing_count == 2
        assert bytes(await chunks.read(record, 0, len(payload))) == payload
        hot = await chunks.write_stripe([b"small"])
        assert hot.missing_count == 0, "four drives are enough for three copies"
        assert bench.damage == [], "a shard that was never written is no damage"
        assert chunks.statistics().writes.stripes_degraded == 1


@trio_test
async def test_with_more_than_m_drives_away_the_store_does_not_open_and_names_them(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    bench.hide(0)
    bench.hide(2)
    with pytest.raises(
        DriveGoneError, match=r"1 drives can be written to and 2 are needed.*drive-0.*drive-2"
    ):
        async with bench.store():
            pass


@trio_test
async def test_a_drive_that_fails_a_write_is_passed_over_and_counts_as_failing(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        bench.opener[3].writes_left = 0
        payload = some_bytes(CODED_BYTES)
        record = await chunks.write_stripe([payload])
        assert record.missing_count == 1 and 3 not in bench.drives_of(record)
        assert states(chunks)[3] == "failing"
        assert "Input/output error" in chunks.drive_statuses()[3].reason
        assert bytes(await chunks.read(record, 0, len(payload))) == payload
        again = await chunks.write_stripe([payload])
        assert again.missing_count == 1


@trio_test
async def test_a_spare_drive_takes_the_shard_of_one_that_fails(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        bench.opener[1].writes_left = 0
        records = [await chunks.write_stripe([some_bytes(CODED_BYTES)]) for _ in range(4)]
        assert all(record.missing_count == 0 for record in records)
        assert all(sorted(bench.drives_of(record)) == [0, 2, 3] for record in records)


@trio_test
async def test_too_few_drives_left_is_an_error_and_nothing_stays_behind(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        bench.opener[0].writes_left = bench.opener[1].writes_left = 0
        with pytest.raises(DriveGoneError, match="look after drive"):
            await chunks.write_stripe([some_bytes(CODED_BYTES)])


@trio_test
async def test_a_drive_that_can_make_no_volume_is_passed_over(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    bench.opener[2].creates_left = 0
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert record.missing_count == 1 and 2 not in bench.drives_of(record)
        assert states(chunks)[2] == "failing"
    bench = Bench.make(tmp_path / "full", 4, 2, spare=1)
    bench.opener[2].creates_left = 0
    bench.opener[2].create_errno = errno.ENOSPC  # no inodes
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert record.missing_count == 0 and 2 not in bench.drives_of(record)
        assert states(chunks)[2] == "full"


@trio_test
async def test_a_full_drive_is_no_space_when_none_is_to_spare_and_the_others_get_theirs_back(
    tmp_path: Path,
) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    report_free(bench, [GIB, GIB, GIB])
    async with bench.store() as chunks:
        first = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        bench.opener[1].bytes_left = 50_000
        with pytest.raises(NoSpaceError, match="delete something"):
            await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert states(chunks) == ["online", "full", "online"]
        assert chunks.space().available == 0
        # What was written of it cannot be found any more, and no part of it fills the drive that was full.
        for place in first.places:
            raw = bench.path_of(place.volume_id).read_bytes()
            assert raw.count(NEEDLE_MAGIC) == 1
        assert bytes(await chunks.read(first, 0, 10))
        bench.opener[1].bytes_left = None
        chunks._drives.slots[1]._full_retry_at_s = 0.0
        await chunks.refresh_drives()
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert record.missing_count == 0


@trio_test
async def test_a_full_drive_gives_way_to_a_spare_one(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        bench.opener[0].bytes_left = 10_000
        bench.opener[2].bytes_left = None
        for _ in range(3):
            record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
            assert record.missing_count == 0
        assert sorted(bench.drives_of(record)) == [1, 2, 3]


@trio_test
async def test_stripes_are_not_started_on_drives_that_say_they_are_full(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    report_free(bench, [GIB, 8 * MIB, GIB])
    async with bench.store() as chunks:
        assert chunks.space().available == 0
        with pytest.raises(NoSpaceError):
            await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert bench.volumes == {}
        # Space that came back since the last look is found before giving up.
        report_free(bench, [GIB, GIB, GIB])
        assert (await chunks.write_stripe([some_bytes(CODED_BYTES)])).missing_count == 0


@trio_test
async def test_small_payloads_are_coded_where_the_logs_drives_have_little_room(tmp_path: Path) -> None:
    """Copies would use up the few drives of the log, and with them what was promised for coded stripes."""
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    report_free(bench, [50 * MIB, GIB, GIB, GIB])
    async with bench.store() as chunks:
        record = await chunks.write_stripe([b"small"])
        assert (record.data_count == 1 and bench.drives_of(record) == [1, 2]) or sorted(
            bench.drives_of(record)
        ) == [1, 2]
        report_free(bench, [50 * MIB, 50 * MIB, 50 * MIB, GIB])
        await chunks.refresh_drives()
        payload = some_bytes(1000)
        record = await chunks.write_stripe([payload])
        assert (record.data_count, record.parity_count, len(record.places)) == (2, 1, 3)
        assert bytes(await chunks.read(record, 10, 900)) == payload[10:910]


@trio_test
async def test_copies_that_meet_a_full_drive_go_to_others_or_become_shards(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    report_free(bench, [GIB, GIB, GIB, 50 * MIB])
    payload = some_bytes(120_000)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(1000)])
        bench.opener[0].bytes_left = 75_000
        record = await chunks.write_stripe([payload])
        assert record.data_count == 1 and sorted(bench.drives_of(record)) == [1, 2]
        assert states(chunks)[0] == "full"
        bench.opener[1].bytes_left = 75_000
        with pytest.raises(NoSpaceError):
            await chunks.write_stripe([payload])
    bench = Bench.make(tmp_path / "other", 2, 1, spare=1)
    report_free(bench, [GIB, GIB, 50 * MIB, 50 * MIB])
    bench.opener[0].bytes_left = 75_000
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        assert record.data_count == 2 and sorted(bench.drives_of(record)) == [1, 2, 3]
        assert bytes(await chunks.read(record, 0, len(payload))) == payload


@trio_test
async def test_hot_stripes_and_commits_share_the_log_volumes_of_the_lowest_drives(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    async with bench.store() as chunks:
        for sequence in range(1, 5):
            record = await chunks.write_stripe([some_bytes(20_000)])
            assert sorted(bench.drives_of(record)) == [0, 1, 2]
            await chunks.append_commit(sequence, b"changes")
        assert sorted(number for number, _, _ in bench.volumes.values()) == [0, 1, 2]
        assert chunks.statistics().volumes_dirty == 3


@trio_test
async def test_volumes_are_sealed_when_full_and_continued_by_the_next_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ciaosfs.volume.volume._BYTES_MAX", {VolumeKind.DATA: 700_000, VolumeKind.LOG: 700_000}
    )
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        records = [await chunks.write_stripe([some_bytes(CODED_BYTES)]) for _ in range(7)]
    by_state = [state for _, _, state in bench.volumes.values()]
    assert by_state.count("sealed") == 3 and by_state.count("open") == 3
    for place in records[-1].places:
        with bench.path_of(place.volume_id).open("ab") as file:
            file.write(b"torn")  # as a crash would leave it
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert {p.volume_id for p in record.places} == {p.volume_id for p in records[-1].places}
        assert all(place.offset % 4096 == 0 for place in record.places)
        for old, new in zip(
            sorted(records[-1].places, key=lambda p: p.volume_id),
            sorted(record.places, key=lambda p: p.volume_id),
            strict=True,
        ):
            assert new.offset > old.offset + record.shard_bytes
        assert await chunks.is_readable(records[-1])
        await chunks.write_stripe([b"hot"])
        logs = {v for v, (_, kind, _) in bench.volumes.items() if kind is VolumeKind.LOG}
        assert len(logs) == 2
    async with bench.store() as chunks:
        record = await chunks.write_stripe([b"hot"])
        assert not logs & {place.volume_id for place in record.places}, "log volumes are new for each session"


@trio_test
async def test_a_cancelled_write_leaves_dead_space_and_a_working_store(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        for _ in range(5):
            with trio.move_on_after(0) as scope:
                await chunks.write_stripe([some_bytes(CODED_BYTES)])
            assert scope.cancelled_caught
        payload = some_bytes(CODED_BYTES)
        record = await chunks.write_stripe([payload])
        assert bytes(await chunks.read(record, 0, len(payload))) == payload
        assert all(slot._on_way == 0 for slot in chunks._drives.slots.values())


@trio_test
async def test_a_volume_is_removed_unless_it_is_being_written_or_its_drive_is_away(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        old = await chunks.write_stripe([b"hot"])
        assert not await chunks.remove_volume(old.places[0].volume_id)
    async with bench.store() as chunks:
        place, other = old.places[:2]
        assert await chunks.is_readable(old)
        path = bench.path_of(place.volume_id)
        assert await chunks.remove_volume(place.volume_id)
        assert not path.exists()
        assert not await chunks.remove_volume(place.volume_id)
        assert bytes(await chunks.read(old, 0, 3)) == b"hot"
        bench.hide(bench.drive_of(other))
        assert not await chunks.remove_volume(other.volume_id)


@trio_test
async def test_discard_gives_space_back_on_the_drives_and_again_is_harmless(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        kept = await chunks.write_stripe([some_bytes(2 * MIB)])
        dead = [await chunks.write_stripe([some_bytes(2 * MIB)]) for _ in range(3)]
        kept_too = await chunks.write_stripe([some_bytes(2 * MIB)])
        await chunks.sync()
        path = bench.path_of(dead[0].places[0].volume_id)
        before = path.stat().st_blocks
        await chunks.discard(dead)
        assert path.stat().st_blocks * 512 <= before * 512 - 3 * MIB
        await chunks.discard(dead)
        assert await chunks.is_readable(kept) and await chunks.is_readable(kept_too)
        assert not await chunks.is_readable(dead[1])
        bench.hide(0)
        await chunks.refresh_drives()
        await chunks.discard([kept])
        assert not await chunks.is_readable(kept)
