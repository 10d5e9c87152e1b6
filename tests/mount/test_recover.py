"""`ciaosfs recover` of a store that was mounted, killed and robbed of its database; a mounted one is refused."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.mount import MountedStore


def test_a_killed_store_with_the_database_of_another_moment(mounted: MountedStore, tmp_path: Path) -> None:
    mounted.expect_log("WARNING")
    content = random.Random(1).randbytes(3_000_000)
    (mounted.path / "kept").write_bytes(content)
    mounted.sync()
    refused = mounted.run("recover", str(mounted.store), "--yes", check=False)
    assert refused.returncode == 4
    assert "is mounted" in refused.stderr
    mounted.kill()
    for file in (mounted.store / "meta").iterdir():
        file.write_bytes(b"not what it was")
    said = mounted.run("recover", str(mounted.store), "--yes").stdout
    assert said.startswith("Recovered up to commit ")
    assert mounted.run("check", str(mounted.store), "--data").stdout.endswith("is consistent.\n")
    mounted.mount()
    assert (mounted.path / "kept").read_bytes() == content
