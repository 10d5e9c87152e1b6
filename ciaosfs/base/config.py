"""A store's configuration: `ciaosfs.toml` in its directory, written once by mkfs, read by everything else.

The file is a person's to read and, where a comment says so, to edit. What is not in it has its default
here. Counts that shape what is already on the drives (data, parity, identities) must not change afterwards.
"""

from __future__ import annotations

import tomllib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ciaosfs.base import limits
from ciaosfs.base.errors import StoreError, UsageError

CONFIG_NAME = "ciaosfs.toml"
CONFIG_BYTES_MAX = 256 * limits.KIB
"""A larger file was not written by us: 256 drives need about 40 KiB."""
STORE_FORMAT_VERSION = 1
COMPRESSION_POLICIES = ("auto", "zstd", "none")

Value = TypeVar("Value", bound=int | float | str)


@dataclass(frozen=True, slots=True)
class DriveConfig:
    """One drive: its number in the store (0 to n-1), its 16-byte uuid, and the directory it is found at."""

    number: int
    uuid: bytes
    path: Path


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """What `ciaosfs.toml` says. `path` is the store's directory; relative drive paths start there."""

    path: Path
    store_id: bytes
    data_count: int
    parity_count: int
    drives: tuple[DriveConfig, ...]
    commit_interval_s: float = limits.COMMIT_INTERVAL_S
    compression: str = "auto"


def check_counts(data_count: int, parity_count: int, drive_count: int) -> None:
    """Raise UsageError unless stripes of `data_count` + `parity_count` shards fit on `drive_count` drives."""
    if data_count < 1:
        raise UsageError(f"A stripe needs at least 1 data shard, not {data_count}: give --data 1 or more.")
    if parity_count < 0:
        raise UsageError(f"The number of parity shards cannot be {parity_count}: give --parity 0 or more.")
    total = data_count + parity_count
    if total > limits.SHARDS_MAX:
        raise UsageError(
            f"{data_count}+{parity_count} shards are more than {limits.SHARDS_MAX}, the most there can be: "
            "lower --data or --parity."
        )
    if total > drive_count:
        raise UsageError(
            f"{data_count}+{parity_count} shards need {total} drives and there are {drive_count}: "
            "add drives with --drive or lower --data or --parity."
        )


def load_config(store: Path) -> StoreConfig:
    """Read the configuration of the store at `store`.

    Raises StoreError when there is no store, or the file is unreadable, malformed, or of a newer format.
    """
    store = store.absolute()
    path = store / CONFIG_NAME
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(
            f"{store} is not a ciaosfs store (it has no {CONFIG_NAME}): make one with 'ciaosfs mkfs {store}'."
        ) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > CONFIG_BYTES_MAX:
        raise StoreError(
            f"{path} is larger than {CONFIG_BYTES_MAX} bytes: it is not a store's configuration."
        )
    try:
        fields = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StoreError(f"{path} is not valid TOML: {error}.") from error
    try:
        return _interpret(store, fields)
    except UsageError as error:
        raise StoreError(f"{path}: {error}") from error


def _interpret(store: Path, fields: Mapping[str, Any]) -> StoreConfig:
    version = _take(fields, "format", int)
    if version > STORE_FORMAT_VERSION:
        raise UsageError(
            f"the store has format {version} and this ciaosfs knows up to {STORE_FORMAT_VERSION}: "
            "use the newer ciaosfs that wrote it."
        )
    tables = fields.get("drive")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError("there must be one [[drive]] table for each drive.")
    drives = tuple(
        DriveConfig(_take(table, "number", int), _take_uuid(table, "uuid"), store / _take(table, "path", str))
        for table in tables
    )
    if sorted(drive.number for drive in drives) != list(range(len(drives))):
        raise UsageError("the drives must be numbered 0, 1, 2 and so on, each number once.")
    if len({drive.uuid for drive in drives}) != len(drives):
        raise UsageError("two drives have the same uuid.")
    data_count, parity_count = _take(fields, "data", int), _take(fields, "parity", int)
    check_counts(data_count, parity_count, len(drives))
    interval_s = _take(fields, "commit_interval_s", float, limits.COMMIT_INTERVAL_S)
    if not limits.COMMIT_INTERVAL_S_MIN <= interval_s <= limits.COMMIT_INTERVAL_S_MAX:
        raise UsageError(
            f"commit_interval_s is {interval_s:g} and must lie between {limits.COMMIT_INTERVAL_S_MIN:g} and "
            f"{limits.COMMIT_INTERVAL_S_MAX:g}."
        )
    compression = _take(fields, "compression", str, "auto")
    if compression not in COMPRESSION_POLICIES:
        raise UsageError(
            f"compression is {compression!r} and must be one of {', '.join(COMPRESSION_POLICIES)}."
        )
    return StoreConfig(
        path=store,
        store_id=_take_uuid(fields, "store"),
        data_count=data_count,
        parity_count=parity_count,
        drives=tuple(sorted(drives, key=lambda drive: drive.number)),
        commit_interval_s=interval_s,
        compression=compression,
    )


def _take(fields: Mapping[str, Any], name: str, kind: type[Value], default: Value | None = None) -> Value:
    value = fields.get(name, default)
    if value is None:
        raise UsageError(f"{name} is missing.")
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}, which is no {kind.__name__}.")
    return value


def _take_uuid(fields: Mapping[str, Any], name: str) -> bytes:
    text = _take(fields, name, str)
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise UsageError(f"{name} is {text!r}, which is no uuid.") from None


_TEMPLATE = """\
# A ciaosfs store. Made by 'ciaosfs mkfs'.
format = {format}
store = "{store}"

# Each stripe of file data is coded into data + parity shards on as many different drives;
# any `parity` of them may be lost. These two cannot be changed here.
data = {data}
parity = {parity}

# A crash loses at most this many seconds of changes that no fsync covered.
# From {interval_min:g} to {interval_max:g}; may be edited.
commit_interval_s = {interval:g}

# "auto" compresses what shrinks, "none" nothing; may be edited.
# The xattr user.ciaos.compression of a directory goes before it.
compression = "{compression}"

# The drives. `path` may be edited when a drive is found elsewhere (relative paths start at this file);
# number and uuid are the drive's own and are checked.
"""

_DRIVE_TEMPLATE = """
[[drive]]
number = {number}
uuid = "{uuid}"
path = {path}
"""


def format_config(config: StoreConfig) -> str:
    """The text of `ciaosfs.toml` for `config`; drives inside it get relative paths, so it can be moved."""
    parts = [
        _TEMPLATE.format(
            format=STORE_FORMAT_VERSION,
            store=uuid.UUID(bytes=config.store_id),
            data=config.data_count,
            parity=config.parity_count,
            interval=config.commit_interval_s,
            interval_min=limits.COMMIT_INTERVAL_S_MIN,
            interval_max=limits.COMMIT_INTERVAL_S_MAX,
            compression=config.compression,
        )
    ]
    for drive in config.drives:
        path = drive.path.relative_to(config.path) if drive.path.is_relative_to(config.path) else drive.path
        parts.append(
            _DRIVE_TEMPLATE.format(
                number=drive.number, uuid=uuid.UUID(bytes=drive.uuid), path=_quoted(str(path))
            )
        )
    return "".join(parts)


def _quoted(text: str) -> str:
    """A TOML basic string. UsageError for control characters and what is no UTF-8."""
    if not text.isprintable():
        raise UsageError(
            f"The path {text!r} has characters that a configuration file cannot hold: use another."
        )
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
