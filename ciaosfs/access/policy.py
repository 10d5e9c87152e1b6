"""What each operation on a mounted tree needs: one table, from the operation to scopes and a place. Pure.

A *place* is where a directory or file lies, seen from the prefix of a token: INSIDE it (its top counts), ABOVE it, on the
way from the root to it, or OUTSIDE. What is ABOVE may be walked through, towards the prefix, and no more: it is not
listed, and no other name in it can be told from one that does not exist.

What is not in the table is always allowed, because it says nothing and changes nothing: forget, release, flush.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from ciaosfs.control.scopes import Scope


class Place(IntEnum):
    """Ordered by how much it allows."""

    OUTSIDE = 0
    ABOVE = 1
    INSIDE = 2


class Rule(NamedTuple):
    """`scopes` a token needs (a number: it is compared at each request; 0: any token will do), and the least `place`."""

    scopes: int
    place: int

    def allows(self, scopes: int, place: int) -> bool:
        return not self.scopes & ~scopes and place >= self.place


_READ, _WRITE, _DELETE = int(Scope.READ), int(Scope.WRITE), int(Scope.DELETE)

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "statfs": Rule(0, Place.OUTSIDE),
        # ABOVE: only the one name that leads on (`Judge.look_up`).
        "lookup": Rule(0, Place.ABOVE),
        "getattr": Rule(0, Place.ABOVE),
        # The kernel asks for ACLs to judge permissions, also of directories it only walks through.
        "getacl": Rule(0, Place.ABOVE),
        "readlink": Rule(0, Place.INSIDE),
        # Their names, too; ABOVE it is answered as if there were none.
        "getxattr": Rule(0, Place.INSIDE),
        "opendir": Rule(_READ, Place.INSIDE),
        "open to read": Rule(_READ, Place.INSIDE),
        "open to write": Rule(_WRITE, Place.INSIDE),
        "open to do both": Rule(_READ | _WRITE, Place.INSIDE),
        # Of what makes, moves or removes a name, the directory has to be inside; of a rename both, of a link the
        # file as well.
        "make": Rule(_WRITE, Place.INSIDE),
        "make to read": Rule(_READ | _WRITE, Place.INSIDE),
        "link": Rule(_WRITE, Place.INSIDE),
        "rename": Rule(_WRITE, Place.INSIDE),
        "remove": Rule(_DELETE, Place.INSIDE),
        # Attributes, extended ones, and the size.
        "change": Rule(_WRITE, Place.INSIDE),
    }
)


def rule_to_open(flags: int) -> Rule:
    """For open(2) with `flags` of a file that is there; emptying it is writing."""
    access = flags & os.O_ACCMODE
    if access == os.O_RDONLY:
        return RULES["open to do both" if flags & os.O_TRUNC else "open to read"]
    return RULES["open to write" if access == os.O_WRONLY else "open to do both"]


def rule_to_create(flags: int) -> Rule:
    """For open(2) with `flags` that makes the file."""
    return RULES["make" if flags & os.O_ACCMODE == os.O_WRONLY else "make to read"]


def may_write(flags: int) -> bool:
    """Whether a handle opened with `flags` writes."""
    return flags & os.O_ACCMODE != os.O_RDONLY


def may_read(flags: int) -> bool:
    """Whether a handle opened with `flags` reads; through others the kernel reads only for its own cache."""
    return flags & os.O_ACCMODE != os.O_WRONLY
