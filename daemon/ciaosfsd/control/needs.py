"""Who may call an operation: anybody, who holds a token with some scope, or the owner alone; and how it is refused.

The owner (root, and the daemon's own user) may call everything, unless it is judged by a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ciaosfs.access.grants import Grant
from ciaosfs.base.errors import AccessError
from ciaosfs.control.scopes import Scope


class Who(StrEnum):
    ANYBODY = "anybody"
    HOLDER = "holder"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Need:
    """`scope`: what a holder's token must have; NONE: any live token will do."""

    who: Who
    scope: Scope = Scope.NONE

    def __str__(self) -> str:
        """As PROTOCOL.md and `hello` write it: `anybody`, `owner`, `token`, or the names of scopes."""
        if self.who is Who.HOLDER:
            return " ".join(self.scope.names) or "token"
        return str(self.who)

    def check(self, operation: str, grant: Grant | None, *, is_owner: bool) -> None:
        """AccessError, naming the missing scope, unless who is the owner, or has `grant`, may call `operation`."""
        if self.who is Who.ANYBODY or is_owner:
            return
        if self.who is Who.OWNER:
            raise AccessError(f"Only root and the user who mounted the store may do this ({operation}).")
        if grant is None:
            kind = f"a token with the scope {' and '.join(self.scope.names)}" if self.scope else "a token"
            raise AccessError(f"This ({operation}) needs {kind}: give one, or log in with 'ciaosfs login'.")
        missing = self.scope & ~grant.scopes
        if missing:
            raise AccessError(
                f"The token lacks the scope {' and '.join(missing.names)}, which this ({operation}) needs: "
                "use one that has it."
            )


ANYBODY = Need(Who.ANYBODY)
OWNER = Need(Who.OWNER)


def holder(scope: Scope) -> Need:
    """The owner, or who holds a token with all of `scope`."""
    return Need(Who.HOLDER, scope)


ADMIN = holder(Scope.ADMIN)
TOKEN = holder(Scope.NONE)
