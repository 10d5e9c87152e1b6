"""What README.md and FORMAT.md show is so: the Python example, 'make up' and 'make down', the files of a store."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mount import ROOT, MountedStore, detach, environment, is_mounted

_EXAMPLE = re.compile(r"^## From Python\n.*?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_python_example(shared_mount: MountedStore, tmp_path: Path) -> None:
    found = _EXAMPLE.search((ROOT / "README.md").read_text())
    assert found is not None
    code = found[1].replace("/mnt/ciaos", str(shared_mount.path))
    (tmp_path / "model.pt").write_bytes(b"m" * 3_000_000)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    printed = ["[b'one', b'two', b'three']", "['runs/7/model.pt'] 4", "3000000"]
    assert done.stdout.splitlines() == printed
    assert (shared_mount.path / "runs/7/log").read_bytes() == b"as long as you like"


@pytest.mark.skipif(not (ROOT / ".venv/bin/ciaosfs").exists(), reason="'make setup' has not been run here")
def test_make_up_says_which_command_unmounts(tmp_path: Path) -> None:
    store, mount = tmp_path / "store", tmp_path / "a mount"
    given = {**environment(), "STORE": str(store), "MOUNT": str(mount)}
    try:
        up = subprocess.run(
            [ROOT / "tools/up.sh", "up"], env=given, capture_output=True, text=True, check=True
        )
        assert is_mounted(mount)
        last = up.stdout.splitlines()[-1]
        assert last.startswith("'") and last.endswith("' unmounts it.")
        command = shlex.split(last.removeprefix("'").removesuffix("' unmounts it."))
        subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=True)
        assert not is_mounted(mount)
    finally:
        if is_mounted(mount):
            detach(mount)


def test_every_file_of_a_store_is_in_format(tmp_path: Path) -> None:
    with MountedStore(tmp_path / "ciaosfs") as mounted:
        (mounted.path / "file").write_text("content")
        while_mounted = _names(mounted.store)
        mounted.umount()
        names = while_mounted | _names(mounted.store)
    text = (ROOT / "FORMAT.md").read_text()
    table = text.partition("```")[2].partition("```")[0].replace("-wal, -shm", "-wal, meta/meta.sqlite-shm")
    assert {name for name in names if not re.search(rf"(^|\s){re.escape(name)}[,\s]", table)} == set()


def _names(store: Path) -> set[str]:
    """Of its files, without the drives."""
    files = [path.relative_to(store) for path in store.rglob("*") if path.is_file()]
    return {str(path) for path in files if path.parts[0] != "drives"}
