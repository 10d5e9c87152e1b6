"""The world a store lives in: its drives, the files of its database, its clock, and the moment of its crash.

One seed decides everything. Every operation on a drive or a file of the database passes through `operation`, which
notes it in the trace and may be the moment of the crash. The crash fixes what is left; what the dying store still does
goes nowhere, and `rise` makes what was left the present.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.config import DriveConfig, StoreConfig, load_config
from ciaosfs.base.types import VolumeKind
from ciaosfs.drive.interface import Drive
from ciaosfs.offline.mkfs import make_store
from tests.sim import drives
from tests.sim.drives import DriveContent
from tests.sim.sqlite_files import DatabaseFiles, simulated

START_NS = 1_700_000_000 * 10**9
TICK_NS = 3_000_000
"""Between two steps: more than a millisecond, so that epochs differ."""
BOOT = "boot-id"
KIB = limits.KIB


class World:
    """Everything that outlives a crash. `place` is an empty directory."""

    def __init__(
        self, place: Path, seed: int, data_count: int, parity_count: int, spare: int, capacity: int
    ) -> None:
        self.dice = random.Random(seed)
        self.seed = seed
        self.path = place / "store"
        self.capacity = capacity
        self.trace: list[str] = []
        self.is_over = False
        self.on_crash: Callable[[], None] = lambda: None
        self.cuts = self.kills = 0
        self._left: Callable[[], None] | None = None
        self._countdown: int | None = None
        self._crash_kind = "cut"
        self._counts_drives_only = False
        self._now_ns = START_NS
        self._contents: dict[bytes, DriveContent] = {}
        numbers = range(data_count + parity_count + spare)
        self.uuids = {number: self.dice.randbytes(16) for number in numbers}
        """Of every drive that the store has or had."""
        config = StoreConfig(
            self.path,
            self.dice.randbytes(16),
            data_count,
            parity_count,
            tuple(
                DriveConfig(number, self.uuids[number], self.path / "drives" / f"d{number}")
                for number in numbers
            ),
        )
        self.files = DatabaseFiles(self.path / "meta", self)
        make_store(config)

    # What the store is made of

    @property
    def config(self) -> StoreConfig:
        return load_config(self.path)

    def numbers(self) -> list[int]:
        """The drives that the configuration names now, in order."""
        drives = self.config.drives
        self.uuids |= {drive.number: drive.uuid for drive in drives}
        return sorted(drive.number for drive in drives)

    def drive(self, number: int) -> DriveContent:
        return self.content_of(self.uuids[number])

    def content_of(self, uuid: bytes) -> DriveContent:
        """What is on a drive; nothing yet on one that was made since."""
        return self._contents.setdefault(uuid, DriveContent(self.capacity))

    def opener(self) -> Callable[[str, bytes, int], Drive]:
        return drives.opener(self.content_of, self)

    # Time

    def tick(self) -> None:
        self._now_ns += TICK_NS

    def time_ns(self) -> int:
        """The wall clock, which stands still during a step: so times can be foretold."""
        return self._now_ns

    def clock_gettime_ns(self, clock_id: int) -> int:
        """Of files: the same."""
        return self._now_ns

    def monotonic(self) -> float:
        try:
            return trio.current_time()
        except RuntimeError:
            return 0.0

    # What happens

    def operation(self, what: str, where: str, detail: str = "") -> None:
        if self.is_over:
            return
        self.trace.append(f"{what} {where} {detail}")
        if self._countdown is not None and ("/" in where or not self._counts_drives_only):
            self._countdown -= 1
            if self._countdown < 0:
                self.crash(self._crash_kind)

    def note(self, sentence: str) -> None:
        if not self.is_over:
            self.trace.append(sentence)

    @property
    def is_doomed(self) -> bool:
        """Whether a crash is to come."""
        return self._countdown is not None

    def crash_after(self, operations: int | None, kind: str = "cut", *, on_drives: bool = False) -> None:
        """Crash before the operation that comes after so many; None: do not.

        `on_drives`: those on volumes alone count, since a commit writes more pages of the database than needles.
        """
        self._countdown = operations
        self._counts_drives_only = on_drives
        self._crash_kind = kind

    def crash(self, kind: str) -> None:
        """A power cut ("cut") or a kill ("kill") now. What was left becomes the present with `rise`."""
        if self.is_over:
            return
        self.note(f"** {kind}")
        self.crash_after(None)
        is_cut = kind == "cut"
        self.cuts += is_cut
        self.kills += not is_cut
        contents = {
            uuid: content.after_cut(self.dice) if is_cut else content.copy()
            for uuid, content in self._contents.items()
        }
        left = self.files.after(self.dice if is_cut else None)
        disks = {} if is_cut else self.files.uncertain()
        boot = self.files.directory / BOOT
        if boot.exists():
            left[BOOT] = b"another boot\n" if is_cut else boot.read_bytes()

        others = self._other_files()

        def rise() -> None:
            self._contents = contents
            self.files.replace(left, disks)
            self._restore(others)

        self._left = rise
        self.is_over = True
        self.on_crash()

    def _other_files(self) -> dict[Path, bytes]:
        """The configuration and the drives' identities, which are written and synced in one step."""
        paths = [path for path in self.path.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in paths if path.parent != self.files.directory}

    def _restore(self, others: dict[Path, bytes]) -> None:
        for path in self._other_files().keys() - others.keys():
            path.unlink()
        for path, content in others.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def rise(self) -> None:
        """Go on with what the crash left. The store that was open is closed."""
        assert self._left is not None
        self.files.close_all()
        self._left()
        self._left = None
        self.is_over = False
        self.files.fails.clear()
        self.tick()

    def lose_database(self) -> None:
        """Between two lives."""
        self.files.close_all()
        self.files.replace({}, {})

    @contextmanager
    def running(self) -> Iterator[None]:
        """The wall clock and SQLite are this world's, and what is large is small, while the context lasts."""
        with ExitStack() as stack:
            stack.enter_context(simulated(self.files, self.seed))
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(clock, "time", self)
            patch.setattr(secrets, "randbits", self.dice.getrandbits)
            patch.setattr(os, "urandom", self.dice.randbytes)
            for target, value in SMALL.items():
                patch.setattr(target, value)
            yield


