"""A stripe's shards: parity from data, and lost shards from any `data_count` good ones.

The code is zfec's: systematic Reed-Solomon over GF(2^8), shards 0..k-1 are the data. Here only is zfec
spoken, which calls the total number of shards `m`; everyone else says `data_count` and `parity_count`. A
stripe with `data_count` 1 is replicated: every shard is the same buffer. Shards must have been verified
before they come here: any code answers garbage, without a word, to a damaged or mislabelled shard.

Where libisal is installed it does the arithmetic. Its matrices are not built here: whatever zfec makes of
unit vectors *is* the matrix, for parity and for every pattern of losses, so the format stays zfec's by
construction. Each matrix is compared with zfec on a sample before its first use. All functions may be called
from any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache

import zfec

from ciaosfs.base.limits import KIB, SHARDS_MAX
from ciaosfs.base.types import Buffer
from ciaosfs.codec.isal import Isal, IsalMatrix, load_isal

_ISAL_BYTES_MIN = 4 * KIB
"""Shards shorter than this go to zfec: handing a call to libisal costs more than it saves."""
_MATRICES_MAX = 64
"""One per pattern of losses in use: a few KiB each for codes people choose, 0.5 MiB for 128 + 128."""
_SAMPLE_BYTES = 3 * 64 + 17
"""Long enough for the widest vectors libisal uses, and ragged so that its last step runs too."""

_log = logging.getLogger(__name__)


def engine() -> str:
    """Return the name of what does the arithmetic for shards of useful size: "isal" or "zfec"."""
    return "isal" if _isal() else "zfec"


def encode_parity(shards: Sequence[Buffer], parity_count: int) -> list[Buffer]:
    """Return the `parity_count` parity shards of the data shards `shards`, which are equally long."""
    data_count = len(shards)
    total = data_count + parity_count
    assert data_count >= 1 and parity_count >= 0 and total <= SHARDS_MAX
    assert all(len(shard) == len(shards[0]) for shard in shards), "data shards differ in length"
    if data_count == 1:
        return [shards[0]] * parity_count
    return _make(shards, data_count, total, tuple(range(data_count)), tuple(range(data_count, total)))


def reconstruct(
    shards: Mapping[int, Buffer], data_count: int, parity_count: int, wanted: Sequence[int]
) -> dict[int, Buffer]:
    """Return the shards with the indexes `wanted`, made from the good ones in `shards` (index to bytes).

    All shards are equally long; they may be the same range of each shard. At least `data_count` are needed;
    those beyond are not looked at. A wanted shard that is among the good ones is returned as it is.
    """
    total = data_count + parity_count
    assert data_count >= 1 and parity_count >= 0 and total <= SHARDS_MAX
    assert len(shards) >= data_count, "too few shards to reconstruct from"
    assert all(0 <= index < total for index in shards) and all(0 <= index < total for index in wanted)
    assert len({len(shard) for shard in shards.values()}) == 1, "shards differ in length"
    found = {index: shards[index] for index in wanted if index in shards}
    lost = tuple(sorted({index for index in wanted if index not in shards}))
    if not lost:
        return found
    if data_count == 1:
        return found | dict.fromkeys(lost, next(iter(shards.values())))
    chosen = tuple(sorted(shards)[:data_count])
    made = _make([shards[index] for index in chosen], data_count, total, chosen, lost)
    return found | dict(zip(lost, made, strict=True))


def _make(
    given: Sequence[Buffer], data_count: int, total: int, chosen: tuple[int, ...], lost: tuple[int, ...]
) -> list[Buffer]:
    """Return the shards `lost` from `given`, which are the shards `chosen`. Both are rising indexes."""
    if lost and len(given[0]) >= _ISAL_BYTES_MIN:
        matrix = _matrix(data_count, total, chosen, lost)
        if matrix is not None:
            return list(matrix.multiply(given))
    return _make_with_zfec(given, data_count, total, chosen, lost)


def _make_with_zfec(
    given: Sequence[Buffer], data_count: int, total: int, chosen: tuple[int, ...], lost: tuple[int, ...]
) -> list[Buffer]:
    if chosen[-1] < data_count:
        data: Sequence[Buffer] = tuple(given)
    else:
        # zfec wants each data shard it is given at its own position, and parity shards in the gaps.
        by_index = dict(zip(chosen, given, strict=True))
        parity = iter([index for index in chosen if index >= data_count])
        order = tuple(index if index in by_index else next(parity) for index in range(data_count))
        data = tuple(_decoder(data_count, total).decode(tuple(by_index[index] for index in order), order))
    lost_data = [data[index] for index in lost if index < data_count]
    lost_parity = tuple(index for index in lost if index >= data_count)
    if not lost_parity:
        return lost_data
    return lost_data + list(_encoder(data_count, total).encode(data, lost_parity))


@lru_cache(maxsize=32)
def _encoder(data_count: int, total: int) -> zfec.Encoder:
    return zfec.Encoder(data_count, total)


@lru_cache(maxsize=32)
def _decoder(data_count: int, total: int) -> zfec.Decoder:
    return zfec.Decoder(data_count, total)


@lru_cache(maxsize=1)
def _isal() -> Isal | None:
    library = load_isal()
    if library is None:
        _log.info("erasure coding runs on zfec; install libisal2 for several times the speed")
    return library


@lru_cache(maxsize=_MATRICES_MAX)
def _matrix(data_count: int, total: int, chosen: tuple[int, ...], lost: tuple[int, ...]) -> IsalMatrix | None:
    """Return libisal's matrix from the shards `chosen` to the shards `lost`, None if zfec is to do it."""
    library = _isal()
    if library is None:
        return None
    units = [bytes(column == row for column in range(data_count)) for row in range(data_count)]
    matrix = library.expand([bytes(row) for row in _make_with_zfec(units, data_count, total, chosen, lost)])
    sample = _sample_shards(data_count)
    if matrix.multiply(sample) != _make_with_zfec(sample, data_count, total, chosen, lost):
        _log.error("libisal disagrees with zfec on %d of %d shards: zfec is used", data_count, total)
        return None
    return matrix


def _sample_shards(count: int) -> list[bytes]:
    """Return shards that between them hold every byte value, each another sequence."""
    return [
        bytes((at * (2 * shard + 1) + shard * 97 + at // 256) % 256 for at in range(_SAMPLE_BYTES))
        for shard in range(count)
    ]
