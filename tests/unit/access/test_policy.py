"""The table of rules, written out: which scopes and which places are enough for each operation."""

from __future__ import annotations

import itertools
import os

import pytest

from ciaosfs.access.policy import RULES, Place, may_read, may_write, rule_to_create, rule_to_open
from ciaosfs.control.scopes import Scope

ANY, R, W, D = Scope.NONE, Scope.READ, Scope.WRITE, Scope.DELETE
EXPECTED = {
    "statfs": (ANY, Place.OUTSIDE),
    "lookup": (ANY, Place.ABOVE),
    "getattr": (ANY, Place.ABOVE),
    "getacl": (ANY, Place.ABOVE),
    "readlink": (ANY, Place.INSIDE),
    "getxattr": (ANY, Place.INSIDE),
    "opendir": (R, Place.INSIDE),
    "open to read": (R, Place.INSIDE),
    "open to write": (W, Place.INSIDE),
    "open to do both": (R | W, Place.INSIDE),
    "make": (W, Place.INSIDE),
    "make to read": (R | W, Place.INSIDE),
    "link": (W, Place.INSIDE),
    "rename": (W, Place.INSIDE),
    "remove": (D, Place.INSIDE),
    "change": (W, Place.INSIDE),
}
ALL_SCOPES = [Scope(number) for number in range(16)]


def test_every_rule_is_tried() -> None:
    assert set(RULES) == set(EXPECTED)


@pytest.mark.parametrize("operation", EXPECTED)
def test_scopes_and_places(operation: str) -> None:
    needed, least = EXPECTED[operation]
    for scopes, place in itertools.product(ALL_SCOPES, Place):
        allowed = needed in scopes and place >= least
        assert RULES[operation].allows(int(scopes), place) == allowed, (scopes, place)


@pytest.mark.parametrize(
    ("flags", "opened", "made"),
    [
        (os.O_RDONLY, "open to read", "make to read"),
        (os.O_RDONLY | os.O_TRUNC, "open to do both", "make to read"),
        (os.O_WRONLY, "open to write", "make"),
        (os.O_WRONLY | os.O_TRUNC | os.O_APPEND, "open to write", "make"),
        (os.O_RDWR, "open to do both", "make to read"),
    ],
)
def test_what_a_file_is_opened_for(flags: int, opened: str, made: str) -> None:
    assert rule_to_open(flags) is RULES[opened]
    assert rule_to_create(flags) is RULES[made]
    assert may_read(flags) == (flags & os.O_ACCMODE != os.O_WRONLY)
    assert may_write(flags) == (flags & os.O_ACCMODE != os.O_RDONLY)
