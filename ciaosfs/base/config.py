"""A store's configuration: `ciaosfs.toml` in its directory, made by mkfs, read by everything else.

The file is a person's to read and, where a comment says so, to edit. What is not in it has its default
here. Counts that shape what is already on the drives (data, parity, identities) must not change afterwards. When drives
come and go the file is edited by `configedit`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ciaosfs.base import limits
from ciaosfs.base.errors import StoreError, UsageError

CONFIG_NAME = "ciaosfs.toml"
CONFIG_BYTES_MAX = 256 * limits.KIB
"""A larger file was not written by us: DRIVES_MAX drives need about 60 KiB."""
STORE_FORMAT_VERSION = 1
COMPRESSION_POLICIES = ("auto", "zstd", "none")
PORT_MAX = 65535
ACCESS_MODES = ("posix", "tokens")

Value = TypeVar("Value", bound=int | float | str)


_LABEL = re.compile(rf"[\w.:/@+-]{{1,{limits.DRIVE_LABEL_CHARACTERS_MAX}}}")
_LAST_LABEL = re.compile(r"(?P<rest>.*),(?P<label>[a-z]+=[^,/]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DriveLabels:
    """What a drive shares its fate with: those of one host, or one disk, may go at once. Empty: not told."""

    host: str = ""
    disk: str = ""

    def fields(self) -> dict[str, str]:
        """The labels that are told, by name."""
        return {name: value for name, value in (("host", self.host), ("disk", self.disk)) if value}


LABEL_NAMES = ("host", "disk")


@dataclass(frozen=True, slots=True)
class DriveConfig:
    """One drive: its number in the store, its 16-byte uuid, the directory it is found at, and its labels.

    Numbers are never given twice; those of removed drives stay free. `replaces` is the number of the drive whose shards
    this one was added to take over.
    """

    number: int
    uuid: bytes
    path: Path
    labels: DriveLabels = DriveLabels()
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """What `ciaosfs.toml` says. `path` is the store's directory; relative drive paths start there.

    `next_drive` is the number that the next drive gets, above all that were ever given.
    """

    path: Path
    store_id: bytes
    data_count: int
    parity_count: int
    drives: tuple[DriveConfig, ...]
    commit_interval_s: float = limits.COMMIT_INTERVAL_S
    compression: str = "auto"
    next_drive: int = 0
    job_share: float = limits.JOB_SHARE
    """Share of the time that a background job may keep the drives busy."""
    scrub_period_days: float = limits.SCRUB_PERIOD_DAYS
    """Everything stored is read and verified once in so many days; 0: only when asked for."""
    repair_after_s: float = limits.REPAIR_AFTER_S
    """A drive that is absent for longer is repaired around."""
    metrics_port: int = 0
    """Of 127.0.0.1, where Prometheus reads metrics; 0: nowhere."""
    keep_awake: bool = True
    """Processors are kept from sleeping deeply while requests come quickly, where the daemon may (as root)."""
    access: str = "posix"
    """One of ACCESS_MODES: permissions alone let a process use the mount, or it needs a token, too."""


def parse_labels(words: Iterable[str]) -> DriveLabels:
    """Labels from words like "host=a" and "disk=b". UsageError for other names, odd values, and a name given twice."""
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in LABEL_NAMES:
            raise UsageError(f"{word!r} is no label: give host=NAME or disk=NAME.")
        if name in found:
            raise UsageError(f"The label {name} is given twice: give it once.")
        found[name] = value
    return _labels(found)


def parse_drive(text: str) -> tuple[Path, DriveLabels]:
    """A drive as a person gives it: "PATH", "PATH,disk=b", "PATH,host=a,disk=b". UsageError for wrong labels.

    A path may have commas: only what looks like a label at the end is taken for one.
    """
    words: list[str] = []
    while (found := _LAST_LABEL.fullmatch(text)) is not None:
        text, word = found["rest"], found["label"]
        words.append(word)
    if not text:
        raise UsageError("A drive needs a directory: give PATH or PATH,disk=NAME.")
    return Path(text), parse_labels(words)


def _labels(fields: Mapping[str, Any]) -> DriveLabels:
    for name, value in fields.items():
        if name not in LABEL_NAMES:
            raise UsageError(f"a drive has the label {name!r}; there are {' and '.join(LABEL_NAMES)}.")
        if not isinstance(value, str) or not _LABEL.fullmatch(value):
            raise UsageError(
                f"The label {name} is {value!r}: give 1 to {limits.DRIVE_LABEL_CHARACTERS_MAX} letters, digits "
                "and any of . : / @ + - _"
            )
    return DriveLabels(fields.get("host", ""), fields.get("disk", ""))


def check_counts(data_count: int, parity_count: int, drive_count: int) -> None:
    """Raise UsageError unless stripes of `data_count` + `parity_count` shards fit on `drive_count` drives."""
    if data_count < 1:
        raise UsageError(f"A stripe needs at least 1 data shard, not {data_count}: give --data 1 or more.")
    if parity_count < 0:
        raise UsageError(f"The number of parity shards cannot be {parity_count}: give --parity 0 or more.")
    if drive_count > limits.DRIVES_MAX:
        raise UsageError(
            f"{drive_count} drives are more than {limits.DRIVES_MAX}, the most a store can have."
        )
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
        return interpret(store, fields)
    except UsageError as error:
        raise StoreError(f"{path}: {error}") from error


_NAMES = (
    "format",
    "store",
    "data",
    "parity",
    "commit_interval_s",
    "compression",
    "scrub_period_days",
    "job_share",
    "repair_after_s",
    "metrics_port",
    "keep_awake",
    "access",
    "next_drive",
    "drive",
)
_DRIVE_NAMES = ("number", "uuid", "path", "labels", "replaces")


def interpret(store: Path, fields: Mapping[str, Any]) -> StoreConfig:
    """What the parsed file says. Raises UsageError for the first thing in it that cannot be."""
    version = _take(fields, "format", int)
    if version > STORE_FORMAT_VERSION:
        raise UsageError(
            f"the store has format {version} and this ciaosfs knows up to {STORE_FORMAT_VERSION}: "
            "use the newer ciaosfs that wrote it."
        )
    _check_names(fields, _NAMES, "")
    tables = fields.get("drive")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError("there must be one [[drive]] table for each drive.")
    drives = tuple(_interpret_drive(store, table) for table in tables)
    numbers = {drive.number for drive in drives}
    if len(numbers) != len(drives):
        raise UsageError("two drives have the same number.")
    next_drive = max(numbers, default=-1) + 1
    if _take(fields, "next_drive", int, next_drive) < next_drive:
        raise UsageError(f"next_drive must be {next_drive} at least: above the number of every drive.")
    if len({drive.uuid for drive in drives}) != len(drives):
        raise UsageError("two drives have the same uuid.")
    data_count, parity_count = _take(fields, "data", int), _take(fields, "parity", int)
    check_counts(data_count, parity_count, len(drives))
    interval_s = _take_between(
        fields,
        "commit_interval_s",
        limits.COMMIT_INTERVAL_S,
        limits.COMMIT_INTERVAL_S_MIN,
        limits.COMMIT_INTERVAL_S_MAX,
    )
    job_share = _take_between(fields, "job_share", limits.JOB_SHARE, limits.JOB_SHARE_MIN, 1.0)
    scrub_period_days = _take_between(
        fields, "scrub_period_days", limits.SCRUB_PERIOD_DAYS, 0.0, limits.SCRUB_PERIOD_DAYS_MAX
    )
    repair_after_s = _take_between(
        fields, "repair_after_s", limits.REPAIR_AFTER_S, 0.0, limits.REPAIR_AFTER_S_MAX
    )
    metrics_port = _take(fields, "metrics_port", int, 0)
    if not 0 <= metrics_port <= PORT_MAX:
        raise UsageError(f"metrics_port is {metrics_port} and must lie between 0 (none) and {PORT_MAX}.")
    compression = _take(fields, "compression", str, "auto")
    if compression not in COMPRESSION_POLICIES:
        raise UsageError(
            f"compression is {compression!r} and must be one of {', '.join(COMPRESSION_POLICIES)}."
        )
    access = _take(fields, "access", str, "posix")
    if access not in ACCESS_MODES:
        raise UsageError(f"access is {access!r} and must be one of {', '.join(ACCESS_MODES)}.")
    return StoreConfig(
        path=store,
        store_id=_take_uuid(fields, "store"),
        data_count=data_count,
        parity_count=parity_count,
        drives=tuple(sorted(drives, key=lambda drive: drive.number)),
        commit_interval_s=interval_s,
        compression=compression,
        next_drive=_take(fields, "next_drive", int, next_drive),
        job_share=job_share,
        scrub_period_days=scrub_period_days,
        repair_after_s=repair_after_s,
        metrics_port=metrics_port,
        keep_awake=_take(fields, "keep_awake", bool, True),
        access=access,
    )


def _interpret_drive(store: Path, table: Mapping[str, Any]) -> DriveConfig:
    number = _take(table, "number", int)
    if number < 0:
        raise UsageError(f"a drive has the number {number}: numbers start at 0.")
    _check_names(table, _DRIVE_NAMES, f"drive {number} has ")
    labels = table.get("labels", {})
    if not isinstance(labels, dict):
        raise UsageError(f'the labels of drive {number} must be written like {{host = "a", disk = "b"}}.')
    return DriveConfig(
        number=number,
        uuid=_take_uuid(table, "uuid"),
        path=store / _take(table, "path", str),
        labels=_labels(labels),
        replaces=_take(table, "replaces", int) if "replaces" in table else None,
    )


def _check_names(fields: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raise UsageError for a name that is not known: misspelt, it would be as if nothing was said."""
    for name in fields:
        if name in known:
            continue
        if where and name in _NAMES:
            raise UsageError(f"{where}{name}, which is the store's: put it above the first [[drive]].")
        near = difflib.get_close_matches(name, known, 1)
        hint = f"{near[0]} may be meant" if near else f"there are {', '.join(known)}"
        raise UsageError(f"{where}{name!r}, which is no known name: {hint}.")


