"""Measure how long requests wait while an image of the metadata is written.

    python -m tools.bench_image [--inodes 1000000] [--images 2] [--beside 1] [--keep DIRECTORY] [--allowed MS]

A store is filled with small files and opened in this process. A request of a few metadata calls is due every millisecond,
first with nothing beside it but the commits that it makes itself, then while images are written. `--beside` processes
that never rest are the programs whose requests those would be. What is told is how late requests were done, and, for the
latest, what the image was doing: *held* is time before the request could begin, since the loop was busy or had no
processor, *waited* is time at the gate, while a commit makes its cut. The store is kept and used again with `--keep`.
One JSON object on stdout. Ends with status 1 when a request was later than `--allowed`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from ciaosfsd.lifecycle import SWITCH_INTERVAL_S

from ciaosfs.base.config import load_config
from ciaosfs.base.crashpoints import hooked
from ciaosfs.base.types import Codec, Extent
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.opening import open_store
from ciaosfs.fs.requester import Requester
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.offline.mkfs import make_store, plan_store

WHO = Requester(os.getuid(), os.getgid(), os.getpid(), 0o022)
PERIOD_S = 0.001
QUIET_S = 12.0
"""More than two commits."""
DIRECTORY_FILES = 1000
FILE_BYTES = 400
STRIPE_FILES = 10 * DIRECTORY_FILES
LATEST = 8
"""Requests told one by one."""


@dataclass
class Late:
    """One request: milliseconds it was held and waited, and after which step of the image."""

    held_ms: float
    waited_ms: float
    phase: str

    @property
    def total_ms(self) -> float:
        return self.held_ms + self.waited_ms


@dataclass
class Watch:
    """Requests that were made, and what goes on beside them."""

    phase: str = "nothing"
    requests: list[Late] = field(default_factory=list)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Let `phase` be the last step that was reached."""

        def reached(name: str) -> None:
            self.phase = name

        with hooked(reached):
            yield

    def told(self) -> dict[str, object]:
        ordered = sorted(self.requests, key=lambda late: late.total_ms)
        return {
            "requests": len(ordered),
            "p50_ms": round(ordered[len(ordered) // 2].total_ms, 3),
            "p99_ms": round(ordered[int(0.99 * len(ordered))].total_ms, 3),
            "max_ms": round(ordered[-1].total_ms, 1),
            "latest": [
                f"{late.held_ms:.1f} held, {late.waited_ms:.1f} waited, after {late.phase}"
                for late in reversed(ordered[-LATEST:])
            ],
        }


async def fill(filesystem: FileSystem, inodes: int) -> None:
    """Files in folders, as many as lack. Their bytes are written as a commit would write them, but all at once."""
    parts, count = filesystem.parts, 0
    while filesystem.inode_count() < inodes:
        if count % STRIPE_FILES == 0:
            stripe = await parts.chunks.write_stripe([bytes(STRIPE_FILES * FILE_BYTES)])
            await parts.gate.wait_open()
            parts.meta.stripes.insert(stripe)
        name = b"%d" % filesystem.inode_count()
        folder = await filesystem.mkdir(ROOT_INO, b"folder" + name, 0o755, WHO)
        for number in range(DIRECTORY_FILES):
            file = await filesystem.mknod(folder.ino, b"a file called %d" % number, 0o100644, 0, WHO)
            place = count % STRIPE_FILES * FILE_BYTES
            extent = Extent(0, FILE_BYTES, stripe.stripe_id, place, FILE_BYTES, Codec.RAW, 0)
            parts.meta.inodes.grow(file.ino, FILE_BYTES)
            parts.meta.extents.replace(file.ino, 0, FILE_BYTES, [extent])
            count += 1
        await trio.lowlevel.checkpoint()
    await filesystem.sync()


async def request(filesystem: FileSystem) -> None:
    """What a program does to a small file: a look, a new name, its attributes, and away with it."""
    filesystem.lookup(ROOT_INO, b"folder1")
    inode = await filesystem.mknod(ROOT_INO, b"new", 0o100644, 0, WHO)
    filesystem.getattr(inode.ino)
    await filesystem.unlink(ROOT_INO, b"new")
    filesystem.forget([inode.ino])


async def keep_asking(filesystem: FileSystem, watch: Watch) -> None:
    """A request every PERIOD_S, until cancelled; one that is late makes the next ones no later."""
    while True:
        due = time.perf_counter() + PERIOD_S
        await trio.sleep(PERIOD_S)
        began = time.perf_counter()
        phase = watch.phase
        await request(filesystem)
        done = time.perf_counter()
        watch.requests.append(Late(1000 * (began - due), 1000 * (done - began), phase))


async def watched(filesystem: FileSystem, seconds: float, images: int) -> Watch:
    """Ask for so long, and until so many images are written."""
    watch = Watch()
    with watch.following():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_asking, filesystem, watch)
            await trio.sleep(seconds)
            for _ in range(images):
                watch.phase = "the demand"
                await filesystem.parts.imager.write()
            nursery.cancel_scope.cancel()
    return watch


async def run(options: argparse.Namespace, path: Path) -> dict[str, object]:
    config = replace(load_config(path), commit_interval_s=5.0)
    async with Workers() as workers, open_store(config, workers) as filesystem:
        began = time.monotonic()
        await fill(filesystem, options.inodes)
        print(f"filled in {time.monotonic() - began:.1f} s", file=sys.stderr)
        with company(options.beside):
            quiet = await watched(filesystem, QUIET_S, 0)
            began = time.monotonic()
            busy = await watched(filesystem, 0, options.images)
            seconds = time.monotonic() - began
        status = filesystem.parts.imager.status()
        return {
            "inodes": filesystem.inode_count(),
            "image_bytes": status.stored_bytes,
            "image_s": round(seconds / max(options.images, 1), 1),
            "without": quiet.told(),
            "with_images": busy.told(),
        }


@contextmanager
def company(processes: int) -> Iterator[None]:
    """So many processes that use all the processor they get."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inodes", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--beside", type=int, default=1, help="busy processes beside it (default 1)")
    parser.add_argument("--keep", type=Path, help="make the store here, or use the one that is here")
    parser.add_argument("--allowed", type=float, default=20.0, help="milliseconds a request may be late")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)  # as the daemon does
    with TemporaryDirectory(prefix="ciaosfs-bench-") as directory:
        path = options.keep or Path(directory) / "store"
        if not path.exists():
            make_store(plan_store(path, [path / "drives" / f"d{number}" for number in range(6)], 4, 2))
        result = trio.run(run, options, path)
    json.dump(result, sys.stdout, indent=2)
    print()
    latest = result["with_images"]
    assert isinstance(latest, dict)
    return 1 if float(latest["max_ms"]) > options.allowed else 0


if __name__ == "__main__":
    sys.exit(main())
