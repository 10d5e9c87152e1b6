"""Images of the metadata: whole copies on the drives, from which recovery begins when the database is gone.

Without them the log of changesets would have to be kept, and applied, from the first commit on. An image is made in the
background when the log since the last one has grown enough, or on demand:

1. The log goes on in new volumes, a commit is made: the image is of that commit or a later one.
2. A worker thread copies the database into a file beside it and checks the copy (`meta/imagefile.py`).
3. Its pieces go to the drives as stripes of kind IMAGE, one at a time, with pauses. Each gets its rows in the open
   transaction at once, so that scrub, repair and drain see it.
4. A commit and its sync make stripes and rows durable, and the commit that the image is of.
5. The root, which says where the stripes lie now, is appended to the log and synced. **From here on it counts.**
6. Its row is written, the oldest image beyond IMAGES_KEPT is let go: its stripes become dead ones of files. A commit.

A crash before 5 leaves stripes that no image has, before 6 an image that is not kept: `forget_leftovers` lets them go.
A shard that moves after 5 does so in a commit that the image needs after it anyway: recovery follows it there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.crashpoints import reach
from ciaosfs.base.errors import CiaosError, NoSpaceError
from ciaosfs.base.types import StripeKind, StripeRecord
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.commit import Committer
from ciaosfs.fs.gate import Gate
from ciaosfs.meta.counters import Counter
from ciaosfs.meta.imagefile import DatabaseCopy
from ciaosfs.meta.imageformat import ImageRoot, ImageStripe, encode_root
from ciaosfs.meta.images import ImageRow
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks whether an image is due."""
RETRY_S = 30.0
"""After an image that failed."""
WRITE_SHARE = 0.5
"""Share of the time in which an image is being written once it has begun: requests get the rest undisturbed."""
REST_FACTOR = 4
"""An image that nobody demanded waits for so many times as long as the last one took: a fifth of the time at most."""
STRIPES_STEP_MAX = 256
"""Stripes let go in one step; each takes about 5 us."""


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """The newest image, for people: the commit it is of and when it was made, None before the first, and the log since."""

    sequence: int | None
    created_ns: int | None
    stored_bytes: int
    log_bytes: int
    log_commits: int
    failure: str | None


