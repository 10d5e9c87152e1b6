"""Named places in background work where a crash must do no harm; a test crashes at each of them in turn.

`reach` marks a step of a job. It does nothing until a test installs a hook with `hooked`; the hook may raise, and what
it raises passes through the product like the end of the process would. Every name is in `POINTS` with what has
happened before it, so that a test can fail when a point was never reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

POINTS: Final[dict[str, str]] = {
    "pack.read": "what is live in the small stripes was read, nothing is written",
    "pack.written": "the packed stripe is on the drives, not synced; the extents point to the small ones",
    "pack.repointed": "the extents point to the packed stripe, in the open transaction",
    "compact.read": "what is live in the old stripes was read, nothing is written",
    "compact.written": "the copy is on the drives, not synced; the extents point to the old stripes",
    "compact.repointed": "the extents point to the copy, in the open transaction",
    "defragment.read": "small neighbouring extents of a file were read, nothing is written",
    "defragment.written": "the copy is on the drives, not synced; the extents point to the old stripes",
    "defragment.repointed": "the extents point to the copy, in the open transaction",
    "repair.written": "shards were written anew, not synced; the metadata knows their former places",
    "repair.recorded": "the metadata knows the new places, in the open transaction",
    "repair.durable": "the commit with the new places is durable, the former needles are still there",
    "repair.given-back": "the former needles were punched out of their volumes",
    "add.made": "a new drive has its identity file, the configuration does not name it",
    "add.listed": "the configuration names the new drive, the metadata does not",
    "add.joined": "the metadata names it in the open transaction, and it is written to",
    "replace.made": "as add.made, for a drive that is to replace another one",
    "replace.listed": "the configuration names the new drive and that it replaces another one, the metadata does not",
    "replace.joined": "the metadata knows both in the open transaction, and the new one is written to",
    "drain.begun": "a drive is marked as draining in the open transaction, and gets nothing new",
    "drain.written": "as repair.written, for a shard that is to leave its drive",
    "drain.recorded": "as repair.recorded",
    "drain.emptied": "nothing refers to the drive, durably; it is still one of the store",
    "drain.unlisted": "the configuration does not name the drive any more, the metadata does",
    "drain.forgotten": "the metadata does not either, in the open transaction",
    "drain.erased": "that is durable, and what lay on the drive is deleted",
    "publish.written": "the bytes of a file without a name are there, the name stands for the former file",
    "publish.named": "the name stands for the new file in the open transaction, the former file is without one",
    "image.begun": "the log goes on in new volumes, and the commit that the image will be of is synced",
    "image.copied": "the database was copied beside itself, nothing is on the drives",
    "image.stripe": "a stripe of the image is on the drives, not synced; no row knows it",
    "image.noted": "a stripe of the image has its rows, in the open transaction",
    "image.stripes_synced": "all stripes are synced, and the commit with their rows",
    "image.root": "the root is on the drives, not synced",
    "image.root_synced": "the root is synced, the metadata does not know that there is an image",
    "image.kept": "the image has its row and the oldest one was let go, in the open transaction",
    "image.done": "that is synced; nothing was collected yet",
    "collect.adopted": "volumes that only the drives knew have rows, in the open transaction",
    "collect.forgotten": "volumes that are not needed have no row any more, in the open transaction",
    "collect.synced": "that is synced, their files are there",
    "collect.removed": "the file of one of them is deleted",
}
"""Every point, by the job it belongs to, and what is true when it is reached."""

Hook = Callable[[str], None]


class _State:
    """What is called at every point; None nearly always."""

    hook: Hook | None = None


def reach(name: str) -> None:
    """Mark that the step `name` of `POINTS` was reached."""
    hook = _State.hook
    if hook is not None:
        assert name in POINTS, f"{name} is no crash point"
        hook(name)


@contextmanager
def hooked(hook: Hook) -> Iterator[None]:
    """Call `hook` at every point while the context lasts. For tests; contexts do not nest."""
    assert _State.hook is None
    _State.hook = hook
    try:
        yield
    finally:
        _State.hook = None
