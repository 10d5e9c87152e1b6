"""Scopes: what a token lets its holder do. Pure.

`read` reads and lists; `write` creates, writes, appends, renames, makes directories, and cuts files short; `delete`
unlinks and removes; `admin` asks for what else only the owner of the store may.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag

from ciaosfs.base.errors import UsageError


class Scope(IntFlag):
    """One or more scopes; stored in the metadata as a number."""

    NONE = 0
    READ = 1
    WRITE = 2
    DELETE = 4
    ADMIN = 8

    @property
    def names(self) -> list[str]:
        """Each scope in it by its name, in the order they are declared."""
        return [str(scope.name).lower() for scope in Scope if scope in self]


def parse_scopes(names: Iterable[str]) -> Scope:
    """From names to scopes. Raises UsageError for a name that is none, or when there is no name at all."""
    scopes = Scope.NONE
    for name in names:
        scope = Scope.__members__.get(name.upper())
        if not scope:
            raise UsageError(f"There is no scope {name!r}; there are {', '.join(all_names())}.")
        scopes |= scope
    if not scopes:
        raise UsageError("A token needs at least one scope: read, write, delete or admin.")
    return scopes


def all_names() -> list[str]:
    """The names of all scopes."""
    return [str(scope.name).lower() for scope in Scope]