class _Round:
    """What those who wait for one image share."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: CiaosError | None = None


class Imager:
    """Writes the images; `run` is its task until `close`. Other methods may be called from anywhere in the loop."""

    def __init__(
        self, meta: Metadata, chunks: ChunkStore, committer: Committer, gate: Gate, workers: Workers
    ) -> None:
        self._meta = meta
        self._chunks = chunks
        self._committer = committer
        self._gate = gate
        self._workers = workers
        self._demand = trio.Event()
        self._round = _Round()
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._stopped.set()
        self._rests_until_s = 0.0
        self._failure: str | None = None
        self.images_written = 0

    def status(self) -> ImageStatus:
        images = self._meta.images.all()
        newest = images[0] if images else None
        return ImageStatus(
            sequence=None if newest is None else newest.sequence,
            created_ns=None if newest is None else newest.created_ns,
            stored_bytes=0 if newest is None else newest.stored_bytes,
            log_bytes=self._meta.counters.values[Counter.LOG_BYTES],
            log_commits=self._log_commits(newest),
            failure=self._failure,
        )

    def demand(self) -> None:
        """Ask for an image soon, without waiting for it."""
        self._demand.set()

    async def write(self) -> None:
        """Return when an image that was begun after this call counts; raises what kept it from being written."""
        waiting = self._round
        self._demand.set()
        await waiting.done.wait()
        if waiting.error is not None:
            raise waiting.error

    async def run(self) -> None:
        """Write an image whenever one is due or demanded, until `close`."""
        self._stopped = trio.Event()
        try:
            with self._scope:
                await self.forget_leftovers()
                while True:
                    with trio.move_on_after(LOOK_S):
                        await self._demand.wait()
                    if self._demand.is_set() or self._is_due():
                        await self._answer()
        finally:
            self._stopped.set()

    async def close(self) -> None:
        """Stop. What an unfinished image has written is let go, in the open transaction."""
        self._scope.cancel()
        await self._stopped.wait()

    def _log_commits(self, newest: ImageRow | None) -> int:
        return self._meta.state.load().sequence - (newest.sequence if newest is not None else 0)

    def _is_due(self) -> bool:
        if clock.monotonic_s() < self._rests_until_s:
            return False
        status = self.status()
        commits_max = max(
            limits.IMAGE_LOG_COMMITS_MIN, status.stored_bytes // limits.IMAGE_LOG_BYTES_PER_COMMIT
        )
        return (
            status.log_bytes >= max(limits.IMAGE_LOG_BYTES_MIN, status.stored_bytes)
            or status.log_commits >= commits_max
        )

    async def _answer(self) -> None:
        """One image, for all who asked before it began. Trouble is told to them and in `status`."""
        self._demand = trio.Event()
        answered, self._round = self._round, _Round()
        began_s = clock.monotonic_s()
        try:
            await self._write()
        except (CiaosError, OSError) as error:
            self._failed(answered, error)
        except Exception as error:  # our bug: the log only grows, the mount stays up
            log.exception("an image of the metadata failed")
            self._failed(answered, error)
        else:
            self._failure = None
            self._rests_until_s = clock.monotonic_s() + REST_FACTOR * (clock.monotonic_s() - began_s)
        answered.done.set()

    def _failed(self, answered: _Round, error: Exception) -> None:
        if self._failure is None:
            log.error("no image of the metadata was written, the log grows until one is: %s", error)
        self._failure = str(error)
        self._rests_until_s = clock.monotonic_s() + RETRY_S
        answered.error = (
            error if isinstance(error, CiaosError) else CiaosError(f"The image failed: {error!r}")
        )

    async def _write(self) -> None:
        await self._chunks.roll_log()
        if not await self._committer.commit_anyway():
            raise CiaosError("The commit before an image failed.")
        log_bytes = self._meta.counters.values[Counter.LOG_BYTES]
        reach("image.begun")
        copy = await self._workers.run(self._meta.copy_for_image)
        try:
            reach("image.copied")
            root = await self._send(copy)
            try:
                await self._publish(root)
                await self._keep(root, log_bytes)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self.forget_leftovers()
                raise
        finally:
            with trio.CancelScope(shield=True):
                await self._workers.run(copy.close)
        self.images_written += 1

    async def _send(self, copy: DatabaseCopy) -> ImageRoot:
        """Step 3. The root with the places as they were when each stripe was written."""
        stripes: list[ImageStripe] = []
        try:
            while True:
                began_s = clock.monotonic_s()
                payload = await self._workers.run(copy.next_payload)
                if payload is None:
                    return ImageRoot(
                        copy.state, copy.tables, copy.database_bytes, copy.inodes, tuple(stripes)
                    )
                if self._chunks.space().available < 2 * len(payload.data):
                    raise NoSpaceError(
                        "The drives are too full for an image of the metadata: delete something."
                    )
                record = await self._chunks.write_stripe([payload.data], StripeKind.IMAGE)
                reach("image.stripe")
                with trio.CancelScope(shield=True):
                    await self._gate.wait_open()
                self._meta.stripes.insert(record)
                reach("image.noted")
                stripes.append(ImageStripe(record, payload.offset, payload.length, payload.checksum))
                took_s = clock.monotonic_s() - began_s
                await trio.sleep(took_s * (1 / WRITE_SHARE - 1))
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.forget_leftovers()
            raise

    async def _publish(self, root: ImageRoot) -> None:
        """Steps 4 and 5."""
        if not await self._committer.commit_anyway():
            raise CiaosError("The commit of an image's stripes failed.")
        sequence = root.state.sequence
        assert self._committer.status.sequence >= sequence, "an image of a commit that is not durable"
        reach("image.stripes_synced")
        # Repair may have moved shards since they were written.
        now = [self._meta.stripes.load(stripe.record.stripe_id) for stripe in root.stripes]
        places: dict[int, StripeRecord] = {record.stripe_id: record for record in now if record is not None}
        root = root.with_records(places)
        await self._chunks.append_commit(
            sequence, await self._workers.run(encode_root, root), image_root=True
        )
        reach("image.root")
        await self._chunks.sync()
        reach("image.root_synced")

    async def _keep(self, root: ImageRoot, log_bytes: int) -> None:
        """Step 6."""
        await self._gate.wait_open()
        images = self._meta.images
        ids = [stripe.record.stripe_id for stripe in root.stripes]
        state = root.state
        images.keep(
            ImageRow(
                state.sequence, state.log_volume_min, min(ids), max(ids), root.stored_bytes, clock.now_ns()
            )
        )
        self._meta.counters.add(Counter.LOG_BYTES, -log_bytes)
        for image in images.all()[limits.IMAGES_KEPT :]:
            images.delete(image.sequence)
        await self.forget_leftovers()
        reach("image.kept")
        # With a checkpoint: what the log loses now must not be what the database file lacks.
        if not await self._committer.commit_anyway(with_checkpoint=True):
            raise CiaosError("The commit of an image failed.")
        reach("image.done")
        log.info(
            "image of the metadata as of commit %d: %d inodes, %d bytes in %d stripes",
            state.sequence,
            root.inodes,
            root.stored_bytes,
            len(ids),
        )

    async def forget_leftovers(self) -> None:
        """Let go of the stripes of images that are not kept, in the open transaction."""
        while True:
            await self._gate.wait_open()
            leftovers = self._meta.stripes.unkept(STRIPES_STEP_MAX)
            for stripe_id in leftovers:
                self._meta.stripes.let_go(stripe_id)
            if len(leftovers) < STRIPES_STEP_MAX:
                return
            await trio.lowlevel.checkpoint()
