"""What can be asked about the daemon's own work: counts for `ciaosfs top`, and the same as Prometheus reads them."""

from __future__ import annotations

from typing import Any

from ciaosfsd.control.call import Answer, Call, Operation
from ciaosfsd.control.needs import ADMIN
from ciaosfsd.metrics.snapshot import Snapshots


class StatsHandlers:
    """The handlers of one mounted store."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation("stats", ADMIN, self.stats),
            Operation("metrics", ADMIN, self.metrics, gives_body=True),
        )

    async def stats(self, call: Call) -> dict[str, Any]:
        """Counts since the store was mounted. With `watch`, every request is timed for the next ten seconds."""
        if call.arguments.get("watch") is True:
            self._snapshots.watch()
        return self._snapshots.take()

    async def metrics(self, call: Call) -> Answer:
        """The same as text; `content_type` says in which version of Prometheus' format."""
        text, content_type = self._snapshots.metrics()
        return Answer({"content_type": content_type}, text)
