"""The timed phases. Each is given a workspace on one target and returns what it did in how many seconds.

Data is random, made once before anything is timed. A phase that needs files which an earlier one makes has
them made outside the clock when that one was filtered away. Nothing here knows which target it runs on.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
PROCESSES = 4
THREADS = 4
FOLDERS = 30
FILE_BYTES_MIN, FILE_BYTES_MAX = 2_000, 30_000


@dataclass(frozen=True)
class Scale:
    """How much each phase does."""

    stream_bytes: int
    files: int = 3000
    random_reads: int = 4000
    appends: int = 2000
    empty_files: int = 3000
    synced_appends: int = 200

    def times(self, factor: float) -> Scale:
        """The same phases with *factor* times as much to do."""
        return Scale(
            stream_bytes=max(4, round(self.stream_bytes * factor / MIB)) * MIB,
            files=max(FOLDERS, round(self.files * factor)),
            random_reads=max(THREADS, round(self.random_reads * factor)),
            appends=max(20, round(self.appends * factor)),
            empty_files=max(PROCESSES, round(self.empty_files * factor)),
            synced_appends=max(5, round(self.synced_appends * factor)),
        )


@dataclass(frozen=True)
class Sample:
    """One measurement: `amount` of the phase's unit in `seconds`."""

    amount: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.amount / self.seconds


