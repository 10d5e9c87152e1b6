"""Erasure coding: any loss of up to `parity_count` shards, by both engines, with one and the same result."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import pytest
import zfec

from ciaosfs.base.types import Buffer
from ciaosfs.codec import erasure
from ciaosfs.codec.erasure import encode_parity, reconstruct
from ciaosfs.codec.isal import Isal, load_isal

ISAL = load_isal()
ENGINES = [
    "zfec",
    pytest.param("isal", marks=pytest.mark.skipif(not ISAL, reason="libisal2 is not installed")),
]
LONG_ENOUGH = erasure._ISAL_BYTES_MIN + 13  # so that libisal takes part, and ragged


def forget_engine() -> None:
    erasure._isal.cache_clear()
    erasure._matrix.cache_clear()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run with one engine, for shards of every length."""
    forget_engine()
    monkeypatch.setattr(erasure, "load_isal", lambda: ISAL if request.param == "isal" else None)
    monkeypatch.setattr(erasure, "_ISAL_BYTES_MIN", 0)
    assert erasure.engine() == request.param
    yield request.param
    forget_engine()


def stripe(data_count: int, parity_count: int, length: int, seed: int = 0) -> list[bytes]:
    """Return all shards of a random stripe, coded by zfec itself."""
    dice = random.Random(seed)
    data = tuple(dice.randbytes(length) for _ in range(data_count))
    return [bytes(shard) for shard in zfec.Encoder(data_count, data_count + parity_count).encode(data)]


@pytest.mark.parametrize("length", [1, 15, 63, 64, 65, 1000, 4096, 16384 + 1])
@pytest.mark.parametrize(("data_count", "parity_count"), [(2, 1), (4, 2), (5, 3), (10, 4), (3, 7)])
def test_parity_is_zfecs(engine: str, data_count: int, parity_count: int, length: int) -> None:
    shards = stripe(data_count, parity_count, length)
    assert encode_parity(shards[:data_count], parity_count) == shards[data_count:]


@pytest.mark.parametrize(
    ("data_count", "parity_count"), [(2, 1), (2, 2), (3, 3), (4, 2), (6, 3), (8, 2), (10, 4)]
)
def test_every_loss_that_parity_covers_is_made_good(engine: str, data_count: int, parity_count: int) -> None:
    total = data_count + parity_count
    shards = stripe(data_count, parity_count, 97)
    for lost in combinations(range(total), parity_count):
        left = {index: shards[index] for index in range(total) if index not in lost}
        made = reconstruct(left, data_count, parity_count, lost)
        assert made == {index: shards[index] for index in lost}, f"lost {lost}"


def test_zfec_is_given_exactly_what_its_decoder_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Recorder:
        def decode(self, blocks: tuple[Buffer, ...], numbers: tuple[int, ...]) -> list[Buffer]:
            asked.append(numbers)
            return list(blocks)

    monkeypatch.setattr(erasure, "_decoder", lambda *_: Recorder())
    monkeypatch.setattr(erasure, "_ISAL_BYTES_MIN", 1 << 30)
    shards = dict(enumerate(stripe(4, 3, 10)))
    for lost in combinations(range(7), 2):
        reconstruct({index: shards[index] for index in shards if index not in lost}, 4, 3, lost)
    assert asked
    for numbers in asked:
        assert len(set(numbers)) == 4
        assert all(number in (position, *range(4, 7)) for position, number in enumerate(numbers))


def test_fewer_losses_and_any_choice_of_wanted_shards(engine: str) -> None:
    shards = stripe(4, 2, 500)
    for count in range(4, 7):
        for given in combinations(range(6), count):
            left = {index: shards[index] for index in reversed(given)}
            for wanted in ([5, 0], [0], [3, 2, 1, 0], [4, 4], range(6), []):
                assert reconstruct(left, 4, 2, wanted) == {index: shards[index] for index in wanted}


def test_good_shards_are_handed_back_as_they_are(engine: str) -> None:
    shards = stripe(4, 2, 100)
    given = dict(enumerate(shards[:5]))
    assert reconstruct(given, 4, 2, [4])[4] is shards[4]


def test_the_same_range_of_each_shard_is_enough(engine: str) -> None:
    shards = stripe(4, 2, 50_000)
    part = slice(16384, 32768 + 5)
    left = {index: memoryview(shards[index])[part] for index in (1, 2, 4, 5)}
    assert reconstruct(left, 4, 2, [0, 3]) == {0: shards[0][part], 3: shards[3][part]}


def read_only_view(data: bytes) -> memoryview:
    return memoryview(b"head" + data + b"tail")[4:-4]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, read_only_view])
def test_any_kind_of_buffer_will_do(engine: str, kind: Callable[[bytes], Buffer]) -> None:
    shards = stripe(4, 2, LONG_ENOUGH)
    assert encode_parity([kind(shard) for shard in shards[:4]], 2) == shards[4:]
    assert reconstruct({i: kind(shards[i]) for i in (0, 3, 4, 5)}, 4, 2, [1])[1] == shards[1]


