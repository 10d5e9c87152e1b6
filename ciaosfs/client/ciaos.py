"""The key/value client: `Ciaos`.

A key is a path below the user's folder, and its object is the file there: what is put here is seen on the mount at once, and
the other way round. An object is a list of blobs; the file is their concatenation. A file that was written on the mount is
one blob.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

from ciaosfs.base import limits
from ciaosfs.client.batches import BlobSource, FileSource, Source
from ciaosfs.client.config import Config
from ciaosfs.client.download import Download, Progress, receive_all
from ciaosfs.client.failures import as_python
from ciaosfs.client.info import ObjectInfo, info_of
from ciaosfs.client.keys import Key, blobs, check_key, check_metadata, check_prefix
from ciaosfs.client.listing import Listing, describe_all
from ciaosfs.client.reader import BufferedObject
from ciaosfs.client.session import Session, never
from ciaosfs.client.upload import CREATE, PUT, REPLACE, Addition, Put, Upload, append_batch
from ciaosfs.client.wire import Wire
from ciaosfs.client.writer import ObjectWriter


class Ciaos:
    """A session with one store. Safe for many threads, and in a forked child. A context manager; else `close` it.

    All raise: ValueError for a key or a list that cannot be, before anything is sent; KeyError, with the key, when it is
    missing; PermissionError, which names the scope, when the token does not allow it; OSError for what a file operation is
    refused for; CiaosError (DaemonError, StoreError) when there is no daemon to be reached.

    Nothing is applied twice, and nothing by half. A call is tried again, for `Config.retry_s` seconds, when it cannot have
    had an effect yet or has none. LostAnswerError says that the daemon went away while it was carrying out a call: look
    whether it did.

    What was put or changed is as durable as a file that was written and closed: on the drives within the commit interval
    (5 s). With `sync=True` it is on the drives when the call returns.
    """

    def __init__(self, config: Config | None = None) -> None:
        """Connects when it is first used. Raises ValueError for a configuration that cannot be."""
        self._session = Session((config or Config()).settled())

    # Whole objects

    def put(
        self,
        file_path: str | os.PathLike[str],
        key: Key | None = None,
        *,
        replace: bool = False,
        metadata: Mapping[str, str] | None = None,
        sync: bool = False,
        progress: Progress | None = None,
    ) -> str:
        """Put the content of a local file under `key`, by default its own name; returns the key.

        The file is streamed, and readers see all of it or nothing. Raises FileExistsError when there is something under
        the key, unless `replace`.
        """
        if not os.fspath(file_path):
            raise ValueError("The path of the file is empty: name a file.")
        path = Path(os.fsdecode(file_path))
        name = check_key(path.name if key is None else key)
        with path.open("rb", buffering=0) as file:
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode):
                source = FileSource(file, facts.st_size)
                self._put(name, source, PUT if replace else CREATE, metadata, sync, progress)
            else:  # what cannot be read twice cannot be tried twice
                with self.open(name, "wb" if replace else "xb", metadata=metadata, sync=sync) as out:
                    shutil.copyfileobj(file, out, limits.CONTROL_BODY_BYTES_MAX)
        return name

    def put_binary(
        self,
        key: Key,
        data_list: Iterable[Any],
        *,
        replace: bool = False,
        metadata: Mapping[str, str] | None = None,
        sync: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Put a list of bytes-like objects under `key`. Raises FileExistsError when there is something, unless `replace`."""
        source = BlobSource(blobs(data_list))
        self._put(check_key(key), source, PUT if replace else CREATE, metadata, sync, progress)

    def update(
        self,
        key: Key,
        data_list: Iterable[Any],
        *,
        metadata: Mapping[str, str] | None = None,
        sync: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Replace the list of blobs under `key`, and its metadata when there are any. Raises KeyError when it is missing."""
        self._put(check_key(key), BlobSource(blobs(data_list)), REPLACE, metadata, sync, progress)

    def get(self, key: Key, *, progress: Progress | None = None) -> list[bytes]:
        """The list of blobs under `key`, all in memory; `open` reads it piece by piece."""
        name = check_key(key)

        def attempt(wire: Wire) -> list[bytes]:
            with Download(wire, self._session.full_key(name)) as download:
                return receive_all(download, progress)

        with as_python(name):
            return self._session.carry_out(attempt)

    def append(self, key: Key, data_list: Iterable[Any], *, sync: bool = False) -> None:
        """Add a list of blobs after those under `key`. Raises KeyError when it is missing.

        Lists of up to 1 MiB, and 2000 blobs, are added in one step; larger ones in several, in order: when one of these
        fails, those before it stay.
        """
        name, source = check_key(key), BlobSource(blobs(data_list))
        full = self._session.full_key(name)
        with as_python(name):
            for batch in source.batches():
                self._session.carry_out(partial(append_batch, key=full, batch=batch, sync=sync), never)

    # Names

    def update_key(self, old_key: Key, new_key: Key) -> None:
        """Rename. Raises KeyError when `old_key` is missing, FileExistsError when there is something under `new_key`."""
        old, new = check_key(old_key), check_key(new_key)
        names: dict[str, Any] = {"old": self._session.full_key(old), "new": self._session.full_key(new)}
        with as_python(old, new):
            self._session.carry_out(lambda wire: wire.call("object-rename", **names), never)

    def delete(self, key: Key) -> None:
        """Delete the object under `key`. Raises KeyError when it is missing."""
        name = check_key(key)
        full = self._session.full_key(name)
        with as_python(name):
            self._session.carry_out(lambda wire: wire.call("object-delete", key=full), never)

    def exists(self, key: Key) -> bool:
        """Whether there is an object under `key`; what is only the beginning of keys is none."""
        try:
            self.stat(key)
        except (KeyError, NotADirectoryError, IsADirectoryError):
            return False
        return True

    def stat(self, key: Key) -> ObjectInfo:
        """Size, parts, time and metadata of the object under `key`. Raises KeyError when it is missing."""
        name = check_key(key)
        full = self._session.full_key(name)
        with as_python(name):
            return info_of(name, self._session.carry_out(lambda wire: wire.call("object-stat", key=full)))

    def keys(self, prefix: Key = "", *, flat: bool = False) -> Generator[str, None, None]:
        """The keys that begin with `prefix`, in the order of their bytes, page by page as they are taken.

        `flat`: only those in the folder of the prefix, and the folders in it, which end in a slash. A key that is there all
        the while is listed once. What the mount has beside files (links, pipes) is listed, too. Raises PermissionError,
        after all others, when there are folders that may not be listed.
        """
        with self.listing(prefix, flat=flat) as listing:
            while found := listing.page():
                yield from found

    def listing(self, prefix: Key = "", *, flat: bool = False) -> Listing:
        """As `keys`, for whoever wants to have the pages."""
        return Listing(self._session, check_prefix(prefix), is_flat=flat)

    def stat_many(self, keys: Iterable[Key]) -> list[ObjectInfo | None]:
        """What `stat` gives for each of the keys, in a fraction of the time; None for what is no object or not readable."""
        names = [check_key(key) for key in keys]
        with as_python(""):
            return describe_all(self._session, names)

    # Streams

    @overload
    def open(self, key: Key, mode: Literal["rb"] = "rb") -> BufferedObject: ...

    @overload
    def open(
        self,
        key: Key,
        mode: Literal["xb", "wb", "ab"],
        *,
        metadata: Mapping[str, str] | None = None,
        sync: bool = False,
    ) -> ObjectWriter: ...

    def open(
        self, key: Key, mode: str = "rb", *, metadata: Mapping[str, str] | None = None, sync: bool = False
    ) -> BufferedObject | ObjectWriter:
        """The object under `key` as a binary file: "rb" reads, "xb" puts, "wb" puts or replaces, "ab" appends.

        What is written is one blob. It is there, as a whole, when the file is closed; a `with` block that is left by an
        exception, or `abandon()`, puts nothing. Raises KeyError for "rb" and "ab" when the key is missing,
        FileExistsError for "xb" when it is not, ValueError for another mode.
        """
        name = check_key(key)
        if mode == "rb":
            return BufferedObject(self._session, name)
        if mode not in ("xb", "wb", "ab"):
            raise ValueError(f"An object is opened with 'rb', 'xb', 'wb' or 'ab', not with {mode!r}.")
        full, kept = self._session.full_key(name), check_metadata(metadata)
        if mode == "ab":
            if kept:
                raise ValueError(
                    "Metadata are put with an object, not added to one: open it with 'xb' or 'wb'."
                )
            return ObjectWriter(self._session, name, lambda wire: Addition(wire, full)).on_close(
                {}, sync=sync
            )
        begin = partial(Upload, key=full, mode=CREATE if mode == "xb" else PUT)
        return ObjectWriter(self._session, name, begin).on_close(kept, sync=sync)

    # The session

    def close(self) -> None:
        """Close the connections. Calls under way come to their end; nothing can begin any more."""
        self._session.close()

    def __enter__(self) -> Ciaos:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ciaos({self._session!r})"

    def _put(
        self,
        key: str,
        source: Source,
        mode: str,
        metadata: Mapping[str, str] | None,
        sync: bool,
        progress: Progress | None,
    ) -> None:
        full, kept = self._session.full_key(key), check_metadata(metadata)
        tries: list[Put] = []

        def attempt(wire: Wire) -> None:
            tries.append(Put(full, source, mode, kept, sync=sync))
            tries[-1].send(wire, progress)

        with as_python(key):
            self._session.carry_out(attempt, lambda: not tries or not tries[-1].may_have_happened)
