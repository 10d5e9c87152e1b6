"""Measure what every byte pays on its way to a drive: hash, coding, compression, needle heads, hops, file I/O.

    python tools/bench_codec.py [--json] [--data K] [--parity M] [--directory DIR] [--seconds S]

Each figure is the best of several rounds, in microseconds for one call of what its name says: the best is what the
code costs, the rest is what the machine did meanwhile. Compare figures of one run. `--directory` is where the file
I/O happens (default: a temporary directory); it measures the page cache, not the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from ciaosfs.base.limits import CHECK_BLOCK_BYTES, COMPRESS_BLOCK_BYTES, KIB, MIB
from ciaosfs.base.types import StripeKind
from ciaosfs.codec import erasure
from ciaosfs.codec.checksum import block_checksums, hash64, verify_blocks
from ciaosfs.codec.compression import compress_block, decompress_block
from ciaosfs.codec.needle import NeedleHead, NeedleKind, decode_head, encode_head
from ciaosfs.drive.local import make_drive, open_drive, volume_name
from ciaosfs.drive.workers import Workers

ROUNDS = 7
STORE = bytes(range(16))


class Bench:
    """Times calls and keeps the figures by name, in the order they were taken."""

    def __init__(self, seconds: float) -> None:
        """Give each figure about `seconds`."""
        self._round_s = seconds / ROUNDS
        self.figures: dict[str, float] = {}

    def time(self, name: str, call: Callable[[], object]) -> None:
        call()  # tables and caches are built once, in earnest use too
        started = time.perf_counter()
        call()
        calls = max(1, int(self._round_s / max(time.perf_counter() - started, 1e-7)))
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for _ in range(calls):
                call()
            best = min(best, (time.perf_counter() - started) / calls)
        self.record(name, best)

    def record(self, name: str, seconds: float) -> None:
        self.figures[name] = round(seconds * 1e6, 2)


def bench_checksums(bench: Bench) -> None:
    data = random.Random(1).randbytes(MIB)
    sums = block_checksums([data], 5, 1)
    view = memoryview(data)[:CHECK_BLOCK_BYTES]
    bench.time("hash of 1 MiB", lambda: hash64(data))
    bench.time("block checksums of 1 MiB", lambda: block_checksums([data], 5, 1))
    bench.time("verify 1 MiB", lambda: verify_blocks(data, sums, 0, 5, 1))
    bench.time("verify one block", lambda: verify_blocks(view, sums, 0, 5, 1))


def bench_erasure(bench: Bench, data_count: int, parity_count: int) -> None:
    dice = random.Random(2)
    name = f"{data_count}+{parity_count}"
    lost = list(range(parity_count))
    for size, words in ((16 * KIB, "16 KiB"), (MIB, "1 MiB")):
        data = [dice.randbytes(size) for _ in range(data_count)]
        shards = dict(enumerate([*data, *erasure.encode_parity(data, parity_count)]))
        left = {index: shards[index] for index in shards if index not in lost}
        for engine in sorted({"zfec", erasure.engine()}, reverse=True):
            with only_engine(engine):
                bench.time(
                    f"encode {name}, shards of {words}, {engine}",
                    partial(erasure.encode_parity, data, parity_count),
                )
                bench.time(
                    f"reconstruct {parity_count} of {name}, shards of {words}, {engine}",
                    partial(erasure.reconstruct, left, data_count, parity_count, lost),
                )


class only_engine:
    """Make erasure use one engine inside a with block."""

    def __init__(self, engine: str) -> None:
        self._bytes_min = 0 if engine == "isal" else sys.maxsize

    def __enter__(self) -> None:
        self._before, erasure._ISAL_BYTES_MIN = erasure._ISAL_BYTES_MIN, self._bytes_min

    def __exit__(self, *_: object) -> None:
        erasure._ISAL_BYTES_MIN = self._before


def bench_compression(bench: Bench) -> None:
    dice = random.Random(3)
    text = b"".join(b"epoch %d loss %.6f time %d\n" % (n, dice.random(), n * 17) for n in range(9000))
    weights = struct.pack("<32768f", *[dice.gauss(0, 0.02) for _ in range(32768)])
    for name, data in (
        ("noise", dice.randbytes(COMPRESS_BLOCK_BYTES)),
        ("32-bit weights", weights),
        ("text", text[:COMPRESS_BLOCK_BYTES]),
    ):
        packed = compress_block(data)
        words = "left alone" if packed is None else f"to {100 * len(packed) / len(data):.0f} %"
        bench.time(f"compress 128 KiB of {name} ({words})", partial(compress_block, data))
        if packed is not None:
            bench.time(
                f"decompress 128 KiB of {name}",
                partial(decompress_block, packed, len(data)),
            )


def bench_needle(bench: Bench) -> None:
    for size, words in ((8 * KIB, "8 KiB"), (MIB, "1 MiB")):
        sums = block_checksums([bytes(size)], 7, 2)
        head = NeedleHead(NeedleKind.SHARD, STORE, 3, 4096, 7, 2, 4, 2, StripeKind.FILE, 4 * size, size, sums)
        raw = encode_head(head)
        bench.time(f"encode head for {words}", partial(encode_head, head))
        bench.time(
            f"decode head for {words}",
            partial(decode_head, raw, store_id=STORE, volume_id=3, offset=4096, stripe_id=7),
        )


def bench_drive(bench: Bench, directory: Path) -> None:
    path = str(directory / "drive")
    make_drive(path, store_id=STORE, number=0)
    drive = open_drive(path, STORE, 0)
    file = drive.create(volume_name(1))
    parts = [bytes(4096), random.Random(4).randbytes(MIB)]
    bench.time("write 1 MiB + head (page cache)", lambda: file.write(4096, parts))
    bench.time("read 1 MiB (page cache)", lambda: file.read(8192, MIB))
    words = "found" if file.read_nowait(8192, CHECK_BLOCK_BYTES) is not None else "not supported here"
    bench.time(f"read_nowait 16 KiB ({words})", lambda: file.read_nowait(8192, CHECK_BLOCK_BYTES))
    bench.time(f"read_nowait 1 MiB ({words})", lambda: file.read_nowait(8192, MIB))
    bench.time("is_present", drive.is_present)
    bench.time("free", drive.free)
    file.close()
    drive.close()


async def bench_hops(bench: Bench, seconds: float) -> None:
    async with Workers() as workers:
        figures = {"thread hop": float("inf"), "thread hop, trio.to_thread": float("inf")}
        figures["thread hop, 16 at a time"] = float("inf")
        deadline = time.perf_counter() + 3 * seconds
        while time.perf_counter() < deadline:  # in turns: the machine's moods hit all alike
            started = time.perf_counter()
            for _ in range(200):
                await workers.run(int)
            record_best(figures, "thread hop", started, 200)
            started = time.perf_counter()
            for _ in range(100):
                await trio.to_thread.run_sync(int)
            record_best(figures, "thread hop, trio.to_thread", started, 100)
            started = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for _ in range(16):
                    nursery.start_soon(run_some, workers, 20)
            record_best(figures, "thread hop, 16 at a time", started, 320)
    for name, figure in figures.items():
        bench.record(name, figure)


async def run_some(workers: Workers, count: int) -> None:
    for _ in range(count):
        await workers.run(int)


def record_best(figures: dict[str, float], name: str, started: float, count: int) -> None:
    figures[name] = min(figures[name], (time.perf_counter() - started) / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--data", type=int, default=4, help="data shards (default 4)")
    parser.add_argument("--parity", type=int, default=2, help="parity shards (default 2)")
    parser.add_argument("--directory", type=Path, help="where file I/O happens")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each figure (default 0.3)")
    options = parser.parse_args()
    bench = Bench(options.seconds)
    bench_checksums(bench)
    bench_erasure(bench, options.data, options.parity)
    bench_compression(bench)
    bench_needle(bench)
    with TemporaryDirectory(prefix="ciaosfs-bench-", dir=options.directory) as directory:
        bench_drive(bench, Path(directory))
    trio.run(bench_hops, bench, options.seconds)
    if options.json:
        result = {"engine": erasure.engine(), "cpus": os.cpu_count(), "unit": "us", "figures": bench.figures}
        json.dump(result, sys.stdout, indent=2)
        print()
        return
    for name, figure in bench.figures.items():
        print(f"{figure:10.2f} us  {name}")


if __name__ == "__main__":
    main()