def test_a_stripe_of_as_many_shards_as_the_field_has(engine: str) -> None:
    shards = stripe(200, 56, 40)
    left = dict(enumerate(shards[56:], 56))
    assert reconstruct(left, 200, 56, range(0, 56, 5)) == {index: shards[index] for index in range(0, 56, 5)}


def test_shards_without_bytes(engine: str) -> None:
    assert encode_parity([b""] * 4, 2) == [b"", b""]
    assert reconstruct({2: b"", 3: b"", 4: b"", 5: b""}, 4, 2, [0]) == {0: b""}


def test_no_parity_asked_no_parity_made(engine: str) -> None:
    assert encode_parity([b"a", b"b"], 0) == []


def test_a_replicated_stripe_is_one_buffer_many_times(engine: str) -> None:
    data = b"the same"
    assert all(shard is data for shard in encode_parity([data], 3))
    assert reconstruct({2: data}, 1, 3, [0, 1, 3]) == {0: data, 1: data, 3: data}
    assert all(shard is data for shard in reconstruct({2: data}, 1, 3, [0, 3]).values())


def test_threads_share_one_matrix(engine: str) -> None:
    stripes = [stripe(4, 2, 20_000 + seed, seed) for seed in range(40)]

    def there_and_back(shards: list[bytes]) -> bool:
        parity = encode_parity(shards[:4], 2)
        return reconstruct({0: shards[0], 3: shards[3], 4: parity[0], 5: parity[1]}, 4, 2, [1, 2]) == {
            1: shards[1],
            2: shards[2],
        }

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, stripes * 3))


@pytest.mark.parametrize(
    ("given", "data_count", "parity_count", "wanted"),
    [
        ({0: b"a", 1: b"b", 2: b"c"}, 4, 2, [3]),
        ({0: b"a", 1: b"bb"}, 2, 1, [2]),
        ({0: b"a", 3: b"b"}, 2, 1, [1]),
        ({0: b"a", 1: b"b"}, 2, 1, [3]),
        ({0: b"a", 1: b"b"}, 2, 255, [2]),
        ({0: b"a"}, 0, 1, [0]),
    ],
)
def test_what_cannot_be_is_our_bug(
    given: dict[int, Buffer], data_count: int, parity_count: int, wanted: list[int]
) -> None:
    with pytest.raises(AssertionError):
        reconstruct(given, data_count, parity_count, wanted)


@pytest.mark.parametrize(
    ("shards", "parity_count"), [([], 1), ([b"a", b"bb"], 1), ([b"a"] * 4, -1), ([b"a"] * 4, 253)]
)
def test_shards_that_make_no_stripe_are_our_bug(shards: list[Buffer], parity_count: int) -> None:
    with pytest.raises(AssertionError):
        encode_parity(shards, parity_count)


def test_without_libisal_zfec_does_it_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forget_engine()
    monkeypatch.setattr(erasure, "load_isal", lambda: None)
    with caplog.at_level(logging.INFO):
        shards = stripe(4, 2, LONG_ENOUGH)
        for _ in range(3):
            assert encode_parity(shards[:4], 2) == shards[4:]
    assert erasure.engine() == "zfec"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    forget_engine()


@pytest.mark.skipif(not ISAL, reason="libisal2 is not installed")
def test_a_libisal_that_computes_wrongly_is_found_before_its_first_use(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong:
        def expand(self, rows: list[bytes]) -> object:
            assert ISAL
            return ISAL.expand([bytes([rows[0][0] ^ 1]) + rows[0][1:], *rows[1:]])

    forget_engine()
    monkeypatch.setattr(erasure, "load_isal", Wrong)
    shards = stripe(4, 2, LONG_ENOUGH)
    for _ in range(3):
        assert encode_parity(shards[:4], 2) == shards[4:]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    forget_engine()


def test_a_library_of_that_name_without_the_functions_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ciaosfs.codec.isal._SONAME", "libc.so.6")
    assert load_isal() is None
    monkeypatch.setattr("ciaosfs.codec.isal._SONAME", "libno.such.so.9")
    assert load_isal() is None


@pytest.mark.skipif(not ISAL, reason="libisal2 is not installed")
def test_buffers_are_let_go_after_a_product_and_after_an_error() -> None:
    assert isinstance(ISAL, Isal)
    matrix = ISAL.expand([b"\x01\x01"])
    one, other = bytearray(b"\x01" * 8), bytearray(b"\x03" * 8)
    (product,) = matrix.multiply([one, other])
    assert product == b"\x02" * 8
    with pytest.raises(BufferError):
        matrix.multiply([one, memoryview(bytes(16))[::2]])
    for buffer in (one, other, product):
        buffer.append(0)  # a buffer that is still viewed refuses to grow
