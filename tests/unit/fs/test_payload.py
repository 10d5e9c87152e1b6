"""Payloads: every byte that goes in comes back through its extent, and buffers are not cut up for nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciaosfs.base import limits
from ciaosfs.base.types import Buffer, Codec, Extent
from ciaosfs.codec.compression import decompress_bytes
from ciaosfs.fs.payload import Cargo, Load, build_load

BLOCK = limits.COMPRESS_BLOCK_BYTES


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def text(length: int, seed: int = 1) -> bytes:
    words = random.Random(seed).choices([b"alpha ", b"beta ", b"gamma ", b"delta "], k=64)
    line = b"".join(words)
    return (line * (length // len(line) + 1))[:length]


def stored(load: Load, extent: Extent) -> bytes:
    """The file bytes an extent stands for, straight from the concatenated pieces."""
    payload = b"".join(load.pieces)
    raw = payload[extent.stripe_offset : extent.stripe_offset + extent.stored_length]
    assert len(raw) == extent.stored_length
    if extent.codec == Codec.RAW:
        assert (extent.skip, extent.length) == (0, extent.stored_length)
        return raw
    return decompress_bytes(raw, BLOCK)[extent.skip : extent.skip + extent.length]


def check(load: Load, cargos: Sequence[Cargo]) -> None:
    """Each cargo comes back whole, extents in order and inside the payload, and nothing lies there twice or unused."""
    assert load.length == sum(len(piece) for piece in load.pieces)
    assert len(load.extents) == len(cargos)
    used: set[tuple[int, int]] = set()
    for cargo, extents in zip(cargos, load.extents, strict=True):
        expected = b"".join(bytes(data) for _, data in cargo.parts)
        assert b"".join(stored(load, extent) for extent in extents) == expected
        positions = [at for extent in extents for at in (extent.offset, extent.offset + extent.length)]
        assert positions == sorted(positions)
        starts = {offset for offset, _ in cargo.parts}
        assert not starts or extents[0].offset == min(starts)
        assert covered(extents) == covered_parts(cargo.parts)
        for extent in extents:
            assert extent.stripe_id == 0
            assert extent.length > 0
            used.add((extent.stripe_offset, extent.stripe_offset + extent.stored_length))
            if not cargo.compress:
                assert extent.codec == Codec.RAW
    ranges = sorted(used)
    assert [low for low, _ in ranges] == [0, *(high for _, high in ranges[:-1])] if ranges else True
    assert load.length == (ranges[-1][1] if ranges else 0)


def covered(extents: Sequence[Extent]) -> list[tuple[int, int]]:
    return joined([(extent.offset, extent.offset + extent.length) for extent in extents])


def covered_parts(parts: Sequence[tuple[int, Buffer]]) -> list[tuple[int, int]]:
    return joined([(offset, offset + len(data)) for offset, data in parts])


def joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for low, high in ranges:
        if result and result[-1][1] == low:
            result[-1] = (result[-1][0], high)
        else:
            result.append((low, high))
    return result


@st.composite
def cargos(draw: st.DrawFn) -> list[Cargo]:
    result = []
    sizes = st.one_of(
        st.integers(1, 300),
        st.integers(1, 40_000),
        st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7, 3 * BLOCK]),
    )
    for ino in range(draw(st.integers(1, 4))):
        at, parts = draw(st.integers(0, 1000)), []
        for _ in range(draw(st.integers(1, 6))):
            at += draw(st.sampled_from([0, 0, 0, 1, 5000]))
            length = draw(sizes)
            seed = draw(st.integers(0, 50))
            data: Buffer = noise(length, seed) if draw(st.booleans()) else text(length, seed)
            parts.append((at, memoryview(data) if draw(st.booleans()) else data))
            at += length
        result.append(Cargo(ino, parts, draw(st.booleans())))
    return result


@settings(max_examples=120, deadline=None)
@given(cargos())
def test_every_byte_of_every_cargo_comes_back(loads: list[Cargo]) -> None:
    check(build_load(loads), loads)


def test_four_incompressible_mebibytes_stay_four_uncut_pieces() -> None:
    parts: list[tuple[int, Buffer]] = [(n * limits.MIB, noise(limits.MIB, n)) for n in range(4)]
    load = build_load([Cargo(5, parts, compress=True)])
    assert len(load.pieces) == 4
    assert all(piece is data for piece, (_, data) in zip(load.pieces, parts, strict=True))
    assert load.extents == [[Extent(0, 4 * limits.MIB, 0, 0, 4 * limits.MIB, Codec.RAW, 0)]]


def test_policy_none_leaves_compressible_bytes_alone() -> None:
    data = text(limits.MIB)
    load = build_load([Cargo(5, [(0, data)], compress=False)])
    assert len(load.pieces) == 1
    assert load.pieces[0] is data
    assert load.extents == [[Extent(0, limits.MIB, 0, 0, limits.MIB, Codec.RAW, 0)]]


def test_raw_neighbours_of_a_compressed_block_stay_whole() -> None:
    data = noise(3 * BLOCK, 1) + text(BLOCK) + noise(2 * BLOCK, 2)
    load = build_load([Cargo(5, [(0, data)], compress=True)])
    assert [Codec(extent.codec) for extent in load.extents[0]] == [Codec.RAW, Codec.ZSTD, Codec.RAW]
    assert [len(load.pieces[0]), len(load.pieces[2])] == [3 * BLOCK, 2 * BLOCK]
    check(load, [Cargo(5, [(0, data)], compress=True)])


def test_crumbs_of_an_append_are_gathered_into_blocks() -> None:
    data = text(100 * 2000)
    parts: list[tuple[int, Buffer]] = [(at, data[at : at + 100]) for at in range(0, len(data), 100)]
    load = build_load([Cargo(5, parts, compress=True)])
    assert len(load.extents[0]) == 2
    check(load, [Cargo(5, parts, compress=True)])


def test_crumbs_with_gaps_are_not_joined() -> None:
    parts: list[tuple[int, Buffer]] = [(0, b"a" * 10), (11, b"b" * 10)]
    load = build_load([Cargo(5, parts, compress=False)])
    assert load.extents == [[Extent(0, 10, 0, 0, 10, Codec.RAW, 0), Extent(11, 10, 0, 10, 10, Codec.RAW, 0)]]


def test_files_that_continue_each_other_by_accident_are_not_joined() -> None:
    """Extents are joined within a file only: two files may well end and begin at the same offset."""
    load = build_load([Cargo(5, [(0, b"a" * 10)], False), Cargo(6, [(10, b"b" * 10)], False)])
    assert load.extents == [
        [Extent(0, 10, 0, 0, 10, Codec.RAW, 0)],
        [Extent(10, 10, 0, 10, 10, Codec.RAW, 0)],
    ]


@pytest.mark.parametrize("compress", [True, False])
def test_no_cargo_is_no_payload(compress: bool) -> None:
    load = build_load([Cargo(5, [], compress)])
    assert (load.pieces, load.extents, load.length) == ([], [[]], 0)
