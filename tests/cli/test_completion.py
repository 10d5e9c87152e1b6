"""The completion scripts are click's own, and completing finds every command by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from ciaosfs.cli.main import COMMANDS
from tests.cli.conftest import Ciaosfs
from tests.support.mount import environment


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(ciaosfs: Ciaosfs, shell: str) -> None:
    outcome = ciaosfs("completion", shell)
    assert outcome.status == 0, outcome.err
    assert f"_CIAOSFS_COMPLETE={shell}_complete" in outcome.out
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=outcome.out, text=True, check=False).returncode == 0


def test_another_shell_is_wrong_usage(ciaosfs: Ciaosfs) -> None:
    assert ciaosfs("completion", "tcsh").status == 2


def test_completing_offers_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ciaosfs"],
        env={
            **environment(),
            "_CIAOSFS_COMPLETE": "bash_complete",
            "COMP_WORDS": "ciaosfs ",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=True,
        cwd=os.path.dirname(__file__),  # noqa: PTH120
    )
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == set(COMMANDS)
