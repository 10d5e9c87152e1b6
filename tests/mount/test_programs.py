"""Real programs on the mount: copiers, archivers, git, SQLite, pip, numpy, editors, loggers."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.support.mount import MountedStore
from tests.support.trees import differences, read_tree

LIBRARY = Path(os.__file__).parent
SLICE = ("asyncio", "collections", "concurrent", "email", "encodings", "http", "json", "unittest", "xml")
WRITERS = 4
LINES = 400


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program that has to succeed; what it printed."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "PIP_", "PYTHON"))},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "LC_ALL": "C",
    }
    done = subprocess.run(
        [os.fspath(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, (
        f"{command}: status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    )
    return done.stdout


def run_workers(code: str, cwd: Path) -> None:
    """Run WRITERS Python processes at once, each told its number; all have to succeed."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number)], cwd=cwd, stderr=subprocess.PIPE, text=True
        )
        for number in range(WRITERS)
    ]
    for child in children:
        complaint = child.communicate(timeout=150)[1]
        assert child.returncode == 0, complaint


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice of Python's own library on the plain disk: about 270 files, some hard and symbolic links added."""
    path = tmp_path_factory.mktemp("library") / "lib"
    path.mkdir()
    for name in SLICE:
        shutil.copytree(LIBRARY / name, path / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    os.link(path / "json" / "decoder.py", path / "json" / "hard.py")
    (path / "soft.py").symlink_to("json/decoder.py")
    (path / "broken").symlink_to("nowhere")
    (path / "empty").mkdir()
    return path


def test_cp_and_tar_keep_everything_through_a_remount(
    shared_mount: MountedStore, workdir: Path, library: Path
) -> None:
    run("cp", "-a", library, workdir / "copied")
    run("tar", "cf", workdir / "lib.tar", "-C", library.parent, library.name)
    (workdir / "unpacked").mkdir()
    run("tar", "xpf", workdir / "lib.tar", "-C", workdir / "unpacked")
    shared_mount.remount()
    for copy in (workdir / "copied", workdir / "unpacked" / library.name):
        run("diff", "-r", "--no-dereference", library, copy)
        found = differences(read_tree(library, times=True), read_tree(copy, times=True))
        # tar keeps times to the second.
        assert copy.parent.name == "unpacked" or not found, "\n".join(found[:5])
    run("tar", "df", workdir / "lib.tar", "-C", library.parent)
    run("rm", "-r", workdir / "copied")
    assert not (workdir / "copied").exists()


def test_rsync_finds_nothing_to_do_the_second_time(
    shared_mount: MountedStore, workdir: Path, library: Path
) -> None:
    copy = f"{workdir}/copy/"
    assert run("rsync", "-aHi", f"{library}/", copy)
    assert run("rsync", "-aHi", f"{library}/", copy) == ""
    shared_mount.remount()
    assert run("rsync", "-aHi", f"{library}/", copy) == ""
    assert run("rsync", "-aHic", f"{library}/", copy) == "", "rsync reads other bytes"
    (workdir / "copy" / "soft.py").unlink()
    assert "soft.py" in run("rsync", "-aHi", f"{library}/", copy)


def test_git_init_add_commit_clone_gc_fsck(shared_mount: MountedStore, workdir: Path, library: Path) -> None:
    repository = workdir / "repository"
    git = ("git", "-C", repository, "-c", "user.name=A", "-c", "user.email=a@example.org")
    run("cp", "-a", library, repository)
    run(*git, "init", "-q")
    run(*git, "add", ".")
    run(*git, "commit", "-qm", "first")
    (repository / "json" / "decoder.py").write_text("changed\n")
    run(*git, "commit", "-qam", "second")
    run(*git, "checkout", "-q", "HEAD~1")
    run(*git, "checkout", "-q", "-")
    run("git", "clone", "-q", repository, workdir / "clone")
    run("git", "clone", "-q", "--no-hardlinks", repository, workdir / "far")
    run(*git, "gc", "-q", "--aggressive", "--prune=now")
    shared_mount.remount()
    for copy in (repository, workdir / "clone", workdir / "far"):
        run("git", "-C", copy, "fsck", "--full", "--strict")
        assert run("git", "-C", copy, "status", "--porcelain") == ""
    run("git", "-C", workdir / "far", "pull", "-q")


SQLITE_WRITER = """
import sqlite3, sys
connection = sqlite3.connect("data.db", timeout=100, isolation_level=None)
for index in range(25):
    connection.execute("begin immediate")
    connection.executemany("insert into t values (?, ?, ?)", ((int(sys.argv[1]), index, b"x" * 300) for _ in range(20)))
    connection.execute("commit")
connection.close()
"""


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_sqlite_with_several_writers(shared_mount: MountedStore, workdir: Path, mode: str) -> None:
    with closing(sqlite3.connect(workdir / "data.db")) as connection:
        assert connection.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
        connection.execute("create table t (writer, step, payload)")
        connection.commit()
    run_workers(SQLITE_WRITER, workdir)
    shared_mount.remount()
    with closing(sqlite3.connect(workdir / "data.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("select count(*) from t").fetchone() == (WRITERS * 25 * 20,)


def make_wheel(directory: Path) -> Path:
    """A wheel with one module and one command, made by hand so that no network is needed."""
    path = directory / "tiny-1.0-py3-none-any.whl"
    information = "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny.py", "def main():\n    print('tiny runs')\n")
        wheel.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            f"{information}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{information}/entry_points.txt", "[console_scripts]\ntiny = tiny:main\n")
        wheel.writestr(f"{information}/RECORD", "")
    return path


def test_a_virtual_environment_and_an_install_into_it(shared_mount: MountedStore, workdir: Path) -> None:
    run(sys.executable, "-m", "venv", workdir / "venv")
    python = workdir / "venv" / "bin" / "python"
    wheel = make_wheel(workdir)
    run(python, "-m", "pip", "install", "--no-index", "--disable-pip-version-check", wheel)
    shared_mount.remount()
    assert run(workdir / "venv" / "bin" / "tiny") == "tiny runs\n"
    run(python, "-m", "pip", "uninstall", "--yes", "tiny")
    assert not (workdir / "venv" / "bin" / "tiny").exists()


def test_compileall(shared_mount: MountedStore, workdir: Path, library: Path) -> None:
    run("cp", "-a", library, workdir / "lib")
    run(sys.executable, "-m", "compileall", "-q", workdir / "lib")
    compiled = sorted((workdir / "lib").rglob("*.pyc"))
    assert len(compiled) > 200
    before = {path: path.stat().st_mtime_ns for path in compiled}
    shared_mount.remount()
    run(sys.executable, "-m", "compileall", "-q", workdir / "lib")
    assert before == {path: path.stat().st_mtime_ns for path in compiled}, "compiled again for no reason"


def test_numpy_memmap(shared_mount: MountedStore, workdir: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    expected = random.standard_normal((3000, 500)).astype(np.float32)
    array = np.memmap(workdir / "array", np.float32, "w+", shape=expected.shape)
    for row in random.permutation(len(expected)):
        array[row] = expected[row]
    array.flush()
    del array
    shared_mount.remount()
    stored = np.memmap(workdir / "array", np.float32, "r", shape=expected.shape)
    assert np.array_equal(stored, expected)
    np.save(workdir / "saved.npy", expected)
    assert np.array_equal(np.load(workdir / "saved.npy", mmap_mode="c"), expected)


def test_an_editor_saves_by_writing_beside_and_renaming(workdir: Path) -> None:
    """A reader sees the old text or the new one, never a part or nothing."""
    path, beside = workdir / "text", workdir / ".text.swp"
    texts = [f"{index:04d}" * (500 + 37 * index) for index in range(150)]
    path.write_text(texts[0])
    done = threading.Event()
    wrong: list[str] = []

    def read_on() -> None:
        known = set(texts)
        while not done.is_set():
            text = path.read_text()
            if text not in known:
                wrong.append(text[:40])

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        for text in texts:
            with beside.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
    finally:
        done.set()
        reader.join()
    assert not wrong
    assert path.read_text() == texts[-1]


LOGGER = """
import logging, sys
handler = logging.FileHandler("log")
handler.setFormatter(logging.Formatter("%(message)s"))
log = logging.getLogger()
log.addHandler(handler)
log.setLevel("INFO")
for index in range({lines}):
    log.info("%s %04d %s", sys.argv[1], index, "x" * (index % 90))
    if index % 50 == 0:
        with open("log", "ab") as again:
            again.write(f"{{sys.argv[1]}} extra {{index}}\\n".encode())
"""


def test_several_loggers_append_to_one_file(shared_mount: MountedStore, workdir: Path) -> None:
    run_workers(LOGGER.format(lines=LINES), workdir)
    shared_mount.remount()
    lines = (workdir / "log").read_text().splitlines()
    expected = {
        f"{number} {index:04d} {'x' * (index % 90)}" for number in range(WRITERS) for index in range(LINES)
    }
    expected |= {f"{number} extra {index}" for number in range(WRITERS) for index in range(0, LINES, 50)}
    assert len(lines) == len(expected) and set(lines) == expected


def test_a_large_stream_keeps_its_bytes(shared_mount: MountedStore, workdir: Path, seed: int) -> None:
    """96 MiB written by dd, copied by cp, read back after a remount."""
    source = workdir / "stream"
    digest = hashlib.sha256()
    with source.open("wb") as file:
        for _ in range(24):
            piece = os.urandom(4 << 20)
            digest.update(piece)
            file.write(piece)
    run("cp", source, workdir / "copy")
    run("dd", f"if={source}", f"of={workdir}/odd", "bs=99991", "conv=fsync")
    shared_mount.remount()
    for name in ("stream", "copy", "odd"):
        with (workdir / name).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest.hexdigest(), name
