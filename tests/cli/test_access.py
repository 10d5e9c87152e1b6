"""The commands for users and tokens, and what they say: the secret once, alone, and nowhere else."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Ciaosfs, Outcome


@pytest.fixture
def mount(ciaosfs: Ciaosfs, tmp_path: Path, needs_fuse: None) -> Path:
    """A mounted store with a user."""
    place = tmp_path / "mount"
    place.mkdir()
    assert ciaosfs("mkfs", tmp_path / "store").status == 0
    assert ciaosfs("mount", tmp_path / "store", place).status == 0
    return place


def lines_of(outcome: Outcome) -> list[dict[str, object]]:
    assert outcome.status == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_users_and_tokens_from_the_shell(
    ciaosfs: Ciaosfs, mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not (mount / "ann").exists(), "and the kernel remembers that"
    added = ciaosfs("user", "add", "ann", mount)
    assert (added.status, added.err) == (0, "") and "its folder /ann belongs to" in added.out
    assert stat.S_IMODE((mount / "ann").stat().st_mode) == 0o700
    again = ciaosfs("user", "add", "ann", mount)
    assert again.status == 2 and again.err.count("\n") == 1
    [user] = lines_of(ciaosfs("user", "list", mount, "--json"))
    assert (user["type"], user["name"], user["folder"]) == ("user", "ann", "/ann")
    # the secret: alone on its line, or in a file
    scopes = ("--scope", "read", "--scope", "write")
    made = ciaosfs("token", "create", mount, "--user", "ann", *scopes, "--prefix", "a", "--name", "one")
    secret = made.out.removesuffix("\n")
    assert secret.startswith("ciaosfs_1_") and "\n" not in secret and secret not in made.err
    assert "token 1 of ann (read, write in /ann/a, until revoked)" in made.err
    out = tmp_path / "two.token"
    two = ciaosfs("token", "create", mount, "--user", "ann", *scopes, "--ttl", "30d", "--out", out, "--json")
    assert lines_of(two)[0]["out"] == str(out) and stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.read_text().strip() not in two.out + two.err
    refused = ciaosfs("token", "create", mount, "--user", "bob", *scopes, "--out", tmp_path / "bob")
    assert refused.status == 2 and "no user 'bob'" in refused.err and not (tmp_path / "bob").exists()
    assert ciaosfs("token", "create", mount, "--user", "ann", *scopes, "--json").status == 2
    # narrower
    (tmp_path / "one.token").write_text(made.out)
    derived = ciaosfs(
        *("token", "derive", mount, "--token-file", tmp_path / "one.token", "--scope", "read", "--ttl", "1h")
    )
    assert derived.out.startswith("ciaosfs_3_") and "(read in /ann/a, for " in derived.err
    wider = ciaosfs("token", "derive", mount, "--token-file", tmp_path / "one.token", "--scope", "delete")
    assert wider.status == 8 and "lacks the scope delete" in wider.err and wider.out == ""
    assert ciaosfs("token", "derive", mount, "--ttl", "soon").status == 2
    # by the environment, and what a token may not
    monkeypatch.setenv("CIAOSFS_TOKEN", derived.out)
    [own] = lines_of(ciaosfs("token", "show", "3", mount, "--json"))
    assert (own["id"], own["parent"], own["prefix"], own["state"]) == (3, 1, "/ann/a", "live")
    assert lines_of(ciaosfs("token", "show", mount, "--json")) == [own], "the one that judges"
    assert ciaosfs("token", "show", "3", mount, mount).status == 2
    denied = ciaosfs("user", "list", mount)
    assert denied.status == 8 and "lacks the scope admin" in denied.err
    monkeypatch.delenv("CIAOSFS_TOKEN")
    # lists, and the end
    listed = [ciaosfs("token", "list", mount), ciaosfs("token", "list", mount, "--all", "--json")]
    shown = ciaosfs("token", "show", "2", mount)
    assert "read,write  /ann/a  live" in listed[0].out and "Good for  /ann\n" in shown.out
    for outcome in (*listed, shown):
        for each in (secret, out.read_text().strip(), derived.out.strip()):
            assert each.split("_", 2)[2] not in outcome.out + outcome.err
    assert "Revoked token 1 of ann, and 1 derived from it." in ciaosfs("token", "revoke", "1", mount).out
    assert "not live any more" in ciaosfs("token", "revoke", "1", mount).out
    states = {
        line["id"]: line["state"] for line in lines_of(ciaosfs("token", "list", mount, "--all", "--json"))
    }
    assert states == {1: "revoked", 2: "live", 3: "revoked"}
    dead = ciaosfs("token", "show", "3", mount, "--token-file", tmp_path / "one.token")
    assert dead.status == 8 and "not valid" in dead.err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    unasked = ciaosfs("user", "remove", "ann", mount)
    assert unasked.status == 2 and "give --yes" in unasked.err
    removed = ciaosfs("user", "remove", "ann", mount, "--yes")
    assert "1 token was revoked. The folder /ann and all in it stay." in removed.out
    assert (mount / "ann").is_dir() and lines_of(ciaosfs("token", "list", mount, "--all", "--json")) == []


def test_the_mode_of_access_is_kept_in_the_configuration(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert json.loads(ciaosfs("mkfs", store, "--access", "tokens", "--json").out)["access"] == "tokens"
    assert f"{store} is in mode tokens: a process needs a token" in ciaosfs("access", store).out
    config = store / "ciaosfs.toml"
    config.write_text(config.read_text().replace('access = "tokens"', 'access = "tokens"  # mine'))
    changed = json.loads(ciaosfs("access", store, "posix", "--json").out)
    assert changed == {
        "type": "access",
        "store": str(store),
        "access": "posix",
        "changed": True,
        "at_next_mount": False,
    }
    assert 'access = "posix"  # mine\n' in config.read_text()
    assert not json.loads(ciaosfs("access", store, "posix", "--json").out)["changed"]
    assert ciaosfs("access", store, "both").status == 2
    assert ciaosfs("access", tmp_path / "missing").status == 3


def test_a_change_of_access_waits_for_the_next_mount(ciaosfs: Ciaosfs, mount: Path) -> None:
    assert "goes on as it was until it is mounted again" in ciaosfs("access", mount, "tokens").out
