"""Ending a blocking call from another thread: the connections it uses are cut, and it fails at once.

Whoever wants to be able to end a call makes a `Cut` and lets the call run in a context where `current` is it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ciaosfs.base.errors import CiaosError
from ciaosfs.client.wire import Wire

current: ContextVar[Cut | None] = ContextVar("ciaosfs_cut", default=None)


class CutError(CiaosError):
    """The call was ended from outside."""


class Cut:
    """For one call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wires: set[Wire] = set()
        self._is_made = False

    def make(self) -> None:
        """End the call."""
        with self._lock:
            self._is_made = True
            for wire in self._wires:
                wire.interrupt()

    def check(self) -> None:
        """Raise CutError when it was made: nothing is begun anew then."""
        if self._is_made:
            raise CutError("The call was cancelled.")

    @contextmanager
    def over(self, wire: Wire) -> Iterator[None]:
        """While in this context the wire is cut with the call."""
        with self._lock:
            self.check()
            self._wires.add(wire)
        try:
            yield
        finally:
            with self._lock:
                self._wires.discard(wire)


@contextmanager
def exposed(wire: Wire) -> Iterator[None]:
    """While in this context the call that is current here can be ended by cutting `wire`."""
    cut = current.get()
    if cut is None:
        yield
    else:
        with cut.over(wire):
            yield
