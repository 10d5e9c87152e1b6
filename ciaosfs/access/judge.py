"""May this process do that there: the token that speaks for it, and the table of rules.

Whoever has no token is refused everything, except the owner: root and the user who runs the daemon. Who has one is
judged by it, the owner too, and refused when it has ended. A refusal is always the same, whether there is something or
not.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ciaosfs.access.places import Places
from ciaosfs.access.policy import RULES, Place, Rule
from ciaosfs.access.sessions import Binding, Sessions
from ciaosfs.base.errors import AccessError
from ciaosfs.meta.inodes import Inode

_LOOKUP = RULES["lookup"]


class Judge:
    """Made once for a mount. A binding that is None stands for who is not judged. For the loop."""

    def __init__(
        self,
        sessions: Sessions,
        is_live: Callable[[int], bool],
        is_own_thread: Callable[[int], bool],
        places: Places,
    ) -> None:
        """`is_live` tells whether a token still counts; `is_own_thread` knows the threads of this process."""
        self._binding_of = sessions.binding_of
        self._is_live = is_live
        self._is_own_thread = is_own_thread
        self._owners = frozenset({0, os.geteuid()})
        self.places = places

    def identify(self, pid: int, uid: int) -> Binding | None:
        """What speaks for a process. Raises AccessError when it has nothing, or what it has has ended."""
        binding = self._binding_of(pid, uid)
        if binding is None:
            if uid in self._owners or self._is_own_thread(pid):
                return None
        elif not binding.is_ended and self._is_live(binding.grant.token_id):
            return binding
        raise refusal()

    def check(self, rule: Rule, ino: int, pid: int, uid: int) -> Binding | None:
        """Raises AccessError unless the process may do what `rule` is about with `ino`."""
        binding = self.identify(pid, uid)
        if binding is not None and not rule.allows(binding.scopes, self.places.of(binding.grant.prefix, ino)):
            raise refusal()
        return binding

    def may(self, binding: Binding, rule: Rule, inode: Inode) -> bool:
        """As `check`, for who knows both already."""
        return rule.allows(binding.scopes, self.places.of_inode(binding.grant.prefix, inode))

    def check_name(self, parent: int, name: bytes, pid: int, uid: int) -> Binding | None:
        """Raises AccessError unless the process may look up `name` in the directory `parent`."""
        binding = self.identify(pid, uid)
        if binding is None:
            return None
        prefix = binding.grant.prefix
        place = self.places.of(prefix, parent)
        if not _LOOKUP.allows(binding.scopes, place) or (
            place is not Place.INSIDE and self.places.way_on(prefix, parent) != name
        ):
            raise refusal()
        return binding

    def is_open(self, binding: Binding | None) -> bool:
        """Whether what was opened by this binding may still be used."""
        return binding is None or (not binding.is_ended and self._is_live(binding.grant.token_id))


def refusal() -> AccessError:
    """What everybody hears who may not."""
    return AccessError("There is no token here that allows this: log in with 'ciaosfs login'.")
