"""Every `console` block of SEMANTICS.md is true: its commands are run on a mount, their output is
compared."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.mount import ROOT, MountedStore

_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _examples() -> list[tuple[int, list[tuple[str, str]]]]:
    """(line, [(command, expected output)]) of each block."""
    text = (ROOT / "SEMANTICS.md").read_text()
    examples = []
    for block in _BLOCK.finditer(text):
        steps: list[tuple[str, str]] = []
        for line in block.group(1).splitlines(keepends=True):
            if line.startswith("$ "):
                steps.append((line[2:].rstrip("\n"), ""))
            else:
                command, expected = steps[-1]
                steps[-1] = (command, expected + line)
        examples.append((text.count("\n", 0, block.start()) + 1, steps))
    return examples


EXAMPLES = _examples()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5
    assert all(steps for _, steps in EXAMPLES)


@pytest.mark.parametrize(("line", "steps"), EXAMPLES, ids=[f"line {line}" for line, _ in EXAMPLES])
def test_example(line: int, steps: list[tuple[str, str]], shared_mount: MountedStore) -> None:
    directory = shared_mount.path / f"semantics-{line}"
    directory.mkdir()
    for command, expected in steps:
        done = subprocess.run(
            ["bash", "-c", command], cwd=directory, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout == expected, (
            f"SEMANTICS.md line {line}: {command}: {done.stdout!r} {done.stderr!r}"
        )
