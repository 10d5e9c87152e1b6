"""What outlives the request that made it, until it is closed: an open object, a new content, a listing."""

from __future__ import annotations


class Kept:
    """Kept by a connection, under a number. `close` lets go of it; a second time it does nothing."""

    async def close(self) -> None:
        raise AssertionError(f"{type(self).__name__} cannot be closed")