@dataclass
class Workspace:
    """One round on one target: a directory of its own, the shared random pool, the seed all targets share."""

    directory: Path
    scale: Scale
    pool: memoryview
    seed: int
    paths: list[str] = field(default_factory=list)

    @property
    def stream(self) -> str:
        return str(self.directory / "stream")

    def need_stream(self) -> None:
        if not os.path.exists(self.stream):
            write_stream(self)

    def need_files(self) -> None:
        if not self.paths:
            create_files(self)

    def blocks(self) -> Iterator[memoryview]:
        """The pieces of the stream, 1 MiB each."""
        for index in range(self.scale.stream_bytes // MIB):
            start = index * MIB % len(self.pool)
            yield self.pool[start : start + MIB]

    def check_stream(self) -> None:
        """Assert that the stream reads back as it was written: speed of wrong bytes is worth nothing."""
        buffer = bytearray(MIB)
        with open(self.stream, "rb", buffering=0) as file:
            for index, block in enumerate(self.blocks()):
                assert file.readinto(buffer) == MIB and buffer == block, f"{self.stream}: MiB {index} differs"

    def clear(self) -> None:
        shutil.rmtree(self.directory)


class Clock:
    """Seconds between entering and leaving `timed()`."""

    seconds = 0.0


@contextmanager
def timed() -> Iterator[Clock]:
    clock = Clock()
    start = time.perf_counter()
    yield clock
    clock.seconds = time.perf_counter() - start


def run_forked(works: Sequence[Callable[[], None]]) -> float:
    """Run each of *works* in a process of its own, all let go at once; seconds until the last has ended."""
    go_read, go_write = os.pipe()
    pids = []
    for work in works:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.read(go_read, 1)
                work()
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    time.sleep(0.1)  # until all of them wait for the start
    with timed() as clock:
        os.write(go_write, b"g" * len(works))
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    os.close(go_read)
    os.close(go_write)
    assert not any(statuses), f"worker processes failed: {statuses}"
    return clock.seconds


def write_stream(work: Workspace) -> Sample:
    with timed() as clock:
        descriptor = os.open(work.stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for block in work.blocks():
            assert os.write(descriptor, block) == MIB
        os.fsync(descriptor)
        os.close(descriptor)
    return Sample(work.scale.stream_bytes / MIB, clock.seconds)


def read_stream(work: Workspace) -> Sample:
    buffer = bytearray(MIB)
    with timed() as clock:
        descriptor = os.open(work.stream, os.O_RDONLY)
        total = 0
        while count := os.readv(descriptor, [buffer]):
            total += count
        os.close(descriptor)
    assert total == work.scale.stream_bytes
    return Sample(total / MIB, clock.seconds)


def read_random(work: Workspace) -> Sample:
    """4 KiB reads at aligned random places, by four threads on one descriptor each."""
    count = work.scale.random_reads // THREADS
    pages = work.scale.stream_bytes // 4096

    def read_some(number: int) -> None:
        dice = random.Random(work.seed * THREADS + number)
        descriptor = os.open(work.stream, os.O_RDONLY)
        for _ in range(count):
            offset = dice.randrange(pages) * 4096
            data = os.pread(descriptor, 4096, offset)
            assert data == work.pool[offset % len(work.pool) :][:4096]
        os.close(descriptor)

    with ThreadPoolExecutor(THREADS) as threads, timed() as clock:
        for future in [threads.submit(read_some, number) for number in range(THREADS)]:
            future.result()
    return Sample(count * THREADS, clock.seconds)


def create_files(work: Workspace) -> Sample:
    dice = random.Random(work.seed)
    plan = []
    for index in range(work.scale.files):
        size = dice.randrange(FILE_BYTES_MIN, FILE_BYTES_MAX)
        start = dice.randrange(len(work.pool) - size)
        path = f"{work.directory}/tree/folder{index % FOLDERS:02d}/file{index:05d}.bin"
        plan.append((path, work.pool[start : start + size]))
    with timed() as clock:
        os.mkdir(f"{work.directory}/tree")
        for folder in range(FOLDERS):
            os.mkdir(f"{work.directory}/tree/folder{folder:02d}")
        for path, data in plan:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(descriptor, data)
            os.close(descriptor)
    work.paths = [path for path, _ in plan]
    return Sample(len(plan), clock.seconds)


def read_shuffled(work: Workspace) -> Sample:
    """Every small file once, in random order, shared out among four processes."""
    paths = list(work.paths)
    random.Random(work.seed + 1).shuffle(paths)

    def reader(mine: list[str]) -> Callable[[], None]:
        def read_all() -> None:
            for path in mine:
                descriptor = os.open(path, os.O_RDONLY)
                while os.read(descriptor, 65536):
                    pass
                os.close(descriptor)

        return read_all

    seconds = run_forked([reader(paths[number::PROCESSES]) for number in range(PROCESSES)])
    return Sample(len(paths), seconds)


def walk(work: Workspace) -> Sample:
    """List every folder and stat every entry."""
    count = 0
    with timed() as clock:
        pending = [f"{work.directory}/tree"]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    entry.stat(follow_symlinks=False)
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    assert count == len(work.paths) + FOLDERS
    return Sample(count, clock.seconds)


def append_small(work: Workspace) -> Sample:
    """Open, append 100 bytes, close: what twenty loggers without an open file do."""
    os.mkdir(f"{work.directory}/logs")
    line = bytes(work.pool[:100])
    with timed() as clock:
        for index in range(work.scale.appends):
            path = f"{work.directory}/logs/log{index % 20}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.write(descriptor, line)
            os.close(descriptor)
    return Sample(work.scale.appends, clock.seconds)


def rename_files(work: Workspace) -> Sample:
    pairs = [(path, path[:-4] + ".renamed") for path in work.paths]
    with timed() as clock:
        for old, new in pairs:
            os.rename(old, new)
    work.paths = [new for _, new in pairs]
    return Sample(len(pairs), clock.seconds)


def delete_files(work: Workspace) -> Sample:
    with timed() as clock:
        for path in work.paths:
            os.unlink(path)
    count = len(work.paths)
    shutil.rmtree(f"{work.directory}/tree")
    work.paths = []
    return Sample(count, clock.seconds)


def create_empty(work: Workspace) -> Sample:
    """Empty files by four processes, each in a folder of its own."""
    count = work.scale.empty_files // PROCESSES

    def creator(folder: str) -> Callable[[], None]:
        def create_all() -> None:
            for index in range(count):
                os.close(os.open(f"{folder}/{index}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))

        return create_all

    folders = [f"{work.directory}/empty{number}" for number in range(PROCESSES)]
    for folder in folders:
        os.mkdir(folder)
    return Sample(count * PROCESSES, run_forked([creator(folder) for folder in folders]))


def append_synced(work: Workspace) -> Sample:
    """Append 4 KiB and fsync, one after the other on one open file."""
    count = work.scale.synced_appends
    with timed() as clock:
        descriptor = os.open(f"{work.directory}/journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for index in range(count):
            os.write(descriptor, work.pool[index * 4096 : (index + 1) * 4096])
            os.fsync(descriptor)
        os.close(descriptor)
    return Sample(count, clock.seconds)


@dataclass(frozen=True)
class Phase:
    """A row of the table. `reach` is the ratio to `against` that is asked for, None without a demand."""

    name: str
    title: str
    unit: str
    run: Callable[[Workspace], Sample]
    needs: Callable[[Workspace], None] | None = None
    cold: bool = False
    against: str = "ceiling"
    reach: float | None = 1.0


STREAM, FILES = Workspace.need_stream, Workspace.need_files


PHASES = (
    Phase("write", "sequential write, 1 MiB calls + fsync", "MiB/s", write_stream, against="zfec", reach=0.3),
    Phase("read", "sequential read, cold", "MiB/s", read_stream, STREAM, True, "plain", 0.6),
    Phase("random", "4 KiB random reads, 4 threads, cold", "/s", read_random, STREAM, True, reach=None),
    Phase("create", "create files of 2-30 KB in 30 folders", "/s", create_files),
    Phase("walk-cold", "walk with stat, cold", "/s", walk, FILES, True),
    Phase("walk-warm", "walk with stat, warm", "/s", walk, FILES),
    Phase("shuffled-cold", "read them shuffled, 4 processes, cold", "/s", read_shuffled, FILES, True),
    Phase("shuffled-warm", "read them shuffled again, warm", "/s", read_shuffled, FILES),
    Phase("append", "append 100 bytes: open, append, close", "/s", append_small),
    Phase("rename", "rename", "/s", rename_files, FILES),
    Phase("delete", "delete", "/s", delete_files, FILES),
    Phase("empty", "create empty files, 4 processes", "/s", create_empty),
    Phase("append-fsync", "append 4 KiB + fsync", "/s", append_synced, against="plain", reach=None),
)
