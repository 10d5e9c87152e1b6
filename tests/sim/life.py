"""One run: a store that lives, crashes and is opened again, many times, compared with the model each time.

Steps are those of `tests/model` and the faults of `faults`; the model is `tests/support/model_fs`. Unlike there, a crash
comes before any operation on a drive or on a file of the database, whatever is going on then: in the middle of a flight, a
commit, a checkpoint, an opening, or the last commit of a clean end.

`allowed` are the trees a crash may show: every state since the last sync that was answered. It is kept up to date in the
same step in which the tree changes, so that it is right at any moment.
"""

from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ParamSpec

import trio

from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import CiaosError, DriveGoneError, FsError, NoSpaceError
from ciaosfs.checking.check import check_open
from ciaosfs.fs.attributes import SetAttributes
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.opening import open_store
from ciaosfs.jobs.opening import open_jobs
from ciaosfs.meta.inodes import ROOT_INO
from tests.model.looking import describe, read_tree, times_of
from tests.model.machine import Machine, Step, Steps
from tests.sim import needles
from tests.sim.care import Care, wait_online
from tests.sim.telling import leaves, quiet
from tests.sim.world import World
from tests.support.builders import WHO
from tests.support.inline_workers import InlineWorkers, run_the_same_way
from tests.support.model_fs import ROOT, ModelError, ModelFs
from tests.support.model_tree import Tree, from_tree, tree_of

P = ParamSpec("P")
LIVES = 12
"""Openings in one run."""
SHAPES = [(4, 2, 0), (2, 1, 1), (2, 2, 1), (1, 1, 1), (1, 2, 0), (3, 1, 0)]
"""k, m, and drives more than that."""
CAPACITY = 64 << 20
TIGHT_CAPACITIES = (160 << 10, 224 << 10, 400 << 10)
STEPS_MAX = 30
"""Steps of one life, when no crash comes before."""
OPERATIONS_MAX = (6, 40, 150, 400)
"""A crash comes after so many operations at most: soon, or late."""
ILLS = ("go_away", "come_back", "fall_ill", "stray", "flip", "spoil", "fill", "database_fails")
"""Steps that are left out in some runs, and frequent in others."""
REFUSED = (errno.ENOSPC, errno.EIO)


@dataclass
class Tally:
    """What a run did."""

    cuts: int = 0
    kills: int = 0
    lives: int = 0
    steps: int = 0
    syncs: int = 0
    refused: int = 0
    """Steps that were answered ENOSPC or EIO while something was wrong."""
    databases_lost: int = 0
    openings_without_drives: int = 0

    def add(self, other: Tally) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class SimWorkers(InlineWorkers):
    """Calls are made in the loop; once the crash has come, nothing is worth waiting for."""

    def __init__(self, seed: int, world: World) -> None:
        super().__init__(seed)
        self._world = world

    def turns(self) -> int:
        return 0 if self._world.is_over else super().turns()


