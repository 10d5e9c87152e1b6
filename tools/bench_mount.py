"""The benchmark of the mount: the same phases on ciaosfs, on a plain directory and on the ceiling, by turns.

    python -m tools.bench_mount                       all phases, 3 rounds, a 1 GiB stream
    python -m tools.bench_mount --only create,append  some of them
    python -m tools.bench_mount --scale 0.1           a tenth of the work
    python -m tools.bench_mount --json out.json --markdown

Every phase runs on each target in turn before the next phase begins, the order of targets changes from round
to round so that each comes after each other equally often (in six rounds, with three of them), and what a run left
behind is dealt with before the next is timed. Run as root for reads that are really cold. Ends with status 0 when
all that was asked for is reached, 3 when something is not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: the modules beside it are found from the root of the repository
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.bench.phases import MIB, PHASES, Phase, Scale, Workspace
from tools.bench.report import MEMORY_MIB_MAX, machine, markdown, measure_zfec, summarize
from tools.bench.targets import (
    BenchError,
    Ceiling,
    Ciaosfs,
    Given,
    Peer,
    Target,
    ciaosfs_command,
    drop_caches,
    settle,
)

POOL_BYTES = 64 * MIB
"""Random data every phase takes its bytes from; far more than any compressor's window."""


class Bench:
    """The rounds of one benchmark and what they measured."""

    def __init__(self, targets: Sequence[Target], phases: Sequence[Phase], scale: Scale, seed: int) -> None:
        self.targets = targets
        self.phases = phases
        self.scale = scale
        self.seed = seed
        self.pool = memoryview(os.urandom(POOL_BYTES))
        self.samples: dict[str, dict[str, list[float]]] = {target.name: {} for target in targets}
        self.zfec: list[float] = []
        self.memory: dict[str, dict[str, float]] = {}
        self.cold_by = "not needed"

    def run_round(self, number: int, data: int, parity: int) -> None:
        """One round: every phase on every target, with workspaces that are removed at its end."""
        order = order_of(self.targets, number)
        works: dict[str, Workspace] = {}
        for target in order:
            directory = target.directory / f"round{number}"
            directory.mkdir()
            works[target.name] = Workspace(directory, self.scale, self.pool, self.seed + number)
        self.zfec.append(measure_zfec(self.pool, data, parity))
        for phase in self.phases:
            for target in order:
                self._run_phase(phase, target, works[target.name], number)
        for target in order:
            if number == 0 and Path(works[target.name].stream).exists():
                works[target.name].check_stream()
            works[target.name].clear()
            settle(target)

    def _run_phase(self, phase: Phase, target: Target, work: Workspace, number: int) -> None:
        if phase.needs is not None:
            phase.needs(work)
        if phase.cold:
            self.cold_by = drop_caches(target)
        elif phase.name.endswith("-warm"):
            phase.run(work)  # not timed: the cold phases of the other targets emptied everybody's caches
        else:
            settle(target)
        sample = phase.run(work)
        self.samples[target.name].setdefault(phase.name, []).append(sample.rate)
        memory = target.memory()
        if memory:
            kept = self.memory.setdefault(target.name, dict(memory))
            kept["peak_mib"] = max(kept["peak_mib"], memory["peak_mib"])
            kept["rss_mib"] = max(kept["rss_mib"], memory["rss_mib"])
        say(f"round {number}  {target.name:8} {phase.name:14} {sample.rate:10,.1f} {phase.unit}")

    def result(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Everything as one JSON value. Memory: the kernel's own peak, and the most seen after a phase."""
        return {
            "machine": machine(),
            "parameters": {**parameters, "cold_by": self.cold_by},
            "samples": self.samples,
            "zfec_samples_mib_s": self.zfec,
            "memory": self.memory,
            **summarize(self.samples, self.zfec),
        }


def order_of(targets: Sequence[Target], number: int) -> list[Target]:
    """The order in this round: a turn of theirs in the first rounds, then one of the reverse.

    Turns alone would have the same neighbours always, and what one of them leaves behind met by the same one."""
    cycle, turn = divmod(number, len(targets))
    order = [*targets[turn:], *targets[:turn]]
    return order[::-1] if cycle % 2 else order


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Benchmark ciaosfs, a plain directory and an in-memory pyfuse3 file system by turns."
    )
    names = ", ".join(phase.name for phase in PHASES)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take medians of (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all amounts of work")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the stream (default 1024)")
    parser.add_argument("--only", default="", metavar="PHASES", help=f"comma-separated phases: {names}")
    parser.add_argument(
        "--targets", default="ciaosfs,plain,ceiling", help="of ciaosfs, plain, ceiling, peer, NAME=PATH"
    )
    parser.add_argument("--base", type=Path, help="directory for everything (default: a temporary one)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=int, default=4)
    parser.add_argument("--parity", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table for the README")
    options = parser.parse_args(arguments)
    wanted = [name for name in options.only.split(",") if name]
    unknown = set(wanted) - {phase.name for phase in PHASES}
    if unknown:
        parser.error(f"no such phase: {', '.join(sorted(unknown))} (there are: {names})")
    options.phases = [phase for phase in PHASES if not wanted or phase.name in wanted]
    return options


def make_targets(options: argparse.Namespace, base: Path) -> list[Target]:
    makers: dict[str, Callable[[], Target]] = {
        "plain": lambda: Target(base),
        "ceiling": lambda: Ceiling(base),
        "peer": lambda: Peer(base),
        "ciaosfs": lambda: Ciaosfs(base, ciaosfs_command(), options.data, options.parity),
    }
    targets: list[Target] = []
    for name in options.targets.split(","):
        if "=" in name:
            targets.append(Given(name.split("=")[0], Path(name.split("=", 1)[1])))
        elif name in makers:
            targets.append(makers[name]())
        else:
            raise BenchError(f"no such target: {name} (there are: {', '.join(makers)} and NAME=PATH)")
    return targets


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    base = Path(tempfile.mkdtemp(prefix="ciaosfs-bench.", dir=options.base))
    scale = Scale(stream_bytes=options.size * MIB).times(options.scale)
    try:
        with ExitStack() as stack:
            targets = [stack.enter_context(target) for target in make_targets(options, base)]
            bench = Bench(targets, options.phases, scale, options.seed)
            for number in range(options.rounds):
                bench.run_round(number, options.data, options.parity)
    except BenchError as error:
        say(str(error))
        return 1
    finally:
        shutil.rmtree(base, ignore_errors=True)
    result = bench.result(
        {
            "rounds": options.rounds,
            "stream_mib": scale.stream_bytes // MIB,
            "files": scale.files,
            "data": options.data,
            "parity": options.parity,
        }
    )
    text = json.dumps(result, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    print(markdown(result) if options.markdown or not options.json else text)
    missed = [name for name, row in result["ratios"].items() if not row.get("reached", True)]
    if result["memory"].get("ciaosfs", {}).get("peak_mib", 0) > MEMORY_MIB_MAX:
        missed.append("memory")
    if missed:
        say(f"not reached: {', '.join(missed)}")
    return 3 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
