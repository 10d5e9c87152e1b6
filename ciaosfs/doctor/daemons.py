"""The daemon of a mounted store, by its own account: commits, stripes, drives that lag, descriptors left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ciaosfs.base.config import StoreConfig
from ciaosfs.base.units import format_duration
from ciaosfs.doctor.finding import Finding, ok, problem, warning

DESCRIPTORS_SHARE_GOOD = 0.8
COMMIT_LATE = 6.0
"""Commit intervals without a commit, while something waits for one, that are no accident."""
Safety = Callable[[Mapping[str, Any]], str]
"""From the status of a daemon to a line that says how safe the data is."""


def check_daemon(config: StoreConfig, status: Mapping[str, Any], safety: Safety) -> Iterator[Finding]:
    yield check_process(status, Path("/proc"))
    yield check_commits(config, status)
    yield check_stripes(status, safety)
    yield check_slow_drives(status)


def check_process(status: Mapping[str, Any], proc: Path) -> Finding:
    name = "daemon"
    pid = status["pid"]
    up = f"Process {pid} answers, up {format_duration(status['uptime_s'])}"
    try:
        used = sum(1 for _ in (proc / str(pid) / "fd").iterdir())
        lines = (proc / str(pid) / "limits").read_text().splitlines()
        limit = next(line.split()[3] for line in lines if line.startswith("Max open files"))
    except OSError:
        return ok(name, f"{up}.")  # another user's
    if limit.isdigit() and used > DESCRIPTORS_SHARE_GOOD * int(limit):
        return warning(
            name,
            f"{up}, and has {used} of {limit} descriptors in use.",
            "Raise the limit before the next mount: LimitNOFILE= of the service, /etc/security/limits.conf.",
        )
    return ok(name, f"{up}; {used} descriptors in use.")


def check_commits(config: StoreConfig, status: Mapping[str, Any]) -> Finding:
    name = "commits"
    commit = status["commit"]
    if commit["failure"]:
        return problem(
            name,
            f"They fail: {commit['failure']}",
            "Free space or bring drives back: nothing new is durable until then.",
        )
    if status["dirty_bytes"] and commit["age_s"] > COMMIT_LATE * config.commit_interval_s:
        return warning(
            name,
            f"The last one was {format_duration(commit['age_s'])} ago, and data waits for the next.",
            "See which drive is slow: 'ciaosfs drive list', 'ciaosfs top'.",
        )
    if not commit["sequence"]:
        return ok(name, "There was none yet.")
    return ok(name, f"The last one was {format_duration(commit['age_s'])} ago.")


def check_stripes(status: Mapping[str, Any], safety: Safety) -> Finding:
    name = "stripes"
    line = safety(status)
    sentence = f"{line[:1].upper()}{line[1:]}."
    if any(int(spare) < 0 and count for spare, count in status["stripes_by_spare"].items()):
        return problem(
            name,
            sentence,
            "Bring absent drives back; what stays lost is listed by 'ciaosfs status --damaged'.",
        )
    if any(int(missing) and count for missing, count in status["stripes_by_missing"].items()):
        return warning(
            name, sentence, "Bring absent drives back, or wait for the repair: 'ciaosfs job list --watch'."
        )
    return ok(name, sentence)


def check_slow_drives(status: Mapping[str, Any]) -> Finding:
    name = "drives' pace"
    slow = status["slow_drives"]
    for kind, found, words in (
        ("hanging", problem, "do not answer"),
        ("lagging", warning, "lag behind the others"),
    ):
        if slow[kind]:
            numbers = ", ".join(map(str, slow[kind]))
            return found(
                name,
                f"Drives {numbers} {words}.",
                "See 'dmesg' and SMART values; 'ciaosfs drive replace N DIR' empties one.",
            )
    return ok(name, "All drives keep up.")
