"""Kill the daemon of a real mount with -9 in the middle of a mixed load, again and again, and look at what is left.

    python -m tools.crashloop                     200 kills on a store of its own, deleted afterwards
    python -m tools.crashloop --times 1000 --seed 7 --in DIRECTORY

Writers keep a manifest of what they did and what an fsync answered for. After each kill the store is mounted again,
sometimes without its database or with as many drives away as it can spare; every writer's directory must be as of one of
its operations, not before the last that was synced, and `ciaosfs check` must find nothing. One JSON line for each
kill and one at the end on stdout, talk on stderr. Exit status 1 as soon as anything is wrong; the store is kept then.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: the modules beside it are found from the root of the repository
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.killing import Load, kill_under_load
from tests.support.mount import MountedStore

TIMES = 200
WRITERS = 3
PARITY = 2
DATA_CHECK_EVERY = 10
"""Kills between two checks that read every block."""


class CrashLoop:
    """One store and what was done to it."""

    def __init__(self, base: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.journals = base / "journals"
        self.store = MountedStore(base / "ciaosfs")
        self.store.expect_log(".*")
        self.unlucky = self.dice.sample(self.store.drives(), PARITY)
        """The only ones that are ever away: what is written then lacks their shards."""
        self.away: list[Path] = []
        self.totals = {
            "kills": 0,
            "operations": 0,
            "synced": 0,
            "databases_lost": 0,
            "drives_away": 0,
            "checks": 0,
        }

    def run(self, times: int) -> None:
        self.journals.mkdir(parents=True)
        began = time.monotonic()
        with self.store:
            for number in range(1, times + 1):
                tell("kill", **self.kill_once(number))
                self.totals["kills"] += 1
        tell("crashloop", seconds=round(time.monotonic() - began, 1), **self.totals)

    def kill_once(self, number: int) -> dict[str, Any]:
        """One load, one kill, one mount, one comparison. AssertionError when something is not as promised."""
        load = kill_under_load(self.store, self.journals, self.dice, WRITERS)
        misfortune = self.misfortune()
        began = time.monotonic()
        self.store.mount()
        mounted_s = time.monotonic() - began
        report = self.compare(load)
        self.check(with_data=number % DATA_CHECK_EVERY == 0)
        print(
            f"kill {number}: {misfortune}, mounted again in {mounted_s:.2f} s, operations {report}",
            file=sys.stderr,
            flush=True,
        )
        return {"number": number, "misfortune": misfortune, "mount_s": round(mounted_s, 3), **report}

    def misfortune(self) -> str:
        """What else happens between the kill and the mount."""
        for path in self.away:
            path.with_suffix(".away").rename(path)
        self.away.clear()
        luck = self.dice.random()
        if luck < 0.1:
            shutil.rmtree(self.store.store / "meta")
            self.totals["databases_lost"] += 1
            return "the database is lost"
        if luck < 0.2:
            self.away = list(self.unlucky)
            for path in self.away:
                path.rename(path.with_suffix(".away"))
            self.totals["drives_away"] += 1
            return f"{' and '.join(path.name for path in self.away)} are away"
        return "nothing else"

    def compare(self, load: Load) -> dict[str, int]:
        outcomes = load.check()
        report = {
            "begun": sum(outcome.begun for outcome in outcomes),
            "synced": sum(outcome.synced for outcome in outcomes),
            "found": sum(outcome.found for outcome in outcomes),
        }
        self.totals["operations"] += report["begun"]
        self.totals["synced"] += report["synced"]
        return report

    def check(self, *, with_data: bool) -> None:
        """`ciaosfs check` of the mounted store; what lies on drives that are away cannot be judged."""
        if not self.away:
            self.store.run("check", str(self.store.store), *(["--data"] if with_data else []))
            self.totals["checks"] += 1


def tell(kind: str, **facts: object) -> None:
    print(json.dumps({"type": kind, **facts}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.crashloop", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--times", type=int, default=TIMES, help="kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the load and of what goes wrong (default: by chance)")
    parser.add_argument(
        "--in", dest="place", type=Path, help="where to make the store (default: a temporary directory)"
    )
    options = parser.parse_args()
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    base = Path(tempfile.mkdtemp(prefix="ciaosfs-crashloop-", dir=options.place))
    try:
        CrashLoop(base, seed).run(options.times)
    except (AssertionError, OSError) as error:
        print(f"crashloop: {error}\nThe store is kept in {base}; seed {seed}.", file=sys.stderr)
        return 1
    shutil.rmtree(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
