"""Entries of listings are made in idle moments, used for the very rows they were made of, and bounded."""

from __future__ import annotations

import stat
from collections.abc import Sequence

import pytest
import trio
from ciaosfsd.fuse.ready import AFTER_CUT_S, CALM_S, QUIET_S, STEPS, ReadyListings
from trio.testing import MockClock, trio_test

from ciaosfs.base import limits
from ciaosfs.meta.dentries import ListedRow


class Listed:
    """A file system with directories to list ahead."""

    def __init__(self, ahead: list[tuple[int, Sequence[ListedRow]]], busy: int = 0) -> None:
        self.ahead = ahead
        self.grown: list[tuple[int, Sequence[ListedRow]]] = []
        self.busy = busy
        self.pending: dict[int, int] = {}
        self.listing_mark = (0, 0)
        self.cuts = trio.lowlevel.ParkingLot()

    async def wait_cut(self) -> None:
        await self.cuts.park()

    def pending_bytes_of(self, ino: int) -> int:
        return self.pending.get(ino, 0)

    def use_idle_moment(self) -> bool:
        self.busy -= 1
        return self.busy >= 0

    def list_grown(self) -> tuple[int, Sequence[ListedRow]] | None:
        return self.grown.pop(0) if self.grown else None

    def list_ahead(self) -> tuple[int, Sequence[ListedRow]] | None:
        return self.ahead.pop(0) if self.ahead else None


def rows(first: int, count: int) -> list[ListedRow]:
    return [
        (16 * n, b"%d" % n, n, stat.S_IFREG | 0o644, 1, 3, 4, 0, 1000 + n, 5, 6, 7, 512)
        for n in range(first, first + count)
    ]


def ready_listings(filesystem: Listed) -> ReadyListings:
    return ReadyListings(filesystem)  # type: ignore[arg-type]


def spend(ready: ReadyListings) -> int:
    """Use every idle moment there is; how many were used."""
    count = 0
    while ready.use_idle_moment():
        count += 1
    return count


def test_the_next_folder_and_what_was_listed_are_made_while_the_client_is_busy() -> None:
    listed, ahead = rows(1, 3), rows(10, 2)
    ready = ready_listings(Listed([(7, ahead)]))
    assert not ready.use_idle_moment(), "nobody has listed anything"
    assert ready.entries(2, 0, listed) is None
    assert spend(ready) == STEPS
    made = ready.entries(7, 0, ahead)
    assert made is not None and [entry.st_ino for _, entry, _ in made] == [10, 11]
    made = ready.entries(2, 0, listed)
    assert made is not None
    assert [(entry.st_ino, entry.st_size, entry.st_blocks) for _, entry, _ in made] == [
        (n, 1000 + n, 1) for n in range(1, 4)
    ]


def test_other_rows_at_the_same_place_are_not_answered_with_the_old_ones() -> None:
    ready = ready_listings(Listed([]))
    ready.entries(2, 0, rows(1, 3))
    assert spend(ready) == 1
    assert ready.entries(2, 0, rows(1, 3)) is None


def test_bytes_that_wait_in_memory_count_as_blocks_and_make_what_was_made_before_void() -> None:
    listed = rows(1, 2)
    filesystem = Listed([])
    ready = ready_listings(filesystem)

    def blocks() -> list[int] | None:
        made = ready.entries(2, 0, listed)
        spend(ready)
        return None if made is None else [entry.st_blocks for _, entry, _ in made]

    assert (blocks(), blocks()) == (None, [1, 1])
    filesystem.pending, filesystem.listing_mark = {2: 1000}, (0, 1)
    assert (blocks(), blocks()) == (None, [1, 3])
    filesystem.pending, filesystem.listing_mark = {1: 1000}, (0, 2)
    assert (blocks(), blocks()) == (None, [3, 1])
    filesystem.pending, filesystem.listing_mark = {}, (0, 0)
    assert (blocks(), blocks()) == (None, [1, 1])


def test_at_the_end_of_a_listing_the_next_request_is_waited_for() -> None:
    ready = ready_listings(Listed([(7, rows(10, 2))]))
    ready.entries(2, 0, rows(1, 3))
    assert ready.entries(2, 48, []) is None
    assert spend(ready) == 0


def test_a_client_works_on_a_listing_once_and_on_the_end_of_one_not_at_all() -> None:
    ready = ready_listings(Listed([]))
    assert not ready.is_digesting()
    ready.entries(2, 0, rows(1, 3))
    assert ready.is_digesting() and not ready.is_digesting()
    ready.entries(2, 0, rows(1, 3))
    ready.entries(2, 48, [])
    assert not ready.is_digesting()


def test_the_file_system_goes_first() -> None:
    ready = ready_listings(Listed([], busy=2))
    ready.entries(2, 0, rows(1, 3))
    assert spend(ready) == 3


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTED_ROWS_CACHE_MAX", 10)
    ready = ready_listings(Listed([]))
    parts = [rows(100 * n, 4) for n in range(1, 6)]
    for n, part in enumerate(parts):
        ready.entries(n, 0, part)
        spend(ready)
        assert sum(len(entries) for _, entries in ready._ready.values()) <= 10
    assert ready.entries(4, 0, parts[4]) is not None


def test_nothing_is_kept_of_a_tree_that_has_changed() -> None:
    filesystem = Listed([])
    ready = ready_listings(filesystem)
    for n in range(1, 6):
        ready.entries(n, 0, rows(100 * n, 4))
        spend(ready)
    assert len(ready._ready) == 5
    filesystem.listing_mark = (1, 0)
    ready.entries(9, 0, rows(900, 4))
    spend(ready)
    assert list(ready._ready) == [(9, 0)]


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@trio_test
async def test_what_has_grown_is_made_when_nobody_has_asked_for_a_while(autojump_clock: MockClock) -> None:
    listed = rows(1, 3)
    filesystem = Listed([])
    ready = ready_listings(filesystem)
    requests = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ready.use_quiet, lambda: requests)
        filesystem.grown = [(2, listed), (3, listed)]
        for requests in range(1, 5):  # noqa: B007 - the task looks at it
            await trio.sleep(QUIET_S * 0.9)
        assert len(filesystem.grown) == 2
        await trio.sleep(QUIET_S * 2)
        assert len(filesystem.grown) == 0
        requests = 9
        filesystem.grown = [(4, listed)]
        await trio.sleep(CALM_S + QUIET_S * 2)
        nursery.cancel_scope.cancel()
    assert filesystem.grown == []
    made = ready.entries(3, 0, listed)
    assert made is not None and [entry.st_ino for _, entry, _ in made] == [1, 2, 3]


@trio_test
async def test_what_a_commit_has_changed_is_made_again_while_it_is_synced(autojump_clock: MockClock) -> None:
    listed = rows(1, 3)
    filesystem = Listed([])
    ready = ready_listings(filesystem)
    requests = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ready.use_quiet, lambda: requests)
        await trio.sleep(2 * CALM_S)
        filesystem.grown = [(2, listed)]
        filesystem.cuts.unpark_all()
        await trio.sleep(AFTER_CUT_S / 2)
        requests = 1
        await trio.sleep(AFTER_CUT_S)
        assert len(filesystem.grown) == 1, "somebody asks for other things"
        filesystem.cuts.unpark_all()
        await trio.sleep(2 * AFTER_CUT_S)
        nursery.cancel_scope.cancel()
    assert filesystem.grown == []
    assert ready.entries(2, 0, listed) is not None
