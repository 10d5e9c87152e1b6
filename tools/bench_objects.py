"""How fast objects go over the control socket, beside plain files on the same mount: `python -m tools.bench_objects`.

Makes a store of 4+2 in a temporary directory, mounts it, and prints a line for each phase: MiB or operations per second.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ciaosfs.client.locate import connect
from ciaosfs.client.transport import Connection
from tests.support.mount import MountedStore, drop_caches

MIB = 1 << 20
LARGE_COUNT, SMALL_COUNT, SMALL_BYTES, CLIENTS = 200, 2000, 4096, 4
LARGE = os.urandom(MIB)
SMALL = os.urandom(SMALL_BYTES)


def timed(name: str, count: int, unit: str, work: Callable[[], None]) -> None:
    start = time.perf_counter()
    work()
    print(f"{name:42} {count / (time.perf_counter() - start):9,.0f} {unit}", flush=True)


def put_streamed(connection: Connection) -> None:
    handle = connection.call("object-create", key="large/streamed")["handle"]
    for _ in range(LARGE_COUNT):
        connection.call("object-write", handle=handle, body=LARGE)
    connection.call("object-commit", handle=handle)


def get_streamed(connection: Connection) -> None:
    handle = connection.call("object-open", key="large/streamed")["handle"]
    for number in range(LARGE_COUNT):
        connection.call("object-read", handle=handle, offset=number * MIB, length=MIB)
        assert len(connection.reply_body) == MIB
    connection.call("close", handle=handle)


def put_each(connection: Connection, folder: str, content: bytes, count: int) -> None:
    for number in range(count):
        connection.call("object-put", key=f"{folder}/{number}", mode="create", body=content)


def get_each(connection: Connection, folder: str, count: int) -> None:
    for number in range(count):
        connection.call("object-get", key=f"{folder}/{number}")


def write_each(folder: Path, content: bytes, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        with open(folder / str(number), "wb", buffering=0) as file:
            file.write(content)


def write_renamed(folder: Path, content: bytes, count: int) -> None:
    """As careful programs do what a put does."""
    folder.mkdir()
    for number in range(count):
        with open(folder / ".new", "wb", buffering=0) as file:
            file.write(content)
        (folder / ".new").rename(folder / str(number))


def read_each(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / str(number)).read_bytes()


def write_large(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        for _ in range(LARGE_COUNT):
            file.write(LARGE)


def read_large(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def beside_each_other(store: Path, work: Callable[[Connection, int], None]) -> None:
    def client(number: int) -> None:
        with connect(store) as connection:
            work(connection, number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(mounted: MountedStore) -> None:
    path, small = mounted.path, SMALL_COUNT
    with connect(mounted.store) as connection:

        def settle() -> None:
            connection.call("sync", timeout_s=None)
            drop_caches(path)

        for operation, work, plain in (
            ("write", lambda: put_streamed(connection), lambda: write_large(path / "plain")),
            ("read, cold", lambda: get_streamed(connection), lambda: read_large(path / "plain")),
            ("read, warm", lambda: get_streamed(connection), lambda: read_large(path / "plain")),
        ):
            if "warm" not in operation:
                settle()
            timed(f"{operation} one of 200 MiB: by key", LARGE_COUNT, "MiB/s", work)
            timed(f"{operation} one of 200 MiB: plain", LARGE_COUNT, "MiB/s", plain)
        settle()
        timed("put 200 x 1 MiB: by key", LARGE_COUNT, "MiB/s", lambda: put_each(connection, "m", LARGE, 200))
        timed("put 200 x 1 MiB: plain", LARGE_COUNT, "MiB/s", lambda: write_each(path / "pm", LARGE, 200))
        settle()
        timed("get 200 x 1 MiB, cold: by key", LARGE_COUNT, "MiB/s", lambda: get_each(connection, "m", 200))
        timed("get 200 x 1 MiB, cold: plain", LARGE_COUNT, "MiB/s", lambda: read_each(path / "pm", 200))
        settle()
        timed("put 4 KiB: by key", small, "/s", lambda: put_each(connection, "s", SMALL, small))
        timed("put 4 KiB: plain", small, "/s", lambda: write_each(path / "ps", SMALL, small))
        timed("put 4 KiB: plain, renamed", small, "/s", lambda: write_renamed(path / "pr", SMALL, small))

        def put_beside(connection: Connection, number: int) -> None:
            put_each(connection, f"c{number}", SMALL, small // CLIENTS)

        timed(f"put 4 KiB, {CLIENTS} clients: by key", small, "/s",
              lambda: beside_each_other(mounted.store, put_beside))  # fmt: skip
        settle()
        timed("get 4 KiB, cold: by key", small, "/s", lambda: get_each(connection, "s", small))
        timed("get 4 KiB, cold: plain", small, "/s", lambda: read_each(path / "ps", small))
        timed("get 4 KiB, warm: by key", small, "/s", lambda: get_each(connection, "s", small))
        timed("get 4 KiB, warm: plain", small, "/s", lambda: read_each(path / "ps", small))


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="ciaosfs-bench-") as base,
        MountedStore(Path(base) / "store") as mounted,
    ):
        run(mounted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
