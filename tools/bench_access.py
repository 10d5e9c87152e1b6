"""Measure what a token costs on the mount: a check alone, and as a share of a request. Needs to run as root.

    python -m tools.bench_access [--markdown] [--calls N]

A check is timed in this process, with the real sessions, authority and places, for a process of another session. A
request is one fstat(2) of an open file on a guarded mount, which the kernel hands on each time: asked by the owner, who is
looked up and let through, and by who is logged in and judged; and for comparison what a script sees, `stat` of a path
five directories deep, on a mount that tokens guard and on one where permissions alone decide. Ends with status 1 when a
check takes longer than `--allowed` microseconds.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import trio

from ciaosfs.access.authority import open_authority
from ciaosfs.access.judge import Judge
from ciaosfs.access.paths import parse_folder
from ciaosfs.access.places import Places
from ciaosfs.access.policy import RULES
from ciaosfs.access.processes import KernelProcesses, is_own_thread
from ciaosfs.access.sessions import Sessions
from ciaosfs.control.scopes import Scope
from ciaosfs.fs import namespace
from ciaosfs.fs.requester import ROOT
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.metadata import Metadata
from tests.support.actors import Actor
from tests.support.guarded import GuardedMount, guarded_mount

ROUNDS = 5
DEPTH = 5
UID = 4001


def per_call_us(call: Callable[[], object], calls: int) -> float:
    """The median of a few rounds."""
    rounds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - begin) / calls * 1e6)
    return median(rounds)


async def measure_checks(directory: Path, calls: int) -> dict[str, float]:
    meta = Metadata.create_fresh(directory / "meta.sqlite", bytes(16))
    namespace.create_root(meta, ROOT)
    below = ROOT_INO
    for name in (b"alice", *(b"%d" % depth for depth in range(DEPTH))):
        below = namespace.create(meta, below, name, stat.S_IFDIR | 0o755, ROOT).ino
    file = namespace.create(meta, below, b"file", stat.S_IFREG | 0o644, ROOT)

    async def at_once() -> None:
        await trio.lowlevel.checkpoint()

    sessions = Sessions(KernelProcesses(), is_own_thread)
    try:
        with Actor(UID) as actor:
            async with open_authority(meta, at_once, at_once) as authority:
                await authority.add_user("alice", parse_folder("/alice"), UID, UID)
                issued = await authority.create("alice", Scope.READ | Scope.WRITE)
                binding = sessions.login(actor.pid, UID, authority.verify(issued.secret))
                judge = Judge(sessions, authority.is_live, is_own_thread, Places(meta.inodes, meta.dentries))
                pid, make, look = actor.pid, RULES["make"], RULES["getattr"]
                inode = meta.inodes.load(file.ino)
                assert inode is not None
                costs = {
                    "who asks": per_call_us(lambda: judge.identify(pid, UID), calls),
                    "in a directory": per_call_us(lambda: judge.check(make, below, pid, UID), calls),
                    "a name": per_call_us(lambda: judge.check_name(below, b"file", pid, UID), calls),
                    "a file": per_call_us(lambda: judge.check(look, file.ino, pid, UID), calls),
                    "a file at hand": per_call_us(lambda: judge.may(binding, look, inode), calls),
                    "the owner, without a token": per_call_us(lambda: judge.identify(pid, 0), calls),
                }
                sessions.end(binding)
                return costs
    finally:
        meta.close()


def fstat_us(path: Path, calls: int) -> float:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return per_call_us(lambda: os.fstat(descriptor), calls)
    finally:
        os.close(descriptor)


def stat_us(path: Path, calls: int) -> float:
    return per_call_us(path.stat, calls)


def measure_requests(guarded: GuardedMount, calls: int) -> dict[str, float]:
    path = guarded.path / "alice"
    path = path.joinpath(*(str(depth) for depth in range(DEPTH - 1)), "file")
    path.parent.mkdir(parents=True)
    path.touch()
    found = {}
    with guarded.actor(0) as owner, guarded.actor(UID, "alice rwd") as alice:
        found["fstat by the owner"] = owner.do(fstat_us, path, calls)
        found["fstat by a token"] = alice.do(fstat_us, path, calls)
        found["stat of a path, by a token"] = alice.do(stat_us, path, calls // 4)
    guarded.set_access("posix")
    guarded.store.remount()
    with guarded.actor(UID) as alice:
        found["stat of a path, permissions alone"] = alice.do(stat_us, path, calls // 4)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--allowed", type=float, default=5.0, metavar="MICROSECONDS")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="ciaosfs-bench-access-") as directory:
        checks = trio.run(measure_checks, Path(directory), options.calls)
    with guarded_mount() as guarded:
        requests = measure_requests(guarded, options.calls)
    line = "| {} | {:.2f} |" if options.markdown else "{:<36}{:8.2f} us"
    if options.markdown:
        print("| | us |\n|---|---:|")
    for name, cost in {**{f"check: {name}": cost for name, cost in checks.items()}, **requests}.items():
        print(line.format(name, cost))
    share = 1 - requests["fstat by the owner"] / requests["fstat by a token"]
    print(f"\nJudging is {share:.0%} of a request. Allowed for a check: {options.allowed:g} us.")
    return int(max(checks.values()) > options.allowed)


if __name__ == "__main__":
    sys.exit(main())