def _take_between(fields: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = _take(fields, name, float, default)
    if not low <= value <= high:
        raise UsageError(f"{name} is {value:g} and must lie between {low:g} and {high:g}.")
    return value


def _take(fields: Mapping[str, Any], name: str, kind: type[Value], default: Value | None = None) -> Value:
    value = fields.get(name, default)
    if value is None:
        raise UsageError(f"{name} is missing.")
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
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

# Everything stored is read and verified once in so many days; 0: only on 'ciaosfs scrub --now'. May be edited.
scrub_period_days = {scrub_period:g}

# The share of the time that background jobs (scrub, repair, drain) may keep the drives busy, up to 1; may be edited.
job_share = {job_share:g}

# What lies on a drive that has been absent for so many seconds is rebuilt on others; may be edited.
repair_after_s = {repair_after:g}

# Prometheus finds metrics at http://127.0.0.1:PORT/metrics while the store is mounted; 0: nowhere. May be edited.
metrics_port = {metrics_port}

# While requests come quickly, processors are kept from sleeping deeply: in virtual machines small files are up to twice
# as fast so, and idle processors take more power. Needs root. false: never. May be edited.
keep_awake = {keep_awake}

# "posix": permissions alone say who may use the mount. "tokens": a process needs a token of its user, too
# ('ciaosfs token', 'ciaosfs login'). 'ciaosfs access' changes it, for the next mount.
access = "{access}"

# The number that the next drive gets; numbers are never given twice.
next_drive = {next_drive}

# The drives. `path` may be edited when a drive is found elsewhere (relative paths start at this file);
# `labels` may be edited, too: drives with the same disk or host are taken to fail at once.
# number and uuid are the drive's own and are checked. 'ciaosfs drive' adds, removes and replaces drives.
"""


def format_drive(store: Path, drive: DriveConfig) -> str:
    """The table of one drive, without blank lines around it. UsageError when TOML cannot hold its path."""
    path = drive.path.relative_to(store) if drive.path.is_relative_to(store) else drive.path
    lines = [
        "[[drive]]",
        f"number = {drive.number}",
        f'uuid = "{uuid.UUID(bytes=drive.uuid)}"',
        f"path = {_quoted(str(path))}",
    ]
    labels = drive.labels.fields()
    if labels:
        inner = ", ".join(f"{name} = {_quoted(value)}" for name, value in labels.items())
        lines.append(f"labels = {{{inner}}}")
    if drive.replaces is not None:
        lines.append(f"replaces = {drive.replaces}")
    return "\n".join(lines) + "\n"


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
            next_drive=max(config.next_drive, *(drive.number + 1 for drive in config.drives)),
            scrub_period=config.scrub_period_days,
            job_share=config.job_share,
            repair_after=config.repair_after_s,
            metrics_port=config.metrics_port,
            keep_awake=str(config.keep_awake).lower(),
            access=config.access,
        )
    ]
    parts += [format_drive(config.path, drive) for drive in config.drives]
    return "\n".join(parts)


def _quoted(text: str) -> str:
    """A TOML basic string. UsageError for control characters and what is no UTF-8."""
    if not text.isprintable():
        raise UsageError(
            f"The path {text!r} has characters that a configuration file cannot hold: use another."
        )
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
