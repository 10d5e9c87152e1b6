"""The key/value client for trio: `AsyncCiaos`, the calls of `Ciaos` as coroutines.

Each call runs in a worker thread. When it is cancelled its connection is cut, so that the thread ends at once; what holds
for a daemon that goes away then holds for it: a put that had not come to its end leaves nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from os import PathLike
from typing import Any, Literal, TypeVar

import trio

from ciaosfs.client import cutting
from ciaosfs.client.aiofile import AsyncObject, Threads
from ciaosfs.client.ciaos import Ciaos
from ciaosfs.client.config import Config
from ciaosfs.client.download import Progress
from ciaosfs.client.info import ObjectInfo
from ciaosfs.client.keys import Key

Result = TypeVar("Result")


class AsyncCiaos:
    """As `Ciaos`, where each call is documented. Many tasks may use it at once. Progress is told in trio's thread."""

    def __init__(self, config: Config | None = None) -> None:
        self._ciaos = Ciaos(config)
        self._threads = Threads()

    async def put(
        self,
        file_path: str | PathLike[str],
        key: Key | None = None,
        *,
        progress: Progress | None = None,
        **options: Any,
    ) -> str:
        return await self._call(self._ciaos.put, file_path, key, progress=_told(progress), **options)

    async def put_binary(
        self, key: Key, data_list: Iterable[Any], *, progress: Progress | None = None, **options: Any
    ) -> None:
        await self._call(self._ciaos.put_binary, key, data_list, progress=_told(progress), **options)

    async def update(
        self, key: Key, data_list: Iterable[Any], *, progress: Progress | None = None, **options: Any
    ) -> None:
        await self._call(self._ciaos.update, key, data_list, progress=_told(progress), **options)

    async def get(self, key: Key, *, progress: Progress | None = None) -> list[bytes]:
        return await self._call(self._ciaos.get, key, progress=_told(progress))

    async def append(self, key: Key, data_list: Iterable[Any], *, sync: bool = False) -> None:
        await self._call(self._ciaos.append, key, data_list, sync=sync)

    async def update_key(self, old_key: Key, new_key: Key) -> None:
        await self._call(self._ciaos.update_key, old_key, new_key)

    async def delete(self, key: Key) -> None:
        await self._call(self._ciaos.delete, key)

    async def exists(self, key: Key) -> bool:
        return await self._call(self._ciaos.exists, key)

    async def stat(self, key: Key) -> ObjectInfo:
        return await self._call(self._ciaos.stat, key)

    async def stat_many(self, keys: Iterable[Key]) -> list[ObjectInfo | None]:
        return await self._call(self._ciaos.stat_many, keys)

    async def keys(self, prefix: Key = "", *, flat: bool = False) -> AsyncIterator[str]:
        with self._ciaos.listing(prefix, flat=flat) as listing:
            while found := await self._call(listing.page):
                for key in found:
                    yield key

    async def open(
        self, key: Key, mode: Literal["rb", "xb", "wb", "ab"] = "rb", **options: Any
    ) -> AsyncObject:
        """To be used as `async with await ciaos.open(key) as file`."""
        file = await self._call(self._ciaos.open, key, mode, **options)
        return AsyncObject(file, self._threads)

    async def aclose(self) -> None:
        self._ciaos.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> AsyncCiaos:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Async{self._ciaos!r}"

    async def _call(self, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        cut = cutting.Cut()

        def call() -> Result:
            cutting.current.set(cut)  # in the thread's own copy of the task's context
            return work(*arguments, **options)

        return await self._threads.run(call, cut.make)


def _told(progress: Progress | None) -> Progress | None:
    """The callback, called in trio's thread from a worker."""
    if progress is None:
        return None
    return lambda done, total: trio.from_thread.run_sync(progress, done, total)
