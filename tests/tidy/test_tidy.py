"""The rules of the repository hold, and each of the checks can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools import tidy
from tools.tidy import ROOT, Breach, Repository

Check = Callable[[Repository], Iterator[Breach]]


@pytest.fixture(scope="module")
def repository() -> Repository:
    return Repository(ROOT)


@pytest.mark.parametrize("check", tidy.CHECKS, ids=lambda check: check.__name__)
def test_the_repository_keeps_the_rule(repository: Repository, check: Check) -> None:
    breaches = list(check(repository))
    assert not breaches, "\n".join(map(str, breaches))


GOOD = {
    "ciaosfs/__init__.py": '"""Top."""\n',
    "ciaosfs/base/__init__.py": '"""Floor 0."""\n',
    "ciaosfs/base/clock.py": '"""Clock."""\nimport time\nNOW = time.time()\n',
    "ciaosfs/codec/__init__.py": '"""Floor 1."""\n',
    "ciaosfs/codec/needle.py": '"""Needles."""\nfrom ciaosfs.base import clock\n',
    "ciaosfs/cli/__init__.py": '"""Floor 8."""\n',
    "PROTOCOL.md": "| `v` | the version |\n## Operations\n",
    "ciaosfs/cli/main.py": '"""Start."""\nfrom ciaosfs.codec import needle\n',
}

PLANTED: list[tuple[Check, str, str]] = [
    (tidy.check_floors, "ciaosfs/base/up.py", "from ciaosfs.codec import needle"),
    (tidy.check_floors, "ciaosfs/base/up.py", "def f():\n    import ciaosfs.codec.needle"),
    (
        tidy.check_floors,
        "ciaosfs/base/up.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ciaosfs.codec.needle import x",
    ),
    (tidy.check_floors, "ciaosfs/base/up.py", "from ..codec import needle"),
    (tidy.check_floors, "ciaosfs/strange/__init__.py", ""),
    (tidy.check_doors, "ciaosfs/codec/other.py", "import apsw"),
    (tidy.check_doors, "ciaosfs/codec/other.py", "from zfec import Encoder"),
    (tidy.check_doors, "ciaosfs/codec/other.py", "import trio"),
    (tidy.check_cycles, "ciaosfs/base/clock.py", "import ciaosfs.base.up\n"),
    (tidy.check_dead_files, "ciaosfs/codec/unused.py", ""),
    (tidy.check_calls, "ciaosfs/codec/other.py", "print(1)"),
    (tidy.check_calls, "ciaosfs/codec/other.py", "import time\ntime.time_ns()"),
    (tidy.check_calls, "ciaosfs/codec/other.py", "breakpoint()"),
    (tidy.check_sql, "ciaosfs/codec/other.py", "X = 'SELECT a FROM b WHERE c'"),
    (tidy.check_docstrings, "ciaosfs/codec/__init__.py", "X = 1"),
    (tidy.check_protocol, "daemon/ciaosfsd/control/handlers_x.py", "Operation('dance', ADMIN, f)"),
    (tidy.check_protocol, "daemon/ciaosfsd/control/handlers_x.py", "Operation(NAME, ADMIN, f)"),
    (tidy.check_protocol, "PROTOCOL.md", "## Operations\n| `dance` | read write | |"),
    (tidy.check_sizes, "tests/long.py", "\n" * 451),
    (tidy.check_words, "notes.md", "TO" + "DO later"),
    (tidy.check_merges, "Makefile", "all:\n" + "<" * 7 + " HEAD\n"),
    (tidy.check_words, "notes.md", "see /ho" + "me/somebody/file"),
]


def make(root: Path, files: dict[str, str]) -> Repository:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Repository(root, [Path(name) for name in files])


@pytest.mark.parametrize("check", tidy.CHECKS, ids=lambda check: check.__name__)
def test_a_good_tree_breaks_no_rule(tmp_path: Path, check: Check) -> None:
    assert list(check(make(tmp_path, GOOD))) == []


@pytest.mark.parametrize(("check", "name", "text"), PLANTED)
def test_a_planted_breach_is_found(tmp_path: Path, check: Check, name: str, text: str) -> None:
    has_docstring = check is not tidy.check_docstrings
    files = {**GOOD, name: f'"""Planted."""\n{text}\n' if has_docstring else text}
    if check is tidy.check_cycles:
        files["ciaosfs/base/up.py"] = '"""Up."""\nfrom ciaosfs.base.clock import NOW\n'
    assert [breach.path for breach in check(make(tmp_path, files))] == [Path(name)]
