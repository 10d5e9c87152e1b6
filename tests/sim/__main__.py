"""Run the simulator: one seed, exactly as it was, or new ones for as long as it is told.

    python -m tests.sim --seed 123 --lives 12     the run of one seed; its trace with --trace
    python -m tests.sim --minutes 30              new seeds, each printed before it is run
    python -m tests.sim --cuts 1000 --from 0      seeds from 0 on until there were so many power cuts

Exit status 1 when a run fails, with the command that repeats it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.sim.faults import EAGER, TABLE
from tests.sim.life import LIVES, Tally, run
from tests.sim.telling import digest


def main() -> int:
    options = _parse()
    total = Tally()
    began = time.monotonic()
    for seed in _seeds(options, total, began):
        print(f"seed {seed} ", end="", flush=True)
        with TemporaryDirectory(prefix="ciaosfs-sim-") as place:
            try:
                life = run(Path(place), seed, options.lives, EAGER if options.eager else TABLE)
            except Exception:  # noqa: BLE001 - any failure is what we look for
                print("failed", flush=True)
                traceback.print_exc()
                eager = " --eager" if options.eager else ""
                print(
                    f"again: python -m tests.sim --seed {seed} --lives {options.lives}{eager}",
                    file=sys.stderr,
                )
                return 1
        total.add(life.tally)
        print(f"{life.tally.cuts} cuts, trace {digest(life.world.trace)}", flush=True)
        if options.trace:
            options.trace.write_text("\n".join(life.world.trace) + "\n")
    print(json.dumps({"type": "simulator", "seconds": round(time.monotonic() - began, 1), **asdict(total)}))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim", description="Try to break a simulated store."
    )
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument(
        "--from", type=int, dest="first", help="begin with this seed (default: one by chance)"
    )
    parser.add_argument("--lives", type=int, default=LIVES, help="openings in one run (default: %(default)s)")
    parser.add_argument("--eager", action="store_true", help="with jobs and changes of drives all the time")
    parser.add_argument("--minutes", type=float, help="go on for so long")
    parser.add_argument("--cuts", type=int, help="go on until there were so many power cuts")
    parser.add_argument("--trace", type=Path, help="write what happened to this file")
    return parser.parse_args()


def _seeds(options: argparse.Namespace, total: Tally, began: float) -> Iterator[int]:
    if options.seed is not None:
        yield options.seed
        return
    seed = random.randrange(1 << 40) if options.first is None else options.first
    while (options.minutes is not None and time.monotonic() < began + 60 * options.minutes) or (
        options.cuts is not None and total.cuts < options.cuts
    ):
        yield seed
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