SMALL: dict[str, Any] = {
    "ciaosfs.base.limits.STRIPE_PAYLOAD_BYTES_MAX": 256 * KIB,
    "ciaosfs.base.limits.COMPRESS_BLOCK_BYTES": 32 * KIB,
    "ciaosfs.base.limits.HOT_PAYLOAD_BYTES_MAX": 16 * KIB,
    "ciaosfs.base.limits.DIRTY_BYTES_MAX": 2048 * KIB,
    "ciaosfs.base.limits.FLUSH_AHEAD_BYTES": 256 * KIB,
    "ciaosfs.base.limits.TRUNCATE_EXTENTS_INLINE": 4,
    "ciaosfs.base.limits.SLICE_EXTENTS": 2,
    "ciaosfs.base.limits.LOG_RESERVE_BYTES": 1024 * KIB,
    "ciaosfs.fs.commit.CUT_DIRTY_BYTES_MAX": 64 * KIB,
    "ciaosfs.meta.metadata.CHECKPOINT_BYTES": 64 * KIB,
    "ciaosfs.meta.connections.WAL_RESTART_BYTES": 200 * KIB,
    "ciaosfs.volume.appending.VOLUME_LOG_BYTES_MAX": 192 * KIB,
    "ciaosfs.volume.volume._BYTES_MAX": {VolumeKind.DATA: 1024 * KIB, VolumeKind.LOG: 192 * KIB},
}
"""Bounds as they are here: a few hundred KiB exercise what takes gigabytes in earnest."""


def with_interval(config: StoreConfig, seconds: float) -> StoreConfig:
    return replace(config, commit_interval_s=seconds)
