"""The connections of one session: a few, shared by its threads, made when they are needed, kept for the next call.

A *call* borrows a connection until it is over; a *stream* keeps one until it is closed. Each has a bound, and a call waits
for one that ends. What a connection is given back in must be a state in which the next call can use it: else it is closed,
and with it the daemon forgets whatever was begun on it. A forked child begins with none: the parent's stay the parent's.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ciaosfs.base import limits
from ciaosfs.base.errors import DaemonError
from ciaosfs.client.wire import Wire

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """Connections made by `connect`. Safe for many threads. Whoever makes it closes it."""

    def __init__(self, connect: Callable[[], Wire], wait_s: float) -> None:
        """`wait_s` is how long a call waits for a connection when all are in use."""
        self._connect = connect
        self._wait_s = wait_s
        self._is_closed = False
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._idle: list[Wire] = []
        self._wires: set[Wire] = set()
        self._calls = 0
        self._streams = 0

    @contextmanager
    def lease(self) -> Iterator[Wire]:
        """A connection for one call. Raises DaemonError when none becomes free, ValueError after `close`."""
        with self._changed:
            if not self._changed.wait_for(self._has_room, self._wait_s):
                raise DaemonError(
                    f"All {limits.CLIENT_CALLS_MAX} connections of the session are in use: use more sessions."
                )
            self._check_open()
            self._calls += 1
        wire = None
        try:
            wire = self._take()
            yield wire
        finally:
            with self._changed:
                self._calls -= 1
                if wire is not None:
                    self._give_back(wire)
                self._changed.notify()

    def borrow(self) -> Wire:
        """A connection for a stream; the caller gives it to `give_back`. Raises OSError (EMFILE) when there are too many."""
        with self._changed:
            self._check_open()
            if self._streams >= limits.CLIENT_STREAMS_MAX:
                raise OSError(
                    errno.EMFILE,
                    f"{limits.CLIENT_STREAMS_MAX} objects are open in this session: close some of them",
                )
            self._streams += 1
        try:
            return self._take()
        except BaseException:
            with self._changed:
                self._streams -= 1
            raise

    def give_back(self, wire: Wire) -> None:
        """The end of a stream. One of the time before a fork is let alone."""
        with self._changed:
            if wire in self._wires:
                self._streams -= 1
                self._give_back(wire)

    def close(self) -> None:
        """Close what is idle; calls and streams under way close theirs when they end. Nothing can begin any more."""
        with self._changed:
            self._is_closed = True
            for wire in self._idle:
                self._discard(wire)
            self._idle.clear()
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._is_closed or self._calls < limits.CLIENT_CALLS_MAX

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("The session is closed: make another one.")

    def _take(self) -> Wire:
        while True:
            with self._changed:
                wire = self._idle.pop() if self._idle else None
            if wire is None:
                wire = self._connect()
                with self._changed:
                    self._wires.add(wire)
                return wire
            if wire.is_fresh():
                return wire
            with self._changed:
                self._discard(wire)

    def _give_back(self, wire: Wire) -> None:
        if self._is_closed or not wire.is_settled or len(self._idle) >= limits.CLIENT_CALLS_MAX:
            self._discard(wire)
        else:
            self._idle.append(wire)

    def _discard(self, wire: Wire) -> None:
        self._wires.discard(wire)
        wire.close()

    def leave_to_parent(self) -> None:
        """In a forked child: drop this process's hold on every connection; the parent's are not disturbed."""
        wires = self._wires
        self._begin()
        for wire in wires:
            wire.close()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
