"""Several processes and several doors on the same files: nothing stale, nothing lost, nothing torn."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from tests.support import exerciser
from tests.support.caller import DIRECT_ALIGN
from tests.support.mount import ROOT, MountedStore, drop_caches, environment

PROCESSES = 3
STEPS = 400


def start(path: Path, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.exerciser", path, str(seed), str(STEPS)],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_with_locks_see_each_others_pages(
    shared_mount: MountedStore, workdir: Path, seed: int
) -> None:
    path = workdir / "shared"
    exerciser.prepare(path)
    children = [start(path, seed + number) for number in range(PROCESSES)]
    while children[0].poll() is None:
        drop_caches(shared_mount.path)  # clean pages go while others are dirty
        with suppress(subprocess.TimeoutExpired):
            children[0].wait(0.3)
    complaints = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0] * PROCESSES, "\n".join(complaints)
    before = exerciser.total(path)
    assert before >= PROCESSES * STEPS
    shared_mount.remount()
    assert exerciser.total(path) == before


def test_one_file_through_every_door_is_a_row_of_bytes(
    shared_mount: MountedStore, workdir: Path, seed: int
) -> None:
    """Buffered, O_DIRECT and mapped access, truncation and reopening, against a bytearray."""
    dice = random.Random(seed)
    path = workdir / "file"
    path.touch()
    model = bytearray()
    plain = os.open(path, os.O_RDWR)
    direct = os.open(path, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 64 * DIRECT_ALIGN)
    try:
        for step in range(700):
            kind = dice.choice(
                ("write", "write", "append", "direct", "map", "truncate", "read", "direct read")
            )
            start_at = dice.randrange(max(len(model), 1) + 20_000) if kind == "write" else len(model)
            data = dice.randbytes(dice.choice((1, 100, 4096, 5000, 70_000)))
            if kind in ("write", "append"):
                model.extend(bytes(max(0, start_at - len(model))))
                model[start_at : start_at + len(data)] = data
                os.pwrite(plain, data, start_at)
            elif kind == "direct":
                start_at = dice.randrange(len(model) // DIRECT_ALIGN + 2) * DIRECT_ALIGN
                length = dice.randrange(1, 9) * DIRECT_ALIGN
                buffer[:length] = dice.randbytes(length)
                model.extend(bytes(max(0, start_at - len(model))))
                model[start_at : start_at + length] = buffer[:length]
                os.pwritev(direct, [memoryview(buffer)[:length]], start_at)
            elif kind == "map" and len(model) > len(data):
                start_at = dice.randrange(len(model) - len(data))
                with mmap.mmap(plain, len(model)) as mapping:
                    mapping[start_at : start_at + len(data)] = data
                model[start_at : start_at + len(data)] = data
            elif kind == "truncate":
                length = dice.randrange(len(model) + 10_000)
                os.ftruncate(plain, length)
                model = (model + bytes(max(0, length - len(model))))[:length]
            elif kind == "direct read":
                start_at = dice.randrange(len(model) // DIRECT_ALIGN + 1) * DIRECT_ALIGN
                got = os.preadv(direct, [buffer], start_at)
                assert buffer[:got] == model[start_at : start_at + len(buffer)], f"step {step}: direct read"
            else:
                start_at = dice.randrange(len(model) + 1)
                assert os.pread(plain, 100_000, start_at) == model[start_at : start_at + 100_000], (
                    f"step {step}"
                )
            assert os.fstat(plain).st_size == len(model), f"step {step}: {kind} leaves another size"
            if step % 100 == 99:
                drop_caches(shared_mount.path)
                assert path.read_bytes() == model, f"step {step}: the file is not the model any more"
    finally:
        os.close(plain)
        os.close(direct)
    shared_mount.remount()
    assert path.read_bytes() == model


def test_threads_that_make_rename_list_and_remove_in_one_directory(workdir: Path, seed: int) -> None:
    """Any of the calls may lose its race, but with the errno of a race; what is left is what is listed."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        dice = random.Random(seed * 10 + number)
        try:
            for _ in range(400):
                one, other = (workdir / f"n{dice.randrange(30)}" for _ in range(2))
                try:
                    match dice.randrange(6):
                        case 0 | 1:
                            one.write_bytes(str(number).encode() * 10)
                        case 2:
                            one.rename(other)
                        case 3:
                            one.unlink()
                        case 4:
                            os.link(one, other)
                        case _:
                            for entry in workdir.iterdir():
                                entry.lstat()
                except (FileNotFoundError, FileExistsError):
                    pass
        except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    for name in os.listdir(workdir):
        assert (workdir / name).read_bytes() in {str(number).encode() * 10 for number in range(4)} | {b""}
    for name in os.listdir(workdir):
        (workdir / name).unlink()
    assert os.listdir(workdir) == []
