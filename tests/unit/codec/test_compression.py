"""Compression: never larger, skipped where it does not pay, and damaged frames never trusted."""

from __future__ import annotations

import random
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.base.errors import DamagedError
from ciaosfs.base.limits import COMPRESS_BLOCK_BYTES, COMPRESS_GAIN_MIN
from ciaosfs.codec import compression
from ciaosfs.codec.compression import compress_block, compress_bytes, decompress_block, decompress_bytes

TEXT = b"".join(b"epoch %d loss %.4f\n" % (step, 1 / (step + 1)) for step in range(8000))[
    :COMPRESS_BLOCK_BYTES
]
NOISE = random.Random(1).randbytes(COMPRESS_BLOCK_BYTES)


def floats(code: str, count: int) -> bytes:
    dice = random.Random(2)
    return struct.pack(f"<{count}{code}", *[dice.gauss(0, 0.02) for _ in range(count)])


@pytest.mark.parametrize("data", [TEXT, bytearray(TEXT), memoryview(TEXT), b"a" * 100, bytes(1 << 20)])
def test_what_pays_comes_back_equal(data: bytes | bytearray | memoryview) -> None:
    packed = compress_block(data)
    assert packed is not None
    assert len(packed) <= len(data) * (1 - COMPRESS_GAIN_MIN)
    assert decompress_block(packed, len(data)) == data
    assert decompress_block(memoryview(packed), len(data)) == data


@pytest.mark.parametrize(
    "data",
    [b"", b"a", NOISE, NOISE[:100], floats("f", COMPRESS_BLOCK_BYTES // 4), floats("e", 40_000)],
    ids=["empty", "one byte", "noise", "short noise", "32-bit weights", "16-bit weights"],
)
def test_what_does_not_pay_is_left_alone(data: bytes) -> None:
    assert compress_block(data) is None


def test_a_header_of_text_does_not_sell_a_block_of_noise() -> None:
    assert compress_block(TEXT[:4096] + NOISE[4096:]) is None


def test_a_header_of_noise_does_not_hide_a_block_of_text() -> None:
    assert compress_block(NOISE[:4096] + TEXT[4096:]) is not None


def test_noise_costs_a_probe_and_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Recorder:
        def compress(self, data: bytes) -> bytes:
            sizes.append(len(data))
            return zstandard.ZstdCompressor(level=1).compress(data)

    monkeypatch.setattr(compression._contexts, "compressor", Recorder())
    assert compress_block(NOISE) is None
    assert sizes == [4096]


@given(st.binary(max_size=40_000), st.integers(1, 50))
def test_any_block_comes_back_or_is_left_alone(data: bytes, times: int) -> None:
    block = data * times
    packed = compress_block(block)
    if packed is not None:
        assert len(packed) < len(block)
        assert decompress_block(packed, len(block)) == block
    assert decompress_bytes(compress_bytes(block), len(block)) == block


def test_damaged_frames_raise_or_give_the_asked_length() -> None:
    packed = compress_block(TEXT)
    assert packed is not None
    for at in random.Random(3).sample(range(len(packed)), 200):
        flipped = bytearray(packed)
        flipped[at] ^= 1 << (at % 8)
        with suppress(DamagedError):
            # zstd carries no checksum here, so some flips go through it: the blocks of the needle have theirs.
            assert len(decompress_block(flipped, len(TEXT))) == len(TEXT)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"no frame at all",
        compress_bytes(TEXT)[:-1],
        compress_bytes(TEXT) + b"x",
        compress_bytes(TEXT)[:12],
        compress_bytes(TEXT + b"x"),
        compress_bytes(TEXT[1:]),
        zstandard.ZstdCompressor(write_content_size=False).compress(TEXT),
    ],
    ids=["empty", "foreign", "cut", "longer", "head only", "of more", "of less", "of unknown length"],
)
def test_what_is_not_exactly_the_frame_is_damage(damaged: bytes) -> None:
    with pytest.raises(DamagedError):
        decompress_block(damaged, len(TEXT))


def test_a_frame_that_claims_a_terabyte_is_refused_before_room_is_made() -> None:
    claim = zstandard.ZstdCompressor().compressobj(size=1 << 40)
    frame = claim.compress(b"x") + claim.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    assert zstandard.frame_content_size(frame) == 1 << 40
    with pytest.raises(DamagedError):
        decompress_block(frame, 1)
    with pytest.raises(DamagedError):
        decompress_bytes(frame, 1 << 20)


def test_many_threads_do_not_disturb_each_other() -> None:
    blocks = [TEXT[at : at + 50_000] for at in range(0, 60_000, 1000)]

    def there_and_back(block: bytes) -> bool:
        packed = compress_block(block)
        return packed is not None and decompress_block(packed, len(block)) == block

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, blocks * 5))
