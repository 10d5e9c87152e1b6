"""Sources can be read twice, and what comes is carved into the parts again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciaosfs.base import limits
from ciaosfs.client.batches import PARTS, BlobSource, FileSource, Source
from ciaosfs.client.download import carve
from ciaosfs.client.keys import blobs

MIB = limits.CONTROL_BODY_BYTES_MAX


@pytest.mark.parametrize(
    "sizes", [[0], [1], [0, 0, 3, 0], [5, 7], [1, 1, 1, 1], [16], [17], [0, 16, 1], [100]]
)
@pytest.mark.parametrize("piece", [1, 4, 16, 1000])
def test_carving_gives_the_parts_back(sizes: list[int], piece: int) -> None:
    whole = bytes(index % 251 for index in range(sum(sizes)))
    pieces = (whole[start : start + piece] for start in range(0, len(whole), piece))
    found = list(carve(pieces, sizes))
    assert [len(part) for part in found] == sizes
    assert b"".join(found) == whole


def gathered(source: Source) -> list[bytes]:
    """The parts as the daemon puts them together."""
    parts: list[bytearray] = []
    for batch in source.batches():
        assert len(batch.data) <= MIB
        assert len(batch.sizes) <= PARTS
        if batch.sizes:
            assert sum(batch.sizes) == len(batch.data)
            parts += map(bytearray, carve(iter([bytes(batch.data)]), batch.sizes))
        else:
            parts += [bytearray()] * batch.begins_part
            parts[-1] += batch.data
    return [bytes(part) for part in parts]


@pytest.mark.parametrize(
    ("parts", "bodies"),
    [
        ([b""], 1),
        ([b"a", b"", b"bc"], 1),
        ([b"x" * (2 * MIB + 1), b"y" * MIB, b"z"], 5),
        ([b"x" * (MIB // 2)] * 5, 3),
        ([b"x"] * (2 * PARTS + 1), 3),
        ([b""] * (PARTS + 1), 2),
        ([b"a", b"x" * MIB, b"b", b"y" * (MIB + 1), b"c"], 6),
    ],
)
def test_blobs_are_sent_part_by_part_any_number_of_times(parts: list[bytes], bodies: int) -> None:
    source = BlobSource(blobs(parts))
    assert source.total == sum(map(len, parts))
    assert gathered(source) == parts
    assert gathered(source) == parts
    assert len(list(source.batches())) == bodies


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_a_file_is_one_part_any_number_of_times(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "f").write_bytes(content[:size])
    with (tmp_path / "f").open("rb", buffering=0) as file:
        source = FileSource(file, size)
        assert gathered(source) == [content[:size]]
        assert gathered(source) == [content[:size]]


def test_a_file_that_grows_or_shrinks_is_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abcdef")
    with (tmp_path / "f").open("rb", buffering=0) as file:
        assert gathered(FileSource(file, 2)) == [b"abcdef"]
        assert gathered(FileSource(file, 100)) == [b"abcdef"]