class Life(Machine):
    """A world, the store in it, its model, and what a crash may show."""

    def __init__(self, place: Path, seed: int, table: Steps) -> None:
        self.dice = dice = random.Random(seed)
        self.seed = seed
        zeal = dice.choice([0, 1, 1, 5])
        self.table = {
            name: (weight * (zeal if name in ILLS else 1), step)
            for name, (weight, step) in table.items()
            if dice.random() < 0.85
        }
        data_count, parity_count, spare = dice.choice(SHAPES)
        numbers = range(data_count + parity_count + spare)
        capacity = dice.choice(TIGHT_CAPACITIES) if dice.random() < 0.2 else CAPACITY
        self.world = World(place, seed, data_count, parity_count, spare, capacity)
        self.parity_count = parity_count
        self.unlucky = dice.sample(numbers, parity_count)
        self.has_jobs = "scrub" in table and dice.random() < 0.8
        self.repair_after_s = dice.choice([0.0, 3.0, 600.0])
        self.is_truce = False
        """Nothing goes wrong but crashes; see `healing`."""
        self.care: Care | None = None
        self.interval_s = dice.choice([5.0, 300.0, 300.0])
        self.tally = Tally()
        self.fs: FileSystem
        self.nursery: trio.Nursery
        self.scope = trio.CancelScope()
        self.model = ModelFs(os.getuid(), os.getgid())
        self.real = {ROOT: ROOT_INO}
        self.handles: list[tuple[int, int]] = []
        self.unforgotten: list[int] = []
        self.touched: set[int] = set()
        self.allowed: list[Tree] = []
        self.log: list[str] = []
        self.file_bytes_max = 600_000
        self.is_known = False
        """Whether the model knows the store's root."""
        self.first_stripe = 0
        self.were_unlucky: set[int] = set()
        """In this life: a damaged needle keeps its space until its volume is empty."""
        self.was_troubled = False

    # The run

    async def live(self, lives: int) -> None:
        """So many openings. AssertionError where store and model differ."""
        self.world.on_crash = self._crashed
        for number in range(lives):
            self._set_fate(is_last=number == lives - 1)
            is_saved = True
            with trio.CancelScope() as self.scope:
                is_saved = await self._live_once()
            self.tally.lives += 1
            if self.world.is_over:
                self.world.rise()
                self._misfortune()
            elif is_saved:
                self.allowed = [tree_of(self.model)]
        self.tally.cuts, self.tally.kills = self.world.cuts, self.world.kills

    @property
    def may_crash(self) -> bool:
        return self.world.is_over or self.world.is_doomed

    def _set_fate(self, *, is_last: bool) -> None:
        if is_last or self.dice.random() < 0.03:
            self.world.crash_after(None)
            for number in self.unlucky:
                self.world.drive(number).is_away = False
        else:
            on_drives = self.dice.random() < 0.6
            operations = self.dice.randrange(1 + self.dice.choice(OPERATIONS_MAX) // (4 if on_drives else 1))
            kind = "kill" if self.dice.random() < 0.15 else "cut"
            self.world.crash_after(operations, kind, on_drives=on_drives)

    def _misfortune(self) -> None:
        """Between a crash and the next opening."""
        if self.dice.random() < 0.2:
            self.world.lose_database()
            self.world.note("database lost")
            self.tally.databases_lost += 1
        self._forget_let_go()
        if self.dice.random() < 0.2 and not self.is_truce:
            for number in self.unlucky:
                self.world.drive(number).is_away = True
        else:
            for number in self.unlucky:
                if self.dice.random() < 0.7:
                    self.world.drive(number).is_away = False
        away = [number for number in self.unlucky if self.world.drive(number).is_away]
        self.tally.openings_without_drives += bool(away)
        self.world.note(f"away {away}")

    async def _live_once(self) -> bool:
        """One opening; False when the clean end could not save what was not synced, for a good reason."""
        self.handles.clear()
        self.unforgotten.clear()
        self.was_troubled = False
        self.were_unlucky = set(self.unlucky)
        config: StoreConfig = replace(
            self.world.config,
            commit_interval_s=self.interval_s,
            job_share=1.0,
            repair_after_s=self.repair_after_s,
        )
        try:
            async with (
                SimWorkers(self.seed, self.world) as workers,
                open_store(config, workers, opener=self.world.opener()) as self.fs,
            ):
                await self.arrive(is_first=not self.is_known)
                async with AsyncExitStack() as stack:
                    self.care = None
                    if self.has_jobs:
                        jobs = await stack.enter_async_context(open_jobs(config, self.fs.parts))
                        self.care = Care(self.fs, self.world, jobs)
                    await self._act()
                await self._end_at_rest()
        except BaseExceptionGroup as errors:
            if self.world.is_over and all(isinstance(e, CiaosError | trio.Cancelled) for e in leaves(errors)):
                return False  # the clean end of a store that is no more
            # Only the plain one says that the last changes could not be saved.
            if not self.is_troubled or any(type(error) is not CiaosError for error in leaves(errors)):
                raise
            self.make_well()
            self.world.note("not saved")
            self.world.files.close_all()
            return False
        return True

    async def _act(self) -> None:
        async with trio.open_nursery() as self.nursery:
            for _ in range(self.dice.randrange(STEPS_MAX)):
                await self._step()
        if self.world.is_doomed and self.dice.random() < 0.7:
            self.world.crash("cut")
            await trio.lowlevel.checkpoint()
        self.make_well()
        if not self.may_crash and self.care is not None:
            await self.recover()
            await self.care.finish(is_tight=self.is_tight)
            if not self.is_tight and self.dice.random() < 0.5:
                needles.spoil(self.fs, self.world, self.unlucky, self.dice)
                await self.care.heal()

    async def _end_at_rest(self) -> None:
        if not self.may_crash:
            await self.recover()
            await self.end()
            await self.fs._reclaimer.wait_discarded()
            needles.check_nothing_leaked(self.fs, self.world, self.first_stripe, self.were_unlucky)

    async def recover(self) -> None:
        """Nothing is wrong any more, the drives are back: wait until the store has noticed."""
        self.make_well()
        self._forget_let_go()
        for number in self.unlucky:
            self.world.drive(number).is_away = False
        await wait_online(self.fs)

    def _forget_let_go(self) -> None:
        """Drives that are none of the store's any more are nobody's bad luck."""
        numbers = self.world.numbers()
        self.unlucky = [number for number in self.unlucky if number in numbers]

    def make_well(self) -> None:
        """Nothing is wrong any more with drives and files, except what was lost."""
        self.world.files.fails.clear()
        for number in self.world.numbers():
            content = self.world.drive(number)
            content.fails.clear()
            content.bytes_left = None
            content.strays = 0.0

    def _crashed(self) -> None:
        """The world has ended, in the middle of something: from now on nothing counts."""
        self.note_state()
        self.allowed = list(self.allowed)
        self.make_well()
        self.scope.cancel()

    async def _step(self) -> None:
        self.world.tick()
        kind = self.dice.choices(list(self.table), [weight for weight, _ in self.table.values()])[0]
        step = Step(kind, *(self.dice.randrange(1 << 30) for _ in range(4)))
        self.touched.clear()
        self._forget_let_go()
        if self.is_truce and self.care is not None and self.dice.random() < 0.2:
            self.is_truce = self.care.is_emptying
        self.log.append(f"{kind}{step[1:]}")
        self.world.note(f"- {kind}")
        self.tally.steps += 1
        self.was_troubled |= kind in ILLS
        await self.table[kind][1](self, step)

    # What is found

    async def arrive(self, *, is_first: bool) -> None:
        if is_first:
            await self.fs.sync()  # until then, each opening makes a root of its own
        found, inodes = await read_tree(self.fs)
        if self.world.is_over:
            await trio.lowlevel.checkpoint()
        if is_first:
            self.is_known = True
            root = times_of(self.fs.getattr(ROOT_INO))
            self.model.settle(lambda number: root, 0, self.world.time_ns())
            self.allowed = [tree_of(self.model)]
        assert found in self.allowed, describe(found, self.allowed)
        self.allowed = [found]
        self.model, numbers = from_tree(found)
        self.real = {numbers[path]: ino for path, ino in inodes.items()}
        findings = await check_open(self.fs, data=True)
        wrong = [problem for problem in findings.problems if not self._may_be_lost(problem)]
        assert wrong == [], f"the store is not consistent: {wrong[:3]}"
        await needles.check_everything_is_there(self.fs, self.world, self.unlucky)
        self.first_stripe = self.fs._chunks._writer._ids._next

    def _may_be_lost(self, problem: str) -> bool:
        """Whether a check tells of what unlucky drives have lost: shards on them, or copies of commits.

        And of dead stripes: a power cut may have torn them with their commit, and they only wait to be given back.
        """
        if needles.is_of_dead(self.fs, problem):
            return True
        copies = re.search(r"is whole on (\d+) of (\d+) drives only", problem)
        if copies is not None:
            return int(copies[1]) + len(self.unlucky) >= int(copies[2])
        return any(f"on drive {number} " in problem for number in self.unlucky)

    def note_state(self) -> None:
        if not self.world.is_over and self.is_known:
            super().note_state()

    # Doing one thing to both

    async def both(
        self, model: Callable[[], object], real: Callable[[], Awaitable[object]]
    ) -> tuple[object, object] | None:
        """Both results, or None when both refuse with the same errno, or the store had a reason of its own.

        The model follows in the step in which the store has changed: no crash comes between.
        """
        try:
            theirs = await real()
            code = 0
        except CiaosError as error:
            if self._is_excused(error):
                return None
            code = error.errno
        mine: object = None
        expected = 0
        try:
            mine = model()
        except ModelError as error:
            expected = error.errno
        assert code == expected, (
            f"{self.log[-1]}: {errno.errorcode.get(code, 'success')}, not {errno.errorcode.get(expected, 'success')}"
        )
        if code:
            return None
        now = self.world.time_ns()
        self.model.settle(lambda number: (now, now, now), now, now)
        self.note_state()
        return mine, theirs

    async def write_one(self, fh: int, number: int, offset: int, data: bytes) -> bool:
        try:
            return await super().write_one(fh, number, offset, data)
        except CiaosError as error:
            if not self._is_excused(error):
                raise
            return False

    def _is_excused(self, error: CiaosError) -> bool:
        """Whether the store may refuse this because of what is wrong with its drives."""
        if error.errno not in REFUSED or not (isinstance(error, FsError | NoSpaceError | DriveGoneError)):
            return False
        assert self.is_troubled, f"{self.log[-1]}: {error!r} with nothing wrong"
        self.tally.refused += 1
        return True

    def excusing(self, call: Callable[P, Awaitable[bool]]) -> Callable[P, Awaitable[bool]]:
        """`call`, with a refusal that has a reason taken for False."""

        async def excused(*args: P.args, **kwargs: P.kwargs) -> bool:
            try:
                return await call(*args, **kwargs)
            except CiaosError as error:
                if not self._is_excused(error):
                    raise
                return False

        return excused

    @property
    def is_troubled(self) -> bool:
        """Whether anything has been wrong in this life that a request may be refused for."""
        return self.was_troubled or self.is_tight

    @property
    def is_tight(self) -> bool:
        """Whether the drives are nearly full from the beginning."""
        return self.world.capacity < CAPACITY

    async def sync_now(self, handle: int | None = None) -> None:
        before = tree_of(self.model)
        allowed = self.allowed
        allowed.append(before)
        try:
            await (self.fs.sync() if handle is None else self.fs.fsync(handle))
        except CiaosError as error:
            if not self.is_troubled and not self.world.is_over:
                raise
            self.world.note(f"sync refused: {type(error).__name__}")
            self.tally.refused += 1
            return
        self.tally.syncs += 1
        at = next((index for index, tree in enumerate(allowed) if tree is before), None)
        # None: one that began later was answered first. Another list: a crash has come in between.
        if at is not None and allowed is self.allowed:
            del allowed[:at]

    async def stir(self) -> None:
        mtime = self.model.nodes[ROOT].mtime
        await self.both(
            lambda: self.model.set_attributes(ROOT, mtime=mtime),
            lambda: self.fs.setattr(ROOT_INO, SetAttributes(mtime_ns=mtime), WHO),
        )


def run(place: Path, seed: int, lives: int, table: Steps) -> Life:
    """The whole run of one seed; what fails is raised with notes that say how to see it again."""
    life = Life(place, seed, table)
    with life.world.running(), quiet() as tracebacks:
        try:
            run_the_same_way(seed, partial(life.live, lives))
            assert tracebacks.found == [], "tracebacks in the log"
        except BaseException as error:
            error.add_note(f"seed {seed}: replay with python -m tests.sim --seed {seed} --lives {lives}")
            error.add_note("last of the trace:\n  " + "\n  ".join(life.world.trace[-12:]))
            error.add_note("last steps: " + ", ".join(life.log[-4:]))
            raise
    return life
