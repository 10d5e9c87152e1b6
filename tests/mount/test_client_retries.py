"""A connection that breaks at any request, and a daemon that is restarted: nothing is applied twice, nothing by half."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ciaosfs import Ciaos, Config
from ciaosfs.base import limits
from ciaosfs.base.errors import DaemonError, LostAnswerError
from ciaosfs.client import locate
from ciaosfs.client.download import Download
from tests.support.cutting_proxy import Cut, CuttingProxy
from tests.support.mount import MountedStore

MIB = limits.MIB
LARGE = bytes(range(256)) * (3 * 4096) + b"end"


@pytest.fixture
def proxy(shared_mount: MountedStore, tmp_path: Path) -> Iterator[CuttingProxy]:
    with CuttingProxy(tmp_path / "s", locate.socket_of(shared_mount.store)) as proxy:
        yield proxy


@pytest.fixture
def ciaos(proxy: CuttingProxy) -> Iterator[Ciaos]:
    with Ciaos(Config(api_url=proxy.url)) as ciaos:
        assert not ciaos.exists("nothing")  # a session that was answered once waits for a daemon to come back
        yield ciaos


Act = Callable[[Ciaos, str], object]

ACTS: dict[str, Act] = {
    "put": lambda ciaos, at: ciaos.put_binary(f"{at}new", [b"a", b"b"]),
    "put large": lambda ciaos, at: ciaos.put_binary(f"{at}new", [LARGE]),
    "update": lambda ciaos, at: ciaos.update(f"{at}old", [b"new"]),
    "append": lambda ciaos, at: ciaos.append(f"{at}old", [b"more"]),
    "delete": lambda ciaos, at: ciaos.delete(f"{at}old"),
    "rename": lambda ciaos, at: ciaos.update_key(f"{at}old", f"{at}moved"),
    "get": lambda ciaos, at: ciaos.get(f"{at}large"),
    "stat": lambda ciaos, at: ciaos.stat(f"{at}old"),
    "stat many": lambda ciaos, at: ciaos.stat_many([f"{at}old", f"{at}large"]),
    "keys": lambda ciaos, at: list(ciaos.keys(at)),
}
BEFORE: dict[str, bytes | None] = {"new": None, "old": b"old", "moved": None}
AFTER: dict[str, dict[str, bytes | None]] = {
    "put": {"new": b"ab"},
    "put large": {"new": LARGE},
    "update": {"old": b"new"},
    "append": {"old": b"oldmore"},
    "delete": {"old": None},
    "rename": {"old": None, "moved": b"old"},
}
BEGINNINGS = [("put large", "object-create"), ("put large", "object-write")]
READS = [
    *(("get", "object-get"), ("get", "object-read"), ("stat", "object-stat")),
    *(("stat many", "object-stat"), ("keys", "object-list")),
]
STEPS = [
    *(("put", "object-put"), ("put large", "object-commit"), ("update", "object-put")),
    *(("append", "object-append"), ("delete", "object-delete"), ("rename", "object-rename")),
]


@pytest.fixture
def folder(workdir: Path) -> Path:
    (workdir / "old").write_bytes(b"old")
    (workdir / "large").write_bytes(LARGE)
    return workdir


def expected(name: str, *, is_done: bool) -> dict[str, bytes | None]:
    return {**BEFORE, **(AFTER.get(name, {}) if is_done else {})}


def found(folder: Path) -> dict[str, bytes | None]:
    return {name: path.read_bytes() if (path := folder / name).exists() else None for name in BEFORE}


@pytest.mark.parametrize("where", Cut)
@pytest.mark.parametrize(("name", "operation"), [*BEGINNINGS, *READS])
def test_what_has_had_no_effect_is_tried_again(
    proxy: CuttingProxy, ciaos: Ciaos, folder: Path, name: str, operation: str, where: Cut
) -> None:
    undisturbed = ACTS[name](ciaos, f"{folder.name}/") if name in dict(READS) else None
    proxy.cut(operation, where, times=2)
    assert ACTS[name](ciaos, f"{folder.name}/") == undisturbed
    assert found(folder) == expected(name, is_done=True)


@pytest.mark.parametrize("where", Cut)
@pytest.mark.parametrize(("name", "operation"), STEPS)
def test_what_may_have_happened_is_not_done_again(
    proxy: CuttingProxy, ciaos: Ciaos, folder: Path, name: str, operation: str, where: Cut
) -> None:
    proxy.cut(operation, where)
    with pytest.raises(LostAnswerError, match="without an answer"):
        ACTS[name](ciaos, f"{folder.name}/")
    assert found(folder) == expected(name, is_done=where is Cut.AFTER)
    assert proxy.requests.count(operation) == 0


def test_a_daemon_that_says_not_now_is_asked_again(ciaos: Ciaos, proxy: CuttingProxy, folder: Path) -> None:
    proxy.refuse_next(errno.EAGAIN, "FsError")
    ciaos.append(f"{folder.name}/old", [b"more"])
    assert (folder / "old").read_bytes() == b"oldmore"


def test_an_open_object_is_read_on(proxy: CuttingProxy, ciaos: Ciaos, folder: Path) -> None:
    key = f"{folder.name}/large"
    with ciaos.open(key) as source:
        assert source.read(1000) == LARGE[:1000]
        proxy.cut("object-read", Cut.BEFORE)
        assert source.read() == LARGE[1000:]
        (folder / "large").unlink()
        (folder / "large").write_bytes(LARGE)
        proxy.cut("object-read", Cut.BEFORE)
        source.seek(MIB)
        with pytest.raises(OSError, match="replaced") as stale:
            source.read(10)
        assert stale.value.errno == errno.ESTALE


def test_a_large_object_is_got_although_the_daemon_let_go_of_it(
    shared_mount: MountedStore, ciaos: Ciaos, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does before it is asked to unmount, whether it is then unmounted or not."""
    ask = Download.ask
    asked: list[int] = []

    def asks(self: Download, start: int, length: int) -> None:
        if not asked:
            with locate.connect(shared_mount.store) as connection:
                connection.call("object-let-go")
        asked.append(start)
        ask(self, start, length)

    monkeypatch.setattr(Download, "ask", asks)
    assert ciaos.get(f"{folder.name}/large") == [LARGE]
    assert asked.count(asked[0]) == 2, "it was begun anew"


