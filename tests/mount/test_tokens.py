"""Users and tokens on a real mount whose daemon is killed: folders are there, and what was revoked stays so."""

from __future__ import annotations

import json

from tests.support.mount import MountedStore


def test_a_token_revoked_before_a_kill_does_not_come_back(mounted: MountedStore) -> None:
    mount, out = str(mounted.path), mounted.base / "token"
    assert not (mounted.path / "ann").exists()
    mounted.run("user", "add", "ann", mount)
    assert (mounted.path / "ann").is_dir(), "the kernel forgot that there was none"
    for _ in range(2):
        secret = mounted.run("token", "create", mount, "--user", "ann", "--scope", "read").stdout
    out.write_text(secret)
    mounted.run("token", "derive", mount, "--token-file", str(out))
    mounted.run("token", "revoke", "2", mount)
    mounted.kill()
    mounted.mount()
    listed = mounted.run("token", "list", mount, "--all", "--json").stdout.splitlines()
    assert {line["id"]: line["state"] for line in map(json.loads, listed)} == {
        1: "live",
        2: "revoked",
        3: "revoked",
    }
    assert mounted.run("token", "show", mount, "--token-file", str(out), check=False).returncode == 8
    assert (mounted.path / "ann").stat().st_mode & 0o777 == 0o700
    assert secret.split("_", 2)[2].strip() not in mounted.log()
