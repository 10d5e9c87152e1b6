"""The Python example of README.md does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.mount import ROOT, MountedStore, environment

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
