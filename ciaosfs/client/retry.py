"""What may be tried again, and for how long.

Tried again is what has certainly had no effect (nobody could be reached, or the daemon said "not now"), and what may
happen twice without harm (reading). A request that was sent and not answered may have been carried out: it is tried
again only when the caller says that this does no harm.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import CiaosError, LostAnswerError, UnreachableError


class Patience:
    """The tries of one call: pauses that double, with some chance in them, until `retry_s` from the first failure."""

    def __init__(
        self,
        retry_s: float,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self._retry_s = retry_s
        self._sleep = sleep
        self._now = now
        self._pause_s = limits.CLIENT_RETRY_PAUSE_S
        self._end: float | None = None

    def pause(self, error: CiaosError) -> None:
        """Wait before the next try. Raises `error` when there is no time for one."""
        now = self._now()
        if self._end is None:
            self._end = now + self._retry_s
        left = self._end - now
        if left <= 0:
            raise error
        self._sleep(min(left, self._pause_s * random.uniform(0.5, 1.0)))
        self._pause_s = min(2 * self._pause_s, limits.CLIENT_RETRY_PAUSE_S_MAX)


def may_try_again(error: CiaosError, *, is_harmless: bool) -> bool:
    """Whether the request that ended so may be sent again; `is_harmless`: also if it was carried out already.

    EBADF says that the daemon no longer keeps what it kept for the client: it lets go of everything to unmount.
    """
    if isinstance(error, LostAnswerError) or error.errno == errno.EBADF:
        return is_harmless
    return isinstance(error, UnreachableError) or error.errno == errno.EAGAIN
