"""Every command has a manual page that renders without a warning and has what a page needs."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ciaosfs.cli.main import COMMANDS
from tools.genman import pages

PAGES = pages()


def test_each_command_has_a_page_and_nothing_else_has() -> None:
    assert set(PAGES) == {"ciaosfs.1", *(f"ciaosfs-{name}.1" for name in COMMANDS)}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_what_it_needs(name: str) -> None:
    page = PAGES[name]
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLE", "EXIT STATUS", "SEE ALSO"):
        assert re.search(rf"^\.SH {section}$", page, re.M), section
    statuses = page.partition(".SH EXIT STATUS\n")[2].partition(".SH")[0]
    assert re.findall(r"\\fB(\d+)\\fR", statuses)[:2] == ["0", "1"] and r"\fB130\fR" in statuses
    assert "\b" not in page and "<function" not in page
    (named,) = re.findall(r"\.SH NAME\n(.*)\n\.SH", page)
    assert re.fullmatch(r"ciaosfs[\w\\-]* \\- \S.*[^.]", named), named


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff here")
def test_every_page_renders_without_a_warning() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"],
        input="".join(PAGES.values()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", PAGES)
def test_without_groff_the_roff_is_sound_too(name: str) -> None:
    """Known requests alone, blocks that end, no line that is a request by accident."""
    opened = 0
    for line in PAGES[name].splitlines():
        if line.startswith((".", "'")):
            request = line.split(" ")[0]
            assert request in (".TH", ".SH", ".SS", ".TP", ".PP", ".RS", ".RE", ".nf", ".fi"), line
            opened += {".nf": 1, ".RS": 1, ".fi": -1, ".RE": -1}.get(request, 0)
        assert line and opened >= 0, "an empty line makes an empty line"
        assert not re.search(r"\\(?![-efR&(]|fB)", line), line
    assert opened == 0
