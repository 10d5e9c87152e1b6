"""A bounded share of the time: after each piece of work, a rest that is long enough."""

from __future__ import annotations

import trio

REST_S_MAX = 60.0
"""A single step that took for ever (a drive hung) is no reason to stop for the night."""


class Throttle:
    """Work and rest in turn; `share` of the time is work. 1 never rests."""

    def __init__(self, share: float) -> None:
        assert 0 < share <= 1
        self._share = share
        self._since_s = trio.current_time()

    async def rest(self, share: float | None = None) -> None:
        """Rest after what was done since the last rest, or since this was made."""
        if share is None:
            share = self._share
        worked_s = max(0.0, trio.current_time() - self._since_s)
        await trio.sleep(min(REST_S_MAX, worked_s * (1 - share) / share))
        self._since_s = trio.current_time()
