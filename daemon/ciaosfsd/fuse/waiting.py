"""How the request loop waits for the next request before it parks: by work ahead of it, by spinning, by lingering.

A process that makes one call after the other sends its next request at once. So the thread does not go back to trio's
scheduler, and lingers in select(2), a tenth of the price of a trip through it, for up to `LINGER_S`. Before that, while
requests have come quickly nearly always (`BRISK_WAITS`), it spins: it asks again and again for `SPIN_S`, giving the
processor up in between. Where client and daemon run on different processors, waking an idle one costs more than all the
rest (in a virtual machine 50 us and more). Who got a listing works on it for longer: that wait says nothing about the
others, and is spun for, too (`DIGESTING_S`). By turns, walks of 3,000 files read 118,000 entries per second so, and 97,000
when these waits ended the spinning.

**One processor for both.** The kernel may have put client and daemon on one, and leave them there though another one is
idle: it looks for idle ones only while processors have little to do, and spinning looks like much. Then the client runs
when the spinning ends, since who gives a processor up gives it to nobody in another session (`sched_autogroup_enabled`)
or control group. It is known by the request that comes at once when the thread sleeps after all (`SHARED_S`): for a while
(`UNSPUN_WAITS`) it does that at once. Walks that began after 0.1 s of rest were mostly like that, and read 93,000 entries
per second with spinning and 141,000 without.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable

LINGER_S = 0.001
"""How long the idle loop waits in select: longer than a client needs for a listing of a hundred names it got. Also how
long a background task may be kept waiting once per idle spell."""
SPIN_S = 0.0001
"""How long the loop asks again and again, when waits have been short: a client's answer to being answered."""
DIGESTING_S = 0.001
"""As SPIN_S, after an answer that a client has to work on first: a listing of a hundred names takes it 0.7 ms. A background
task may be kept waiting for as long, besides LINGER_S."""
SHORT_S = 0.0003
"""A wait up to this is short."""
BRISK_WAITS, BRISK_MAX = 16, 64
"""Each short wait counts one more, up to the latter, and a long one halves the count; from the former on waits have been
short."""
SHARED_S = 0.00005
"""A request that comes so soon after spinning for it was given up was probably held up by that."""
UNSPUN_WAITS, UNSPUN_MAX = 32, 1024
"""In so many further waits nothing is done but sleep, for work ahead would hold the client up as well; or until one of them
shows that the client takes longer by itself. Each time that spinning is of no avail again it is twice as many, up to the
latter."""
IDLE_S = 0.001
"""Work ahead of requests goes on for so long at a stretch: background tasks are kept waiting by it."""

_SELECT_FDS = 1024  # FD_SETSIZE


class Waiting:
    """The waits of one loop for one descriptor, to be named with `adopt`."""

    def __init__(
        self,
        *,
        linger_s: float = LINGER_S,
        idle: Callable[[], bool] = lambda: False,
        is_digesting: Callable[[], bool] = lambda: False,
    ) -> None:
        """`idle` does a little work (under 0.5 ms) ahead of requests; it returns False when there is none. `is_digesting`
        says whether the last answer keeps its client busy for a while (it is asked once for each)."""
        self.lingers = linger_s > 0
        self._linger_s = linger_s
        self._idle = idle
        self._is_digesting = is_digesting
        self._fd = -1
        self._poll: Callable[[int], list[tuple[int, int]]] = select.poll().poll
        self._brisk = 0
        self._unspun = 0
        self._unspun_next = UNSPUN_WAITS
        self._spun_until_s = -math.inf

    def adopt(self, fd: int) -> None:
        """Wait for this descriptor from now on."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._poll = poll.poll
        self._fd = fd
        if fd >= _SELECT_FDS:
            self.lingers = False

    def is_there(self) -> bool:
        """Whether there is a request now."""
        return bool(self._poll(0))

    def wait(self) -> bool:
        """Wait for a request for a while; False when none has come. Nothing else runs in this thread meanwhile."""
        begun = time.monotonic()
        is_digesting = self._is_digesting()
        if self._unspun:
            self._unspun -= 1
            is_there = self._sleep()
            if not is_digesting and time.monotonic() - begun >= SPIN_S:
                self._unspun = 0  # nobody was held up: this client needs longer than is spun for
        else:
            is_there = (
                self._work_ahead(begun + IDLE_S)
                or self._spin(begun + (DIGESTING_S if is_digesting else SPIN_S))
                or self._sleep()
            )
        if is_there and time.monotonic() - begun < SHORT_S:
            if self._brisk < BRISK_MAX:
                self._brisk += 1
        elif not (is_there and is_digesting):
            self._brisk >>= 1
        return is_there

    def _work_ahead(self, end: float) -> bool:
        """Use an idle moment; True when it was ended by a request."""
        poll = self._poll
        while time.monotonic() < end and self._idle():
            if poll(0):
                return True
        return False

    def _spin(self, end: float) -> bool:
        """Ask again and again until `end`, if waits have been short; True when there is a request."""
        if self._brisk < BRISK_WAITS:
            return False
        poll = self._poll
        while (now := time.monotonic()) < end:
            os.sched_yield()
            if poll(0):
                self._unspun_next = UNSPUN_WAITS
                return True
            self._spun_until_s = now
        return False

    def _sleep(self) -> bool:
        """Give the processor away for at most the time to linger; True when there is a request."""
        spun_until_s, self._spun_until_s = self._spun_until_s, -math.inf
        is_there = bool(select.select((self._fd,), (), (), self._linger_s)[0])
        if is_there and time.monotonic() - spun_until_s < SHARED_S:
            self._unspun = self._unspun_next
            self._unspun_next = min(2 * self._unspun_next, UNSPUN_MAX)
        return is_there
