"""Right bytes or an error, whatever happened to up to m shards; and an error, not wrong bytes, beyond
that."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError, StripeLostError
from ciaosfs.base.types import StripeRecord
from ciaosfs.codec.needle import needle_bytes_for
from ciaosfs.drive.local import open_drive, volume_name
from ciaosfs.stripe.store import ChunkStore
from tests.support.chunks import (
    HARMS,
    Bench,
    copy_from_other,
    flip_in_payload,
    lose_shard,
    overwrite,
    some_bytes,
    subsets,
    zero_shard,
)

GEOMETRIES = [(1, 1), (2, 1), (4, 2), (6, 3)]
CODED_BYTES = limits.HOT_PAYLOAD_BYTES_MAX + 70_001
"""Small, coded, not a multiple of anything, and shards of several blocks for small k."""


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def check(chunks: ChunkStore, record: StripeRecord, payload: bytes) -> None:
    """All of it, and ranges that begin and end anywhere, some across shards."""
    length = len(payload)
    assert bytes(await chunks.read(record, 0, length)) == payload
    spots = [0, 1, 16_383, 16_384, record.shard_bytes - 1, record.shard_bytes, length // 2, length - 1]
    for start in (spot for spot in spots if 0 <= spot < length):
        for part in (1, 4096, 20_000):
            part = min(part, length - start)
            assert bytes(await chunks.read(record, start, part)) == payload[start : start + part]
            found = chunks.read_nowait(record, start, part)
            assert found is None or bytes(found) == payload[start : start + part]


@pytest.mark.parametrize(("data_count", "parity_count"), GEOMETRIES)
@trio_test
async def test_every_loss_of_m_shards_gives_the_same_bytes(
    tmp_path: Path, data_count: int, parity_count: int
) -> None:
    """Each set of m shards is harmed, in a way that turns through all there are; each time another stripe."""
    bench = Bench.make(tmp_path, data_count, parity_count)
    harms = itertools.cycle(HARMS[1:])  # losing a volume would harm the other stripes too
    sets = subsets(data_count + parity_count, parity_count)
    async with bench.store() as chunks:
        stripes = []
        for _ in sets:
            payload = some_bytes(CODED_BYTES)
            stripes.append((await chunks.write_stripe([payload]), payload))
    for (record, _), lost in reversed(list(zip(stripes, sets, strict=True))):
        for index in lost:
            harm = next(harms)
            if harm.__name__ == "truncate_shard" and record is not stripes[-1][0]:
                harm = zero_shard  # only the last needle of a volume can be cut off alone
            harm(bench, record, record.places[index])
    async with bench.store() as chunks:
        for record, payload in stripes:
            await check(chunks, record, payload)
    harmed = {
        (record.stripe_id, index) for (record, _), lost in zip(stripes, sets, strict=True) for index in lost
    }
    reported = {(stripe, shard) for stripe, shard, _ in bench.damage}
    assert reported <= harmed, "nothing is reported that is whole"
    needed = {(stripe, shard) for stripe, shard in harmed if shard < data_count}
    assert needed <= reported, "every data shard that was met damaged is reported"


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize(("data_count", "parity_count"), GEOMETRIES)
@trio_test
async def test_one_more_than_m_is_an_error_naming_the_stripe(
    tmp_path: Path, data_count: int, parity_count: int, harm: object
) -> None:
    assert callable(harm)
    bench = Bench.make(tmp_path, data_count, parity_count)
    payload = some_bytes(CODED_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
    lost = list(range(parity_count + 1))
    # The last first, so that a shard copied from its neighbour is a copy of a whole one.
    for index in lost[1:]:
        harm(bench, record, record.places[index])
    async with bench.store() as chunks:
        await check(chunks, record, payload)
    # Copying from a neighbour that is a copy of this one would heal it.
    (zero_shard if harm is copy_from_other else harm)(bench, record, record.places[0])
    end = record.shard_bytes - 1
    async with bench.store() as chunks:
        with pytest.raises(StripeLostError, match=str(record.stripe_id)):
            await chunks.read(record, 0, len(payload))
        with pytest.raises(StripeLostError):
            await chunks.read(record, end, 1)
        assert chunks.read_nowait(record, end, 1) is None
        assert not await chunks.is_readable(record)
        if data_count > parity_count + 1:
            start = (parity_count + 1) * record.shard_bytes
            assert bytes(await chunks.read(record, start, 10)) == payload[start : start + 10]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@trio_test
async def test_hot_stripes_survive_m_losses_too(tmp_path: Path, harm: object) -> None:
    assert callable(harm)
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(50_000)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload[:100], payload[100:]])
        assert (record.data_count, record.parity_count, len(record.places)) == (1, 2, 3)
    for index in (1, 0):
        harm(bench, record, record.places[index])
        async with bench.store() as chunks:
            await check(chunks, record, payload)
            found = chunks.read_nowait(record, 5, 100)
            assert found is not None and bytes(found) == payload[5:105], "any copy will do in the loop"
    (zero_shard if harm is copy_from_other else harm)(bench, record, record.places[2])
    async with bench.store() as chunks:
        with pytest.raises(StripeLostError):
            await chunks.read(record, 0, len(payload))


@trio_test
async def test_shards_of_two_stripes_swapped_between_their_places_are_both_damaged(tmp_path: Path) -> None:
    """A misdirected write: both needles are whole, and each says that it belongs elsewhere."""
    bench = Bench.make(tmp_path, 2, 1)
    payloads = [some_bytes(CODED_BYTES) for _ in range(2)]
    async with bench.store() as chunks:
        records = [await chunks.write_stripe([payload]) for payload in payloads]
    # A drive on which both have a data shard, which is read; two of three drives hold data of each.
    on = [{bench.drive_of(p): p for p in record.places[: record.data_count]} for record in records]
    drive = min(set(on[0]) & set(on[1]))
    places = [of_record[drive] for of_record in on]
    length = needle_bytes_for(records[0].shard_bytes)
    needles = []
    for place in places:
        with bench.path_of(place.volume_id).open("rb") as file:
            file.seek(place.offset)
            needles.append(file.read(length))
    overwrite(bench, places[0], 0, needles[1])
    overwrite(bench, places[1], 0, needles[0])
    async with bench.store() as chunks:
        for record, payload in zip(records, payloads, strict=True):
            await check(chunks, record, payload)
    assert len({stripe for stripe, _, _ in bench.damage}) >= 1


@trio_test
async def test_volumes_whose_files_were_swapped_are_damaged(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    payload = some_bytes(CODED_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
    wrong = bench.path_of(record.places[1].volume_id).read_bytes()
    bench.path_of(record.places[0].volume_id).write_bytes(wrong)
    async with bench.store() as chunks:
        await check(chunks, record, payload)
    assert {shard for _, shard, _ in bench.damage} == {0}


@trio_test
async def test_a_shard_of_an_earlier_life_of_the_place_is_damage(tmp_path: Path) -> None:
    """A drive lost a write: the place still holds a whole needle, of another stripe."""
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        old = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        payload = some_bytes(CODED_BYTES)
        new = await chunks.write_stripe([payload])
    for place, stale in zip(new.places, old.places, strict=True):
        if place.shard_index == 0:
            with bench.path_of(stale.volume_id).open("rb") as file:
                file.seek(stale.offset)
                overwrite(bench, place, 0, file.read(needle_bytes_for(old.shard_bytes)))
    async with bench.store() as chunks:
        await check(chunks, new, payload)
    assert {(stripe, shard) for stripe, shard, _ in bench.damage} == {(new.stripe_id, 0)}


@trio_test
async def test_damage_under_a_head_that_is_known_is_decoded_and_verified_against_it(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(2 * limits.MIB)
    async with bench.store(open_drive) as chunks:
        record = await chunks.write_stripe([payload])
        await check(chunks, record, payload)
        flip_in_payload(bench, record, record.places[2])
        assert chunks.read_nowait(record, 2 * record.shard_bytes, 4096) is None
        await check(chunks, record, payload)
    assert {shard for _, shard, _ in bench.damage} == {2}
    assert all("checksum" in reason for _, _, reason in bench.damage)


@trio_test
async def test_a_drive_that_flips_bits_on_the_way_and_one_that_reads_nothing(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(limits.MIB)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        bench.opener[0].flip_reads = True
        bench.opener[1].is_unreadable = True
        await check(chunks, record, payload)
        bench.opener[2].is_unreadable = True
        with pytest.raises(DriveGoneError):  # not lost: the drives may be whole, they only do not answer
            await chunks.read(record, 0, len(payload))
        bench.opener[1].is_unreadable = bench.opener[2].is_unreadable = False
        await check(chunks, record, payload)


@trio_test
async def test_a_volume_missing_while_another_drive_is_away_may_be_there(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(limits.MIB)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
    for index in (0, 1):
        lose_shard(bench, record, record.places[index])
    bench.hide(bench.drive_of(record.places[2]))
    async with bench.store() as chunks:
        with pytest.raises(DriveGoneError):
            await chunks.read(record, 0, 1)
        assert bench.damage == [], (
            "which drive a missing volume was on is not known, so nothing is called damaged"
        )


@trio_test
async def test_a_needle_that_says_other_counts_than_the_metadata_is_damage(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    payload = some_bytes(CODED_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        liar = StripeRecord(
            record.stripe_id, record.kind, 2, 1, record.payload_bytes - 1, record.shard_bytes, record.places
        )
    async with bench.store() as chunks:
        with pytest.raises(StripeLostError):
            await chunks.read(liar, 0, 10)


@trio_test
async def test_reads_after_the_first_are_answered_in_the_loop(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(limits.STRIPE_PAYLOAD_BYTES_MAX)
    async with bench.store(open_drive) as chunks:
        record = await chunks.write_stripe([payload])
    async with bench.store(open_drive) as chunks:
        assert chunks.read_nowait(record, 0, 4096) is None, "its volume is not open, its head not known"
        await chunks.advise(record)
        for start, length in [(0, 4096), (limits.MIB - 10, 20), (0, 4 * limits.MIB), (4 * limits.MIB - 1, 1)]:
            found = chunks.read_nowait(record, start, length)
            if found is None:
                pytest.skip("this file system does not say what is in the page cache")
            assert bytes(found) == payload[start : start + length]
        reads = chunks.statistics().reads
        assert (reads.reads, reads.reads_nowait >= 4) == (0, True)


@trio_test
async def test_advice_for_what_is_missing_or_damaged_is_harmless(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
    lose_shard(bench, record, record.places[0])
    zero_shard(bench, record, record.places[1])
    async with bench.store() as chunks:
        await chunks.advise(record)


@trio_test
async def test_few_descriptors_serve_many_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ciaosfs.volume.volume._BYTES_MAX", {1: 300_000, 2: 300_000})
    monkeypatch.setattr("ciaosfs.volume.files.OPEN_FILES_MAX", 8)
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store(open_drive) as chunks:
        chunks._files._open_max = 8
        stripes = []
        for _ in range(20):
            payload = some_bytes(CODED_BYTES)
            stripes.append((await chunks.write_stripe([payload]), payload))
        assert chunks.statistics().volumes_known >= 30
        before = descriptors()
        for record, payload in stripes * 2:
            await check(chunks, record, payload)
            assert chunks.statistics().files_open <= 8 + 2
        assert descriptors() <= before + 10


@trio_test
async def test_a_volume_in_a_directory_under_another_name_is_not_the_volume(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
    for place in record.places:
        path = bench.path_of(place.volume_id)
        path.rename(path.with_name(volume_name(place.volume_id + 1000)))
    async with bench.store() as chunks:
        with pytest.raises(StripeLostError):
            await chunks.read(record, 0, 1)
