"""Make a store: plan and check everything first, then write, and take back what was made when a step fails.

The configuration file is written last: a directory is a store when it has one, and not before.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path

from ciaosfs.base.config import (
    CONFIG_NAME,
    DriveConfig,
    DriveLabels,
    StoreConfig,
    check_counts,
    format_config,
    load_config,
)
from ciaosfs.base.errors import StoreError, UsageError
from ciaosfs.drive import local
from ciaosfs.drive.identity import Shape
from ciaosfs.drive.making import check_outside_drives, check_parent
from ciaosfs.stripe.domains import Site, weakness

DATA_COUNT = 4
PARITY_COUNT = 2
META_NAME = "meta"
DRIVES_NAME = "drives"
_FRESH_EXT4 = frozenset({"lost+found"})


def plan_store(
    store: Path,
    drives: Sequence[Path],
    data_count: int | None,
    parity_count: int | None,
    labels: Sequence[DriveLabels] = (),
    access: str = "posix",
) -> StoreConfig:
    """What `make_store` would make. Counts that are None are 4 and 2. `labels` are those of the drives, in order;
    `access` is one of `config.ACCESS_MODES`.

    Without `drives` it gets as many directories inside the store as a stripe needs. Raises UsageError or
    StoreError, and changes nothing.
    """
    store = store.absolute()
    data_count = DATA_COUNT if data_count is None else data_count
    parity_count = PARITY_COUNT if parity_count is None else parity_count
    paths = [path.absolute() for path in drives]
    check_counts(data_count, parity_count, len(paths) if paths else data_count + parity_count)
    if not paths:
        paths = [store / DRIVES_NAME / f"d{number}" for number in range(data_count + parity_count)]
    _check_store(store)
    _check_drives(store, paths)
    for path in (store, *paths):
        check_outside_drives(path)
    configs = tuple(
        DriveConfig(number, uuid.uuid4().bytes, path, given)
        for number, (path, given) in enumerate(zip(paths, labels or repeat(DriveLabels()), strict=False))
    )
    config = StoreConfig(
        store, uuid.uuid4().bytes, data_count, parity_count, configs, next_drive=len(configs), access=access
    )
    format_config(config)
    return config


def weakness_of(config: StoreConfig) -> str | None:
    """What the loss of one disk or host would cost a store that was made, as a sentence; None when nothing."""
    sites = [Site(drive.number, drive.labels, drive.path.stat().st_dev) for drive in config.drives]
    return weakness(sites, config.data_count, config.parity_count)


def _check_store(store: Path) -> None:
    if (store / CONFIG_NAME).exists():
        raise StoreError(f"{store} already is a ciaosfs store: mount it, or give another directory.")
    if store.exists() or store.is_symlink():
        if not store.is_dir():
            raise UsageError(f"{store} exists and is not a directory: give another path.")
        if _strangers(store):
            raise UsageError(f"{store} is not empty: give a directory that is empty or does not exist.")
    else:
        check_parent(store)


def _check_drives(store: Path, paths: Sequence[Path]) -> None:
    resolved = [path.resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise UsageError(
                f"Drive {paths[index]} is given twice: each drive must be a directory of its own."
            )
        if path == store.resolve():
            raise UsageError(
                f"{paths[index]} is the store itself: give a directory of its own for the drive."
            )
        if any(other in path.parents for other in resolved):
            raise UsageError(f"Drive {paths[index]} lies inside another drive: give separate directories.")
    for path in paths:
        if not path.exists():
            if not path.is_relative_to(store):
                check_parent(path)
            continue
        if not path.is_dir():
            raise UsageError(f"Drive {path} is not a directory: give a directory for each drive.")
        if (path / "drive.json").exists():
            raise StoreError(f"{path} already is a drive of a store: give an empty directory.")
        if _strangers(path):
            raise UsageError(f"Drive {path} is not empty: give an empty directory for each drive.")


def _strangers(path: Path) -> set[str]:
    try:
        return {entry.name for entry in path.iterdir()} - _FRESH_EXT4
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def make_store(config: StoreConfig) -> None:
    """Make the store that `plan_store` planned; it survives a crash on return.

    Raises UsageError, StoreError or OSError, after taking back everything that was made until then.
    """
    with ExitStack() as undo:
        _make_directory(config.path, undo)
        _make_directory(config.path / META_NAME, undo)
        drives_inside = config.path / DRIVES_NAME
        if any(drive.path.parent == drives_inside for drive in config.drives):
            _make_directory(drives_inside, undo)
        for drive in config.drives:
            undo.callback(_take_back_drive, drive.path, drive.path.exists())
            local.make_drive(
                str(drive.path),
                store_id=config.store_id,
                number=drive.number,
                drive_uuid=drive.uuid,
                shape=Shape(config.data_count, config.parity_count),
            )
        _write_config(config, undo)
        undo.pop_all()


def _make_directory(path: Path, undo: ExitStack) -> None:
    if path.is_dir():
        return
    path.mkdir(mode=0o700)
    undo.callback(_quietly(path.rmdir))
    _sync_directory(path.parent)


def _take_back_drive(path: Path, existed: bool) -> None:
    """Remove what `make_drive` may have left; the directory was empty before."""
    for name in ("drive.json", "drive.json.tmp"):
        _quietly((path / name).unlink)()
    _quietly((path / "volumes").rmdir)()
    if not existed:
        _quietly(path.rmdir)()


def _write_config(config: StoreConfig, undo: ExitStack) -> None:
    path = config.path / CONFIG_NAME
    draft = path.with_suffix(".tmp")
    undo.callback(_quietly(path.unlink))
    undo.callback(_quietly(draft.unlink))
    with draft.open("x", encoding="utf-8") as file:
        file.write(format_config(config))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync_directory(config.path)
    load_config(config.path)


def _quietly(step: Callable[[], None]) -> Callable[[], None]:
    """`step` for taking back: what is not there any more needs no taking back."""

    def run() -> None:
        try:
            step()
        except OSError:
            return

    return run


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
