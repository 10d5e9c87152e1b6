"""The same random system calls on the mount and on a plain directory: results, errnos and trees compared.

In between the mount is taken down and up again and the kernel's caches are dropped, so that what is
compared is also what was stored. A failure names the seed, the number of the call and the calls before it;
`CIAOSFS_SEED=n pytest tests/mount/test_differential.py` repeats it.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.caller import Caller, Outcome
from tests.support.mount import MountedStore, drop_caches
from tests.support.sequences import Call, Sequence
from tests.support.trees import differences, read_tree

CALLS = 2000
COMPARE_EVERY = 500
SEQUENCES = 2
WITHIN = "within"


def run_both(left: Path, right: Path, seed: int, calls: int, between: Callable[[int], None]) -> Counter[str]:
    """Carry out *calls* calls on both sides; *between* is called after every COMPARE_EVERY, with all closed.

    The calls are made in a directory below *left* and *right*: links to "../one" lead out of it, and what is made through
    them must neither be the other side's nor be left for the next run.
    Returns how many calls succeeded, by name; AssertionError at the first difference.
    """
    roots = left / WITHIN, right / WITHIN
    for root in roots:
        root.mkdir()
    sides = Caller(os.fsencode(roots[0])), Caller(os.fsencode(roots[1]))
    succeeded: Counter[str] = Counter()
    history: list[tuple[int, Call, Outcome]] = []
    sequence = Sequence(seed, as_root=os.getuid() == 0)
    old_umask = os.umask(0o022)
    try:
        for number, (name, arguments) in enumerate(itertools.islice(sequence, calls), 1):
            mine, theirs = (side.call(name, *arguments) for side in sides)
            history.append((number, (name, arguments), mine))
            assert mine == theirs, _explain(seed, history, mine, theirs)
            if not isinstance(mine, tuple) or mine[:1] != ("error",):
                succeeded[name] += 1
            if number % COMPARE_EVERY == 0:
                for side in sides:
                    side.close_all()
                between(number)
                _compare_trees(left, right, seed, number)
    finally:
        os.umask(old_umask)
        for side in sides:
            side.close_all()
    return succeeded


def _compare_trees(left: Path, right: Path, seed: int, number: int) -> None:
    found = differences(read_tree(left), read_tree(right))
    assert not found, f"CIAOSFS_SEED={seed}, after call {number}:\n" + "\n".join(found[:10])


def _explain(seed: int, history: list[tuple[int, Call, Outcome]], mine: Outcome, theirs: Outcome) -> str:
    """What differed, and the calls before it that share an argument (a slot or a path) with it."""
    number, (name, arguments), _ = history[-1]
    handles: set[object] = {word for word in arguments if isinstance(word, bytes) and len(word) < 300}
    if isinstance(arguments[0], int):
        handles.add(arguments[0])
    lines = [
        f"CIAOSFS_SEED={seed}, call {number}: {name}{_short(arguments)}",
        f"  left  {mine}",
        f"  right {theirs}",
    ]
    related = [row for row in history[:-1] if handles & set(row[1][1])]
    lines += [f"  {row[0]:5} {row[1][0]}{_short(row[1][1])} -> {str(row[2])[:90]}" for row in related[-25:]]
    return "\n".join(lines)


def _short(arguments: tuple[object, ...]) -> str:
    shown = (f"<{len(a)} bytes>" if isinstance(a, bytes) and len(a) > 40 else repr(a) for a in arguments)
    return f"({', '.join(shown)})"


@pytest.mark.parametrize("number", range(SEQUENCES))
def test_random_calls_have_the_same_results(
    shared_mount: MountedStore, workdir: Path, tmp_path: Path, seed: int, number: int
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()

    def between(call: int) -> None:
        if call // COMPARE_EVERY % 2 == 0:
            shared_mount.remount()
        drop_caches(shared_mount.path)

    succeeded = run_both(workdir, plain, seed + number, CALLS, between)
    # Random names seldom exist, so most calls are refused, and the share differs with the seed: 20 to 50 %.
    assert sum(succeeded.values()) > CALLS / 10 and len(succeeded) > 25, f"too little succeeds: {succeeded}"


def test_two_plain_directories_agree(tmp_path: Path, seed: int) -> None:
    """The harness itself: what it reports is a difference, not an accident of the order of calls."""
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
    succeeded = run_both(tmp_path / "left", tmp_path / "right", seed, 2 * COMPARE_EVERY, lambda number: None)
    assert len(succeeded) > 25, f"only {sorted(succeeded)} ever succeed"


def test_a_planted_difference_is_found(tmp_path: Path) -> None:
    """One test that has to fail: a file that changes on one side only."""
    for name in ("left", "right"):
        (tmp_path / name).mkdir()

    def plant(number: int) -> None:
        (tmp_path / "left" / "planted").write_bytes(b"x")

    with pytest.raises(AssertionError, match="only left: b'planted'"):
        run_both(tmp_path / "left", tmp_path / "right", 1, COMPARE_EVERY, plant)
