"""All steps there are, and runs of them drawn by weight."""

from __future__ import annotations

import random

from tests.model import attributes, contents, crashes, names, objects
from tests.model.machine import Step, Steps

TABLE: Steps = names.STEPS | attributes.STEPS | contents.STEPS | crashes.STEPS | objects.STEPS


def draw(seed: int, count: int) -> list[Step]:
    """The same steps for the same seed, whatever happens to the run."""
    dice = random.Random(seed)
    kinds = dice.choices(list(TABLE), [weight for weight, _ in TABLE.values()], k=count)
    return [Step(kind, *(dice.randrange(1 << 30) for _ in range(4))) for kind in kinds]
