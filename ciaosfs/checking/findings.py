"""What a check has found so far and how far it is: filled by a worker thread, looked at from the loop meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

from ciaosfs.base import limits


class StoppedError(Exception):
    """The check was told to stop. Never leaves the package."""


@dataclass(slots=True)
class Findings:
    """*Problems* are what must not be, a sentence each. *Notes* are states with a name that need no help: a
    database that the next mount brings forward, shards that are on a drive that is away.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem_count: int = 0
    """All of them; of `problems` only the first limits.CHECK_PROBLEMS_MAX are kept."""

    def problem(self, sentence: str) -> None:
        self.problem_count += 1
        if len(self.problems) < limits.CHECK_PROBLEMS_MAX:
            self.problems.append(sentence)

    def note(self, sentence: str) -> None:
        if len(self.notes) < limits.CHECK_PROBLEMS_MAX:
            self.notes.append(sentence)

    @property
    def is_sound(self) -> bool:
        return not self.problem_count


class Progress:
    """The stage a check is in, and `done` of `total` units of it; a total of 0 is not known."""

    def __init__(self) -> None:
        self.stage = ""
        self.done = 0
        self.total = 0
        self.unit = ""
        self._stopped = False

    def begin(self, stage: str, total: int = 0, unit: str = "") -> None:
        """A new stage."""
        self.advance(0)
        self.stage, self.done, self.total, self.unit = stage, 0, total, unit

    def advance(self, amount: int) -> None:
        """So much more is done. StoppedError when somebody wants it to end here."""
        if self._stopped:
            raise StoppedError
        self.done += amount

    def stop(self) -> None:
        """Let the thread end at its next step. For the loop."""
        self._stopped = True
