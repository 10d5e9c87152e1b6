"""A stripe's shards: parity from data, and lost shards from any `data_count` good ones.

The code is zfec's: systematic Reed-Solomon over GF(2^8), shards 0..k-1 are the data. Here only is zfec
spoken, which calls the total number of shards `m`; everyone else says `data_count` and `parity_count`. A
stripe with `data_count` 1 is replicated: every shard is the same buffer. Shards must have been verified
before they come here: any code answers garbage, without a word, to a damaged or mislabelled shard. All
functions may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import zfec

from ciaosfs.base.limits import SHARDS_MAX
from ciaosfs.base.types import Buffer


def engine() -> str:
    """Return the name of what does the arithmetic."""
    return "zfec"


def encode_parity(shards: Sequence[Buffer], parity_count: int) -> list[Buffer]:
    """Return the `parity_count` parity shards of the data shards `shards`, which are equally long."""
    data_count = len(shards)
    assert data_count >= 1 and parity_count >= 0 and data_count + parity_count <= SHARDS_MAX
    assert len({len(shard) for shard in shards}) == 1, "data shards differ in length"
    if data_count == 1:
        return [shards[0]] * parity_count
    if parity_count == 0:
        return []
    total = data_count + parity_count
    return list(_encoder(data_count, total).encode(tuple(shards), tuple(range(data_count, total))))


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
    lost = [index for index in wanted if index not in shards]
    found = {index: shards[index] for index in wanted if index in shards}
    if not lost:
        return found
    if data_count == 1:
        copy = next(iter(shards.values()))
        return found | dict.fromkeys(lost, copy)
    chosen = sorted(shards)[:data_count]
    return found | dict(zip(lost, _zfec_reconstruct(shards, chosen, data_count, total, lost), strict=True))


def _zfec_reconstruct(
    shards: Mapping[int, Buffer], chosen: Sequence[int], data_count: int, total: int, lost: Sequence[int]
) -> list[Buffer]:
    # zfec wants each data shard it is given at its own position, and the parity shards in the gaps.
    parity = iter([index for index in chosen if index >= data_count])
    present = set(chosen)
    order = tuple(index if index in present else next(parity) for index in range(data_count))
    data = _decoder(data_count, total).decode(tuple(shards[index] for index in order), order)
    lost_parity = tuple(index for index in lost if index >= data_count)
    made = _encoder(data_count, total).encode(tuple(data), lost_parity) if lost_parity else []
    parity_made = dict(zip(lost_parity, made, strict=True))
    return [data[index] if index < data_count else parity_made[index] for index in lost]


@lru_cache(maxsize=32)
def _encoder(data_count: int, total: int) -> zfec.Encoder:
    return zfec.Encoder(data_count, total)


@lru_cache(maxsize=32)
def _decoder(data_count: int, total: int) -> zfec.Decoder:
    return zfec.Decoder(data_count, total)
