"""Logging in and out: which token speaks for the kernel session of the process that asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ciaosfs.access.grants import Grant
from ciaosfs.access.paths import to_text
from ciaosfs.access.processes import Processes
from ciaosfs.access.sessions import Binding, Sessions
from ciaosfs.base.errors import AccessError, UsageError
from ciaosfsd.control.call import Call, Operation
from ciaosfsd.control.needs import ANYBODY


class SessionHandlers:
    """The handlers of one mounted store. `verify` gives the grant of a secret, `is_live` tells whether it still counts."""

    def __init__(
        self,
        sessions: Sessions,
        processes: Processes,
        verify: Callable[[str], Grant],
        is_live: Callable[[int], bool],
    ) -> None:
        self._sessions = sessions
        self._processes = processes
        self._verify = verify
        self._is_live = is_live

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation("login", ANYBODY, self.login),
            Operation("logout", ANYBODY, self.logout),
            Operation("whoami", ANYBODY, self.whoami),
        )

    async def login(self, call: Call) -> dict[str, Any]:
        """Let `token` speak for the session of the caller, or with `leader` for that of this child of the caller.

        The latter ends with the connection, or before.
        """
        secret = call.arguments.get("token")
        if not isinstance(secret, str):
            raise UsageError("The token is missing, or no text.")
        pid = self._led(call)
        binding = self._sessions.login(pid, call.caller.uid, self._verify(secret))
        if pid != call.caller.pid:
            try:
                call.connection.keep(_Held(self._sessions, binding))
            except BaseException:
                self._sessions.end(binding)
                raise
        return {"session": binding.sid, **_fields(binding.grant)}

    async def logout(self, call: Call) -> dict[str, Any]:
        """Take back what speaks for the session of the caller, or of its child `leader`.

        Returns when what the session had written is here, and nothing of it can come any more.
        """
        binding = self._sessions.logout(self._led(call), call.caller.uid)
        if binding is None:
            return {"was_logged_in": False}
        await binding.wait_closed()
        return {"was_logged_in": True, "session": binding.sid, **_fields(binding.grant)}

    async def whoami(self, call: Call) -> dict[str, Any]:
        """How the caller is judged: `by` its session, its connection, as the owner, or by nothing; and what it may do."""
        caller, given = call.caller, call.connection.given
        grant = given or self._sessions.grant_of(caller.pid, caller.uid)
        if grant is None:
            return {"by": "owner" if caller.is_owner else "nothing", "uid": caller.uid}
        return {
            "by": "session" if given is None else "connection",
            "uid": caller.uid,
            "live": self._is_live(grant.token_id),
            **_fields(grant),
        }

    def _led(self, call: Call) -> int:
        """The process whose session is meant."""
        leader = call.arguments.get("leader")
        if leader is None:
            return call.caller.pid
        if not isinstance(leader, int) or isinstance(leader, bool) or leader <= 0 or not call.caller.pid:
            raise UsageError("The leader of a session is given by the number of a process.")
        try:
            is_its_child = self._processes.parent_and_user(leader) == (call.caller.pid, call.caller.uid)
            is_leader = self._processes.session_of(leader) == leader
        except ProcessLookupError:
            is_its_child = is_leader = False
        if not (is_its_child and is_leader):
            raise AccessError(
                "A process can log in others only that are its children, of the same user, and lead a session."
            )
        return leader


class _Held:
    """What a connection keeps: a session that is logged out when it goes."""

    def __init__(self, sessions: Sessions, binding: Binding) -> None:
        self._sessions = sessions
        self._binding = binding

    async def close(self) -> None:
        self._sessions.end(self._binding)


def _fields(grant: Grant) -> Mapping[str, Any]:
    return {
        "token": grant.token_id,
        "user": grant.user,
        "scopes": grant.scopes.names,
        "folder": to_text(grant.folder),
        "prefix": to_text(grant.prefix),
        "expires_ns": grant.expires_ns,
    }
