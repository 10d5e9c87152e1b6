"""Bytes out of compressed blocks."""

from __future__ import annotations

import pytest

from ciaosfs.base import limits
from ciaosfs.base.errors import DamagedError
from ciaosfs.codec.compression import compress_bytes
from ciaosfs.fs.payload import unpack


@pytest.mark.parametrize("length", [1, 100, 12_000, limits.COMPRESS_BLOCK_BYTES])
def test_blocks_of_any_length_give_their_bytes(length: int) -> None:
    data = (b"0123456789" * (length // 10 + 1))[:length]
    packed = compress_bytes(data)
    assert bytes(unpack(packed, 0, length)) == data
    assert bytes(unpack(packed, length // 2, length - length // 2)) == data[length // 2 :]


def test_a_block_that_is_shorter_than_its_extent_says_is_damage_not_a_short_read() -> None:
    with pytest.raises(DamagedError):
        unpack(compress_bytes(b"short" * 10), 40, 11)


def test_a_block_that_claims_to_be_larger_than_any_block_is_refused() -> None:
    with pytest.raises(DamagedError):
        unpack(compress_bytes(bytes(limits.COMPRESS_BLOCK_BYTES + 1)), 0, 10)
