"""What the commands say and return."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ciaosfs.cli import cmd_status, main, mount_helper
from ciaosfs.client import storelock
from tests.cli.conftest import Ciaosfs
from tests.support.mount import environment, wait_until


def _every_command() -> list[str]:
    """Each command, and each of its parts, as it is typed."""
    names = []
    for name in main.COMMANDS:
        command = main.group.get_command(click.Context(main.group), name)
        names.append(name)
        if isinstance(command, click.Group):
            names += [f"{name} {part}" for part in command.commands]
    return names


@pytest.mark.parametrize("name", _every_command())
def test_every_help_has_an_example_and_the_exit_statuses(ciaosfs: Ciaosfs, name: str) -> None:
    outcome = ciaosfs(*name.split(), "--help")
    assert outcome.status == 0
    _, example = outcome.out.split("Example:")
    assert f"ciaosfs {name}" in example
    assert "Exit status: 0 success" in outcome.out
    assert ("--json" in outcome.out) == (name not in ("metrics", "completion", "run")), (
        "those print other languages"
    )


def test_the_command_is_quick_to_import() -> None:
    code = (
        "import sys, ciaosfs.cli.main; "
        "print([name for name in ('trio', 'apsw', 'pyfuse3', 'zfec') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_python_dash_m() -> None:
    command = [sys.executable, "-m", "ciaosfs", "--version"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ciaosfs ")


@pytest.mark.parametrize(
    "arguments", [["mkfs"], ["mkfs", "--no-such", "x"], ["dance"], ["mkfs", "x", "--data", "y"]]
)
def test_wrong_usage_is_one_sentence_and_where_to_look(ciaosfs: Ciaosfs, arguments: list[str]) -> None:
    outcome = ciaosfs(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Try 'ciaosfs" in outcome.err
    assert outcome.err.count("\n") == 1


def test_without_a_command_there_is_help(ciaosfs: Ciaosfs) -> None:
    outcome = ciaosfs()
    assert outcome.status == 2
    assert "Commands:" in outcome.err


def test_mkfs_and_status_of_what_is_not_mounted(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    store = tmp_path / "store"
    made = ciaosfs("mkfs", store, "--data", "2", "--parity", "1")
    assert (made.status, made.err) == (0, "")
    assert f"ciaosfs mount {store}" in made.out
    status = ciaosfs("status", store)
    assert status.status == 0
    assert "Mounted  no\n" in status.out
    assert "2+1 (any 1 of 3 shards may be lost)" in status.out
    (store / "drives" / "d1").rename(tmp_path / "away")
    fields = json.loads(ciaosfs("status", store, "--json").out)
    assert fields["type"] == "status"
    assert fields["mounted"] is False
    assert [drive["state"] for drive in fields["drives"]] == ["present", "absent", "present"]
    inside = ciaosfs("status", store / "ciaosfs.toml")
    assert (inside.status, f"name its directory, {store}." in inside.err) == (3, True)
    again = ciaosfs("mkfs", store)
    assert again.status == 3
    assert "already is a ciaosfs store" in again.err


def test_mkfs_prints_json(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    fields = json.loads(ciaosfs("mkfs", tmp_path / "store", "--json").out)
    assert fields["type"] == "store"
    assert len(fields["drives"]) == 6


@pytest.mark.parametrize("command", ["mount", "status", "sync", "umount"])
def test_what_is_no_store_is_status_3(ciaosfs: Ciaosfs, tmp_path: Path, command: str) -> None:
    outcome = ciaosfs(command, tmp_path)
    assert outcome.status == 3
    assert "is not a ciaosfs store" in outcome.err
    assert ("mkfs" in outcome.err) == (command == "mount")  # nobody wants one there who looks for one
    assert outcome.err.count("\n") == 1


def _commands_on_paths() -> dict[str, list[str]]:
    """Each command that takes a path as an argument: its arguments, all paths empty."""
    lines = {
        "put": ["", "key"],
        "get": ["key", ""],
        "append": ["key", ""],
        "run": ["--token-file", "", "true"],
    }
    for name in _every_command():
        first, _, second = name.partition(" ")
        command = main.group.get_command(click.Context(main.group), first)
        if isinstance(command, click.Group) and second:
            command = command.commands[second]
        assert command is not None
        arguments = [each for each in command.params if isinstance(each, click.Argument)]
        if name not in lines and any(isinstance(each.type, click.Path) for each in arguments):
            lines[name] = ["" if isinstance(each.type, click.Path) else "1" for each in arguments]
    return lines


@pytest.mark.parametrize(("name", "arguments"), _commands_on_paths().items())
def test_an_empty_path_is_no_path(
    ciaosfs: Ciaosfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str]
) -> None:
    """A variable that is not set: what works in the current directory would be done there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIAOSFS_URL", str(tmp_path / "nothing"))
    outcome = ciaosfs(*name.split(), *arguments)
    assert outcome.status == 2
    assert "empty" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_what_lies_in_a_file_cannot_be_made(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    in_it = tmp_path / "file" / "x"
    for arguments in ([in_it], [tmp_path / "s", "--drive", in_it, "--data", "1", "--parity", "0"]):
        outcome = ciaosfs("mkfs", *arguments)
        assert outcome.status == 2
        assert "file is not a directory" in outcome.err


@pytest.mark.parametrize("command", [("status",), ("job", "list"), ("drive", "add"), ("inspect", "needle")])
def test_all_help_ends_with_the_exit_status(ciaosfs: Ciaosfs, command: tuple[str, ...]) -> None:
    assert "Exit status: 0 success" in ciaosfs(*command, "--help").out


@pytest.mark.parametrize("command", ["sync", "umount"])
def test_what_needs_a_mount_says_how_to_mount(ciaosfs: Ciaosfs, tmp_path: Path, command: str) -> None:
    ciaosfs("mkfs", tmp_path / "store")
    outcome = ciaosfs(command, tmp_path / "store")
    assert outcome.status == 3
    assert "ciaosfs mount" in outcome.err


@pytest.mark.mount
@pytest.mark.usefixtures("needs_fuse")
def test_the_life_of_a_mount(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    store, path = tmp_path / "store", tmp_path / "mount"
    path.mkdir()
    ciaosfs("mkfs", store)
    mounted = ciaosfs("mount", store, path)
    assert (mounted.status, mounted.out, mounted.err) == (0, "", "ciaosfs: Nothing was lost.\n")
    assert path.is_mount()
    (path / "file").write_text("content")

    link = tmp_path / "link"
    link.symlink_to("mount")
    for named in (store, path, path / "file", link, link / "file"):
        status = ciaosfs("status", named)
        assert status.status == 0
        assert f"{path} by process" in status.out
    assert "15; 3 with 1 shard missing" in status.out
    assert "number 7" in status.out
    fields = json.loads(ciaosfs("status", path, "--json").out)
    assert fields["mounted"] is True
    assert fields["drives"][0]["state"] == "online"

    assert json.loads(ciaosfs("sync", path, "--json").out) == {
        "type": "sync",
        "store": str(store),
        "commit": 7,
    }
    again = ciaosfs("mount", store, path)
    assert again.status == 5
    assert "already a mount point" in again.err
    other = tmp_path / "other"
    other.mkdir()
    busy = ciaosfs("mount", store, other)
    assert busy.status == 4
    assert f"already mounted at {path}" in busy.err

    with (path / "file").open():
        refused = ciaosfs("umount", path)
        assert refused.status == 5
        assert "in use" in refused.err
    assert ciaosfs("umount", link).status == 0
    assert not path.is_mount()
    assert "no, unmounted cleanly" in ciaosfs("status", store).out


@pytest.mark.mount
@pytest.mark.usefixtures("needs_fuse")
def test_mount_says_why_it_could_not(
    ciaosfs: Ciaosfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    ciaosfs("mkfs", store)
    missing = ciaosfs("mount", store, tmp_path / "missing")
    assert missing.status == 5
    assert "mkdir -p" in missing.err
    (tmp_path / "mount").mkdir()
    monkeypatch.setenv("CIAOSFS_TEST", "no-ready")
    died = ciaosfs("mount", store, tmp_path / "mount")
    assert died.status == 6
    assert "ended with status 9" in died.err


@pytest.mark.mount
@pytest.mark.usefixtures("needs_fuse")
def test_umount_reports_what_did_not_reach_the_drives(
    ciaosfs: Ciaosfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = tmp_path / "store", tmp_path / "mount"
    path.mkdir()
    ciaosfs("mkfs", store)
    monkeypatch.setenv("CIAOSFS_TEST", "bad-ending")
    ciaosfs("mount", store, path)
    outcome = ciaosfs("umount", path)
    assert outcome.status == 6
    assert outcome.err == "ciaosfs: The drives cannot take the last commit.\n"
    assert "the last mount ended: The drives" in ciaosfs("status", store).out


@pytest.mark.mount
@pytest.mark.usefixtures("needs_fuse")
def test_jobs_are_shown_paused_and_resumed(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    """The daemon in these tests has a job that has ended, and one that never will."""
    store, path = tmp_path / "store", tmp_path / "mount"
    path.mkdir()
    ciaosfs("mkfs", store)
    assert ciaosfs("job", "list", store).status == 3
    ciaosfs("mount", store, path)
    lines = ciaosfs("job", "list", "--all", path).out.splitlines()
    assert lines[0].split() == ["JOB", "KIND", "STATE", "PROGRESS", "RATE", "LEFT"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2"]
    assert "counted" in ciaosfs("job", "show", "1", "--watch", path).out
    assert ciaosfs("job", "pause", "2", path).out == "Job 2 (count) is paused.\n"
    job = json.loads(ciaosfs("job", "list", "--json", path).out)
    assert (job["type"], job["id"], job["state"], job["rate"]) == ("job", 2, "paused", None)
    assert "paused" in ciaosfs("job", "show", "2", path).out
    assert ciaosfs("job", "resume", "2", path).status == 0
    wait_until(
        lambda: json.loads(ciaosfs("job", "show", "2", "--json", path).out)["rate"],
        "a running job has no rate",
    )
    refused = ciaosfs("job", "pause", "1", path)
    assert (refused.status, "done" in refused.err) == (2, True)
    assert "There is no job 9" in ciaosfs("job", "show", "9", path).err
    assert ciaosfs("scrub", path).out == "No scrub has ended yet.\n"
    assert "3 counted" in ciaosfs("scrub", "--now", "--wait", path).out
    told = json.loads(ciaosfs("scrub", "--json", path).out)
    assert (told["type"], told["job"], told["last"]["state"]) == ("scrub", None, "done")
    assert told["due_ns"] == told["last"]["created_ns"] + 7 * 86_400 * 10**9
    ciaosfs("umount", path)


@pytest.mark.mount
@pytest.mark.usefixtures("needs_fuse")
def test_umount_cleans_up_after_a_daemon_that_died(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    store, path = tmp_path / "store", tmp_path / "mount"
    path.mkdir()
    ciaosfs("mkfs", store)
    ciaosfs("mount", store, path)
    pid = json.loads(ciaosfs("status", path, "--json").out)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: storelock.read_lock(store)[0] is None, "the lock outlives its holder")
    for command, named in (("status", path), ("check", path), ("sync", store), ("sync", path)):
        dead = ciaosfs(command, named)
        assert (dead.status, dead.out) == (6, "")
        assert dead.err == (
            f"ciaosfs: The daemon of {store} has died; the next 'ciaosfs mount {store}' shows its last commit.\n"
        )
    assert ciaosfs("status", path / "below").status == 6
    status = ciaosfs("status", store)
    assert (status.status, status.err) == (0, "")
    assert (
        f"no: its daemon has died; the next 'ciaosfs mount' takes its dead mount at {path} away" in status.out
    )
    assert json.loads(ciaosfs("status", store, "--json").out)["dead_mount"] == str(path)
    for _ in range(2):
        check = ciaosfs("check", store)
        assert (check.status, check.out) == (0, f"Store {store} is consistent.\n")
        assert check.err.startswith(f"ciaosfs: The daemon of {store} has died;")
    with storelock.hold(store):  # as a check does
        assert "in use by process" in ciaosfs("check", store).err
        assert "has died" in ciaosfs("status", path).err
    outcome = ciaosfs("umount", path)
    assert outcome.status == 0
    assert "had died" in outcome.err
    assert not path.is_mount()


@pytest.mark.mount
@pytest.mark.usefixtures("needs_fuse")
def test_mount_8_finds_its_helper(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    store, path = tmp_path / "store", tmp_path / "mount"
    path.mkdir()
    ciaosfs("mkfs", store)
    assert mount_helper.run([str(store), str(path), "-o", "rw,noatime,x-systemd.automount,_netdev"]) == 0
    assert path.is_mount()
    assert mount_helper.run([str(store), str(path), "-n", "-o", "rw"]) == mount_helper.MOUNT_FAILED
    assert ciaosfs("umount", path).status == 0


@pytest.mark.mount
@pytest.mark.usefixtures("needs_fuse")
def test_a_mount_is_what_its_options_ask_for(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    store, path = tmp_path / "store", tmp_path / "mount"
    path.mkdir()
    ciaosfs("mkfs", store)
    assert mount_helper.run([str(store), str(path), "-o", "ro,nosuid,nodev,noexec"]) == 0
    wanted = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    assert os.statvfs(path).f_flag & wanted == wanted
    with pytest.raises(OSError, match="Read-only file system"):
        (path / "file").write_text("refused")
    assert ciaosfs("umount", path).status == 0
    assert ciaosfs("mount", store, path, "-o", "nosuid").status == 0
    assert os.statvfs(path).f_flag & wanted == os.ST_NOSUID
    (path / "file").write_text("taken")
    assert ciaosfs("umount", path).status == 0


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="only root remounts")
@pytest.mark.usefixtures("needs_fuse")
def test_a_mount_is_made_read_only_and_back(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    store, path = tmp_path / "store", tmp_path / "mount"
    path.mkdir()
    ciaosfs("mkfs", store)
    assert ciaosfs("mount", store, path).status == 0
    (path / "file").write_text("taken")
    assert mount_helper.run([str(store), str(path), "-o", "rw,remount,ro"]) == 0
    with pytest.raises(OSError, match="Read-only file system"):
        (path / "file").write_text("refused")
    assert mount_helper.run([str(store), str(path), "-o", "remount,rw"]) == 0
    (path / "file").write_text("taken again")
    assert ciaosfs("umount", path).status == 0


def test_the_helper_refuses_options_it_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mount_helper.run([str(tmp_path), str(tmp_path), "-o", "ro,dax"]) == mount_helper.WRONG_USAGE
    assert "no mount option dax:" in capsys.readouterr().err
    assert mount_helper.run([str(tmp_path)]) == mount_helper.WRONG_USAGE
    assert mount_helper.run([str(tmp_path), str(tmp_path), "-z"]) == mount_helper.WRONG_USAGE
    assert mount_helper.run([str(tmp_path), str(tmp_path), "-f"]) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_130(
    ciaosfs: Ciaosfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(path: Path | None) -> None:
        raise error

    monkeypatch.setattr(cmd_status, "locate", interrupted)
    assert ciaosfs("status", tmp_path).status == 130
