"""The client for trio: the same calls, many at once, and what is left when they are cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ciaosfs import AsyncCiaos, Config
from ciaosfs.base import limits
from ciaosfs.client import locate
from tests.support.cutting_proxy import CuttingProxy
from tests.support.mount import MountedStore

LARGE = bytes(range(256)) * (3 * 4096) + b"end"


@asynccontextmanager
async def session(shared_mount: MountedStore) -> AsyncIterator[AsyncCiaos]:
    async with AsyncCiaos(Config(api_url=shared_mount.path)) as ciaos:
        yield ciaos


def test_every_call(shared_mount: MountedStore, workdir: Path, tmp_path: Path) -> None:
    at = f"{workdir.name}/"
    (tmp_path / "f").write_bytes(LARGE)
    seen: list[int] = []

    async def main() -> None:
        async with session(shared_mount) as ciaos:
            in_trio = trio.lowlevel.current_task()

            def progress(done: int, total: int) -> None:
                assert trio.lowlevel.current_root_task() is not None
                assert in_trio is not None
                seen.append(done)

            assert await ciaos.put(tmp_path / "f", f"{at}f", progress=progress) == f"{at}f"
            await ciaos.put_binary(f"{at}list", [b"a"])
            await ciaos.append(f"{at}list", [b"b"])
            assert await ciaos.get(f"{at}list") == [b"a", b"b"]
            await ciaos.update(f"{at}list", [b"c"])
            await ciaos.update_key(f"{at}list", f"{at}moved")
            assert await ciaos.exists(f"{at}moved")
            assert (await ciaos.stat(f"{at}moved")).size == 1
            assert await ciaos.stat_many([f"{at}list"]) == [None]
            assert [key async for key in ciaos.keys(at)] == [f"{at}f", f"{at}moved"]
            async with await ciaos.open(f"{at}new", "xb") as out:
                await out.write(b"written")
            async with await ciaos.open(f"{at}new") as source:
                await source.seek(3)
                assert await source.read() == b"tten"
            await ciaos.delete(f"{at}new")
            with pytest.raises(KeyError):
                await ciaos.get(f"{at}new")
            with pytest.raises(ValueError, match="empty"):
                await ciaos.put_binary(f"{at}new", [])

    trio.run(main)
    assert seen[-1] == len(LARGE)


def test_many_tasks_at_once(shared_mount: MountedStore, workdir: Path) -> None:
    async def main() -> None:
        async with session(shared_mount) as ciaos, trio.open_nursery() as nursery:

            async def use(number: int) -> None:
                key = f"{workdir.name}/{number}"
                await ciaos.put_binary(key, [key.encode()])
                assert await ciaos.get(key) == [key.encode()]

            for number in range(5 * limits.CLIENT_CALLS_MAX):
                nursery.start_soon(use, number)

    trio.run(main)
    assert len(list(workdir.iterdir())) == 5 * limits.CLIENT_CALLS_MAX


Use = Callable[[AsyncCiaos, str], Coroutine[None, None, object]]


async def put(ciaos: AsyncCiaos, key: str) -> None:
    await ciaos.put_binary(key, [LARGE])


async def write(ciaos: AsyncCiaos, key: str) -> None:
    async with await ciaos.open(key, "xb") as out:
        await out.write(LARGE)


async def read(ciaos: AsyncCiaos, key: str) -> None:
    await ciaos.get(key.rpartition("/")[0] + "/old")


@pytest.mark.parametrize(
    ("use", "operation"),
    [(put, "object-write"), (put, "object-commit"), (write, "object-write"), (read, "object-read")],
)
def test_what_is_cancelled_ends_at_once_and_leaves_nothing(
    shared_mount: MountedStore, workdir: Path, tmp_path: Path, use: Use, operation: str
) -> None:
    """While its request gets no answer; the session goes on to be of use."""
    (workdir / "old").write_bytes(LARGE)

    async def main(proxy: CuttingProxy) -> None:
        async with AsyncCiaos(Config(api_url=proxy.url)) as ciaos:
            is_held = proxy.hold(operation)
            with trio.fail_after(10), trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(use, ciaos, f"{workdir.name}/new")
                    await trio.to_thread.run_sync(is_held.wait)
                    scope.cancel()
            assert scope.cancelled_caught
            assert [key async for key in ciaos.keys(f"{workdir.name}/")] == [f"{workdir.name}/old"]

    with CuttingProxy(tmp_path / "s", locate.socket_of(shared_mount.store)) as proxy:
        trio.run(main, proxy)
