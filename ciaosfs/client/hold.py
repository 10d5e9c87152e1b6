"""A connection that a stream keeps for as long as it is open, and that is replaced when it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ciaosfs.base.errors import CiaosError
from ciaosfs.client.cutting import CutError, exposed
from ciaosfs.client.retry import Patience, may_try_again
from ciaosfs.client.session import Session
from ciaosfs.client.wire import Wire

Result = TypeVar("Result")


class Hold:
    """For one thread at a time; `interrupt` is for others. Whoever makes it calls `let_go`."""

    def __init__(self, session: Session, forget: Callable[[], None]) -> None:
        """`forget` is called when what the daemon kept on the connection is lost."""
        self._session = session
        self._forget = forget
        self._wire: Wire | None = None
        self._is_interrupted = False

    def again(self, work: Callable[[Wire], Result]) -> Result:
        """What `work` returns, which only reads: it is called again, with another connection, when this one breaks, or the
        daemon no longer keeps what it kept on it (a number that is not known is EBADF)."""
        patience = Patience(self._session.retry_s)
        while True:
            try:
                if self._wire is None:
                    self._wire = self._session.borrow()
                with exposed(self._wire):
                    return work(self._wire)
            except CiaosError as error:
                if not may_try_again(error, is_harmless=True):
                    raise
                if self._is_interrupted:
                    raise CutError("The call was cancelled.") from error
                patience.pause(error)
                self._forget()
                self.let_go()

    def let_go(self) -> None:
        """Give the connection back, to be used by others if it is settled."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._session.give_back(wire)

    def cut(self) -> None:
        """Close the connection without a word, and with it whatever is kept on it."""
        if self._wire is not None:
            self._wire.close()
        self.let_go()

    def interrupt(self) -> None:
        """From another thread: let what waits for the daemon fail at once. It is of no further use."""
        self._is_interrupted = True
        wire = self._wire
        if wire is not None:
            wire.interrupt()
