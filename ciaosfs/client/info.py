"""What is known of an object without reading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Sizes in bytes, times in nanoseconds since the epoch.

    `parts` are the sizes of its blobs, in their order; `metadata` what its user keeps with it, the xattrs `user.NAME` of its
    file without "user.".
    """

    key: str
    size: int
    parts: tuple[int, ...]
    mtime_ns: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    omitted: tuple[str, ...] = ()
    """Names of metadata that were too much to be told with the others."""


def info_of(key: str, result: Mapping[str, Any]) -> ObjectInfo:
    """From what the daemon says of `key`."""
    return ObjectInfo(
        key, result["size"], tuple(result["parts"]), result["mtime_ns"], result.get("metadata", {})
    )