def test_what_is_written_piece_by_piece_is_not_begun_anew(
    proxy: CuttingProxy, ciaos: Ciaos, folder: Path
) -> None:
    proxy.cut("object-write", Cut.BEFORE)
    with pytest.raises(DaemonError), ciaos.open(f"{folder.name}/new", "xb") as out:
        out.write(LARGE)
    assert found(folder) == BEFORE


def test_a_daemon_that_is_restarted(shared_mount: MountedStore, workdir: Path) -> None:
    """While threads put, append and read without a pause. The last test here: it mounts the store anew."""
    prefix, is_over = f"{workdir.name}/", threading.Event()
    done: dict[str, bytes] = {}
    unknown: dict[str, bytes] = {}
    failures: list[BaseException] = []

    def use(ciaos: Ciaos, number: int) -> None:
        turn = 0
        while not is_over.is_set():
            turn += 1
            key, data = f"{number}/{turn}", f"{number} {turn} ".encode() * (400_000 if turn % 9 == 0 else 9)
            try:
                ciaos.put_binary(prefix + key, [data, data])
                done[key] = 2 * data
                assert ciaos.get(prefix + key) == [data, data]
            except LostAnswerError:
                unknown[key] = 2 * data
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)
                return

    with Ciaos(Config(api_url=shared_mount.path)) as ciaos:
        users = [threading.Thread(target=use, args=(ciaos, number)) for number in range(4)]
        for user in users:
            user.start()
        shared_mount.remount()
        before = len(done)
        while len(done) < before + 20 and not failures:
            is_over.wait(0.01)
        is_over.set()
        for user in users:
            user.join()
        assert not failures
        for key, data in done.items():
            assert (workdir / key).read_bytes() == data
        for key, data in unknown.items():
            assert not (workdir / key).exists() or (workdir / key).read_bytes() == data
        assert len(list(ciaos.keys(prefix))) >= len(done)
        assert len(unknown) <= len(users)
