"""The file that makes a directory a drive of one store: `drive.json`.

It is the last thing written when a drive is made, by writing beside it and renaming, so a directory is a
drive whole or not at all.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ciaosfs.base.errors import StoreError

IDENTITY_NAME = "drive.json"
IDENTITY_BYTES_MAX = 4096
"""A file larger than this was not written by us."""
DRIVE_FORMAT_VERSION = 1


class Shape(NamedTuple):
    """How a store codes its stripes, for ever: k data shards and m parity shards."""

    data_count: int
    parity_count: int


@dataclass(frozen=True, slots=True)
class DriveIdentity:
    """Whose drive it is. Both ids are 16 bytes; `number` is its position in the store, from 0.

    `shape` is that of the store, None on drives of before it was written down. It says nothing of which drive it is.
    """

    store_id: bytes
    drive_uuid: bytes
    number: int
    shape: Shape | None = field(default=None, compare=False)


def encode_identity(identity: DriveIdentity) -> bytes:
    """Return the content of the identity file."""
    fields: dict[str, Any] = {
        "format": DRIVE_FORMAT_VERSION,
        "store": str(uuid.UUID(bytes=identity.store_id)),
        "drive": str(uuid.UUID(bytes=identity.drive_uuid)),
        "number": identity.number,
    }
    if identity.shape is not None:
        fields["data"], fields["parity"] = identity.shape
    return (json.dumps(fields, indent=2) + "\n").encode()


def decode_identity(content: bytes, path: str) -> DriveIdentity:
    """Return the identity written in `content`, the identity file of the drive at `path`.

    Raises StoreError when it is unreadable or a newer ciaosfs wrote it.
    """
    try:
        fields = json.loads(content)
        version = _count(fields["format"])
        if version > DRIVE_FORMAT_VERSION:
            raise StoreError(
                f"Drive {path} has format version {version}, newer than this ciaosfs "
                f"({DRIVE_FORMAT_VERSION}): use the one that wrote it."
            )
        shape = Shape(_count(fields["data"]), _count(fields["parity"])) if "data" in fields else None
        return DriveIdentity(
            uuid.UUID(fields["store"]).bytes,
            uuid.UUID(fields["drive"]).bytes,
            _count(fields["number"]),
            shape,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"Drive {path} has an unreadable identity file {IDENTITY_NAME}: replace the drive."
        ) from error


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
