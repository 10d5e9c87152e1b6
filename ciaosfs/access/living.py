"""Which tokens are live: kept in memory, so that the question costs a look into a dictionary.

A token leaves when it is ended or has expired, and never comes back; whoever wants to know is told. What ended long ago
is forgotten here, too, since it is the same look at the clock.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import trio

from ciaosfs.base import clock, limits
from ciaosfs.meta.tokens import Tokens

log = logging.getLogger(__name__)

EXPIRY_LOOK_S: Final = 0.25
"""Between two looks whether a token has expired. It is refused from the very moment; who is bound to it hears this late."""
FORGET_LOOK_S: Final = 3600.0
FORGET_STEP: Final = 500
"""Tokens forgotten in one step, in about 2 ms."""
_NEVER: Final = 1 << 63

OnEnd = Callable[[int], None]


class LiveTokens:
    """The live tokens among the rows of one open store. All methods are for the loop."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._on_end: list[OnEnd] = []
        self._expires_ns = tokens.live(clock.now_ns())
        self._known = tokens.count()
        self._first_ns = self._first()

    def __len__(self) -> int:
        return len(self._expires_ns)

    def is_live(self, token_id: int) -> bool:
        """Whether a token is good now; False for one that nobody knows."""
        expires_ns = self._expires_ns.get(token_id)
        return expires_ns is not None and (not expires_ns or clock.now_ns() < expires_ns)

    def on_end(self, callback: OnEnd) -> None:
        """`callback` is called with the number of each token that ends, once it is not live any more. It does not raise."""
        self._on_end.append(callback)

    def add(self, token_id: int, expires_ns: int) -> None:
        """A token whose row was just inserted. There is to be room: see `forget_some`."""
        self._known += 1
        self._expires_ns[token_id] = expires_ns
        self._first_ns = min(self._first_ns, expires_ns or _NEVER)

    def end(self, token_ids: Iterable[int]) -> int:
        """They are not live from here on; how many were."""
        ended = [token_id for token_id in token_ids if self._expires_ns.pop(token_id, None) is not None]
        for token_id in ended:
            for callback in self._on_end:
                callback(token_id)
        return len(ended)

    def forget(self, token_ids: Iterable[int]) -> int:
        """Delete the rows of tokens that have ended, and of all below them; how many went. Past the gate."""
        gone = {below for token_id in token_ids for below in self._tokens.with_below(token_id)}
        for token_id in gone:
            self._tokens.delete(token_id)
        self._known -= len(gone)
        return len(gone)

    @property
    def are_too_many(self) -> bool:
        """Whether some must be forgotten before another row is inserted."""
        return self._known >= limits.TOKENS_MAX + limits.TOKENS_ENDED_MAX

    def forget_some(self, before_ns: int) -> int:
        """Forget a step's worth of tokens that ended before that, or are too many, the first to end first. Past the gate."""
        ended = [one for one in self._tokens.ended(clock.now_ns()) if one[0] not in self._expires_ns]
        surplus = max(len(ended) - limits.TOKENS_ENDED_MAX, 0)
        chosen = [token_id for at, (token_id, at_ns) in enumerate(ended) if at < surplus or at_ns < before_ns]
        return self.forget(chosen[:FORGET_STEP])

    async def run(self, enter: Callable[[], Awaitable[None]]) -> None:
        """End what has expired, and forget what ended long ago; for ever. `enter` waits at the gate."""
        forget_at_s = trio.current_time()
        while True:
            self._end_expired(clock.now_ns())
            if trio.current_time() >= forget_at_s:
                forget_at_s = trio.current_time() + FORGET_LOOK_S
                await enter()
                while self.forget_some(clock.now_ns() - round(limits.TOKENS_ENDED_S * 1e9)):
                    await trio.lowlevel.checkpoint()
                    await enter()
            await trio.sleep(EXPIRY_LOOK_S)

    def _end_expired(self, now_ns: int) -> None:
        if now_ns < self._first_ns:
            return
        expired = [token_id for token_id, at_ns in self._expires_ns.items() if 0 < at_ns <= now_ns]
        if expired:
            log.info("tokens expired count=%d first=%d", len(expired), expired[0])
        self.end(expired)
        self._first_ns = self._first()

    def _first(self) -> int:
        return min((at_ns for at_ns in self._expires_ns.values() if at_ns), default=_NEVER)
