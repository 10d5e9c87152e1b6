"""Kernel sessions that are logged in: which token speaks for a process, asked at each request.

A *binding* joins a session (setsid(2)) and a user with a grant. Every process of the session that runs as this user
has it, children too; one that begins a session of its own has it no longer.

A session's number is that of the process that began it, and comes round again some time after its last process has
ended. It cannot while a process is in it, so a binding holds on to one of them, its *anchor*: best the leader, who
cannot leave the session. When the anchor has gone, another member takes its place, if this is noticed within
`REANCHOR_S`: in so short a time numbers do not come round, and a new leader of that number gives it away.
Otherwise the binding ends: who is in doubt logs in again.

A binding ends with its session, with `logout`, when another token takes its place, or with its token. In the last
case it stays, and refuses: who was judged by a token does not become somebody without one when it expires. What ends
is told to `on_end`; who listens closes the binding when the kernel has handed over what was written before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import trio

from ciaosfs.access.grants import Grant
from ciaosfs.access.processes import Anchor, Processes
from ciaosfs.base import clock, limits
from ciaosfs.base.errors import AccessError

LOOK_S: Final = 0.25
"""How often bindings are looked at when nobody asks."""
REANCHOR_S: Final = 2.0
TRUST_S: Final = 0.005
"""An anchor that was there so shortly before is not looked at again: half of the cost of a check."""
_LOOKS_AT_ONCE: Final = 256


class Binding:
    """A grant and what may still be done by it: nothing new when it `is_ended`, nothing at all when it `is_closed`.

    Between the two only what the kernel has taken over before is written.
    """

    __slots__ = ("_closed", "anchor", "grant", "is_closed", "is_ended", "scopes", "seen_s", "sid", "uid")

    def __init__(self, sid: int, uid: int, grant: Grant, anchor: Anchor) -> None:
        self.sid = sid
        self.uid = uid
        self.grant = grant
        self.scopes = int(grant.scopes)
        self.anchor = anchor
        self.seen_s = clock.monotonic_s()
        self.is_ended = False
        self.is_closed = False
        self._closed = trio.Event()

    def close(self) -> None:
        """Nothing passes any more."""
        self.is_closed = True
        self._closed.set()

    async def wait_closed(self) -> None:
        await self._closed.wait()


class Sessions:
    """All bindings of one mount, at most `limits.SESSIONS_MAX`. For the loop.

    `is_own_thread` knows the threads of this process, which nobody's login concerns.
    """

    def __init__(self, processes: Processes, is_own_thread: Callable[[int], bool]) -> None:
        self._processes = processes
        self._session_of = processes.session_of
        self._is_there = processes.is_there
        self._is_own_thread = is_own_thread
        self._own_sid = processes.session_of(os.getpid())
        self._bindings: dict[tuple[int, int], Binding] = {}
        self._listeners: list[Callable[[Binding], None]] = []
        self._filled = trio.Event()

    def __len__(self) -> int:
        return len(self._bindings)

    def on_end(self, listener: Callable[[Binding], None]) -> None:
        """Call `listener` with each binding that ends; it sees to it that it is closed. Without any it is at once."""
        self._listeners.append(listener)

    def grant_of(self, pid: int, uid: int) -> Grant | None:
        """What speaks for a process or thread; its token may have ended. None: nothing does."""
        binding = self.binding_of(pid, uid)
        return None if binding is None else binding.grant

    def binding_of(self, pid: int, uid: int) -> Binding | None:
        """As `grant_of`, the binding."""
        if pid <= 0:  # of a process that has no number here; for the kernel 0 would mean this one
            return None
        try:
            sid = self._session_of(pid)
        except ProcessLookupError:
            return None
        binding = self._bindings.get((sid, uid))
        if binding is None or (sid == self._own_sid and self._is_own_thread(pid)):
            return None
        if clock.monotonic_s() - binding.seen_s < TRUST_S or self._holds(binding):
            return binding
        return binding if self._hold_on(binding, pid) else None

    def login(self, pid: int, uid: int, grant: Grant) -> Binding:
        """Bind the session of `pid` for user `uid`; what was bound there before ends, unless it has this token.

        Raises AccessError when the process has no session that can be recognised, or too many are bound.
        """
        try:
            sid = self._session_of(pid) if pid > 0 else 0
        except ProcessLookupError:
            sid = 0
        if sid <= 0:
            raise AccessError(
                "The session of the process cannot be seen from here (it began outside of this container, or it"
                " has none): begin one with setsid(1), or start the command with `ciaosfs run`."
            )
        key = sid, uid
        bound = self._bindings.get(key)
        if bound is not None:
            if bound.grant.token_id == grant.token_id and not bound.is_ended and self._holds(bound):
                return bound
            self.end(bound)
        if len(self._bindings) >= limits.SESSIONS_MAX:
            raise AccessError(
                f"{limits.SESSIONS_MAX} sessions are logged in already: log out of others first."
            )
        anchor = self._find_anchor(sid, pid)
        if anchor is None:
            raise AccessError("The process that logs in has ended already.")
        binding = self._bindings[key] = Binding(sid, uid, grant, anchor)
        self._filled.set()
        return binding

    def logout(self, pid: int, uid: int) -> Binding | None:
        """End what speaks for the session of `pid` and user `uid`; returns it."""
        binding = self.binding_of(pid, uid)
        if binding is not None:
            self.end(binding)
        return binding

    def end(self, binding: Binding) -> None:
        """The session is no longer bound. Nothing happens when it has ended before."""
        key = binding.sid, binding.uid
        if self._bindings.get(key) is binding:
            del self._bindings[key]
            os.close(binding.anchor.pidfd)
        self._tell(binding)

    def token_ended(self, token_id: int) -> None:
        """Whoever is bound by this token has nothing any more, and is refused until it logs out."""
        for binding in [each for each in self._bindings.values() if each.grant.token_id == token_id]:
            self._tell(binding)

    async def run(self) -> None:
        """Let go of sessions that have ended, until cancelled."""
        try:
            while True:
                if not self._bindings:
                    self._filled = trio.Event()
                    await self._filled.wait()
                await trio.sleep(LOOK_S)
                await self._look()
        finally:
            for binding in list(self._bindings.values()):
                self.end(binding)

    async def _look(self) -> None:
        lonely = []
        for number, binding in enumerate(list(self._bindings.values()), 1):
            if not self._holds(binding):
                lonely.append(binding)
            if number % _LOOKS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        if lonely:
            members = self._processes.members({binding.sid for binding in lonely})
            for binding in lonely:
                if self._bindings.get((binding.sid, binding.uid)) is binding:
                    self._hold_on(binding, members.get(binding.sid, 0))

    def _holds(self, binding: Binding) -> bool:
        """Whether the anchor is in its session still, so that the number of the session means what it meant."""
        anchor = binding.anchor
        try:
            # In this order: it was this process whose session was asked for, if it is there afterwards.
            if self._session_of(anchor.pid) != binding.sid or not self._is_there(anchor):
                return False
        except ProcessLookupError:
            return False
        binding.seen_s = clock.monotonic_s()
        return True

    def _hold_on(self, binding: Binding, member: int) -> bool:
        """Take `member` (0: there is none) for the anchor that has gone, or end the binding."""
        in_time = clock.monotonic_s() - binding.seen_s < REANCHOR_S
        anchor = None
        if member and in_time and not self._has_leader(binding.sid):
            anchor = self._processes.hold(member)
        if anchor is None:
            self.end(binding)
            return False
        os.close(binding.anchor.pidfd)
        binding.anchor = anchor
        return self._holds(binding)

    def _has_leader(self, sid: int) -> bool:
        """Whether there is a process of this number: the leader is the anchor while it lives, so that is another one."""
        try:
            self._session_of(sid)
        except ProcessLookupError:
            return False
        return True

    def _find_anchor(self, sid: int, pid: int) -> Anchor | None:
        """The leader; else a member that will probably outlive the process that logs in; else that."""
        members: Iterable[int] = (sid,)
        if not self._has_leader(sid):
            members = (*self._processes.members({sid}, but=pid).values(), pid)
        for member in members:
            anchor = self._processes.hold(member)
            if anchor is not None:
                with suppress(ProcessLookupError):
                    if self._session_of(anchor.pid) == sid:
                        return anchor
                os.close(anchor.pidfd)
        return None

    def _tell(self, binding: Binding) -> None:
        if binding.is_ended:
            return
        binding.is_ended = True
        for listener in self._listeners:
            listener(binding)
        if not self._listeners:
            binding.close()
