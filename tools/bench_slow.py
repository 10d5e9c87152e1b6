"""Measure what one slow drive costs those who read: 64 KiB at random places, cold, healthy and with one drive delayed.

    python -m tools.bench_slow [--markdown] [--reads N] [--delay S] [--data K] [--parity M] [--directory DIR]

The drives are directories of one file system: its device, and the processors, do the work of all of them, and going round
a drive costs k reads in place of one. On a device that answers in less than a millisecond that is what is seen; `--seek`
gives the drives the latency of disks.

The same store is read twice, by `--readers` tasks at a time: first as it is, then with every read of one drive delayed.
The second part begins with drives that are not known to lag. The page cache is asked to forget the volumes again and
again, so what is measured includes the disk. Ends with status 1 when p99 grew by more than `--allowed`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from ciaosfsd.lifecycle import SWITCH_INTERVAL_S

from ciaosfs.base.limits import KIB, STRIPE_PAYLOAD_BYTES_MAX
from ciaosfs.base.types import StripeRecord
from ciaosfs.stripe.store import ChunkStore
from tests.support.chunks import Bench
from tests.support.slow_drive import SlowDrives

READ_BYTES = 64 * KIB
FORGET_EVERY = 32
"""Reads between two requests to forget the volumes."""


def forget_pages(bench: Bench) -> None:
    for drive in bench.drives:
        for path in (drive.path / "volumes").iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


async def measure(
    bench: Bench, chunks: ChunkStore, stripes: list[StripeRecord], reads: int, readers: int, seed: int
) -> list[float]:
    """Seconds of each read."""
    dice = random.Random(seed)
    places = STRIPE_PAYLOAD_BYTES_MAX // READ_BYTES
    todo = [(stripe, place * READ_BYTES) for stripe in stripes for place in range(places)]
    todo = [dice.choice(todo) for _ in range(reads)]
    seconds: list[float] = []

    async def read_on() -> None:
        while todo:
            stripe, offset = todo.pop()
            if len(todo) % FORGET_EVERY == 0:
                forget_pages(bench)
            started = time.perf_counter()
            await chunks.read(stripe, offset, READ_BYTES)
            seconds.append(time.perf_counter() - started)

    async with trio.open_nursery() as nursery:
        for _ in range(readers):
            nursery.start_soon(read_on)
    return seconds


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(seconds)
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
        for name, share in (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99), ("max_ms", 1.0))
    }


async def run(options: argparse.Namespace, directory: Path) -> dict[str, object]:
    bench = Bench.make(directory, options.data, options.parity)
    drives = SlowDrives()
    async with bench.store(drives) as chunks:
        payload = random.Random(1).randbytes(STRIPE_PAYLOAD_BYTES_MAX)
        stripes = [await chunks.write_stripe([payload]) for _ in range(options.stripes)]
        await chunks.sync()
        for drive in bench.drives:
            drives[drive.number].delay_s["read"] = options.seek
        # First what a store that runs for a while knows: heads, those of parity too, threads, bounds.
        for stripe in stripes:
            assert await chunks.damaged_shards(stripe) == []
        await measure(bench, chunks, stripes, options.reads // 4, options.readers, 2)
        before = chunks.statistics().reads
        healthy = percentiles(await measure(bench, chunks, stripes, options.reads, options.readers, 3))
        between = chunks.statistics().reads
        drives[1].delay_s["read"] = options.seek + options.delay
        slow = percentiles(await measure(bench, chunks, stripes, options.reads, options.readers, 4))
        after = chunks.statistics().reads
    return {
        "coding": f"{options.data}+{options.parity}",
        "reads": options.reads,
        "readers": options.readers,
        "delay_ms": 1000 * options.delay,
        "seek_ms": 1000 * options.seek,
        "healthy": {
            **healthy,
            "hedges": between.hedges - before.hedges,
            "rounds": between.rounds - before.rounds,
        },
        "one_drive_delayed": {
            **slow,
            "hedges": after.hedges - between.hedges,
            "rounds": after.rounds - between.rounds,
        },
        "p99_ratio": round(slow["p99_ms"] / healthy["p99_ms"], 2),
    }


def print_markdown(result: dict[str, object]) -> None:
    healthy, slow = result["healthy"], result["one_drive_delayed"]
    assert isinstance(healthy, dict) and isinstance(slow, dict)
    print(f"64 KiB random reads, cold, {result['coding']}, {result['readers']} at a time:\n")
    print(f"| | healthy | one drive delayed by {result['delay_ms']:.0f} ms |\n|---|---:|---:|")
    for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "hedges", "rounds"):
        print(f"| {name.replace('_ms', ', ms')} | {healthy[name]} | {slow[name]} |")
    print(f"\np99 is {result['p99_ratio']} times the healthy one.")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--markdown", action="store_true", help="a table instead of one JSON object")
    parser.add_argument("--reads", type=int, default=3000)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--stripes", type=int, default=32)
    parser.add_argument("--delay", type=float, default=0.1, help="seconds added to each read (default 0.1)")
    parser.add_argument(
        "--seek",
        type=float,
        default=0.0,
        help="seconds added to each read of every drive, as disks that turn do",
    )
    parser.add_argument("--data", type=int, default=4)
    parser.add_argument("--parity", type=int, default=2)
    parser.add_argument("--allowed", type=float, default=1.5, help="how many times p99 may grow")
    parser.add_argument("--directory", type=Path, help="where the drives are made")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)  # as the daemon does
    with TemporaryDirectory(prefix="ciaosfs-bench-", dir=options.directory) as directory:
        result = trio.run(run, options, Path(directory))
    if options.markdown:
        print_markdown(result)
    else:
        json.dump(result, sys.stdout, indent=2)
        print()
    return 1 if float(str(result["p99_ratio"])) > options.allowed else 0


if __name__ == "__main__":
    sys.exit(main())
