"""What a walk lists next is foreseen for walks of every kind, and what is noted is bounded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import pytest

from ciaosfs.base import limits
from ciaosfs.fs.walking import Expected

TREE = {
    1: [10, 20, 30],
    10: [11, 12],
    20: [],
    30: [31, 32, 33],
    11: [],
    12: [],
    31: [],
    32: [310],
    33: [],
    310: [],
}

Visit = Callable[[int], list[int]]


def depth_first(visit: Visit) -> None:
    def below(folder: int) -> None:
        for child in visit(folder):
            below(child)

    below(1)


def from_a_stack(visit: Visit) -> None:
    pending = [1]
    while pending:
        pending += visit(pending.pop())


@pytest.mark.parametrize("walk", [depth_first, from_a_stack])
def test_each_folder_of_a_walk_is_foreseen_once_its_direction_is_known(walk: Callable[[Visit], None]) -> None:
    expected = Expected()
    foreseen: list[tuple[int | None, int]] = []

    def visit(folder: int) -> list[int]:
        foreseen.append((next(iter(expected), None), folder))
        expected.listed(folder)
        expected.note(folder, TREE[folder], is_beginning=True)
        return list(TREE[folder])

    for _ in range(2):
        foreseen.clear()
        walk(visit)
        assert len(foreseen) == len(TREE) and not len(expected)
        assert [guess for guess, _ in foreseen[2:]] == [folder for _, folder in foreseen[2:]]


def test_what_is_fetched_before_it_is_listed_changes_nothing() -> None:
    """The folders in a listing that was only made ready come after those of the folder that is walked through."""
    expected = Expected()
    for folder, children in TREE.items():
        expected.note(folder, children, is_beginning=True)
    for folder in (1, 30, 33, 32):
        expected.listed(folder)
    assert list(islice(expected, 3)) == [310, 31, 20]


def test_parts_of_a_listing_are_one_and_a_new_listing_takes_the_place_of_the_old() -> None:
    expected = Expected()
    expected.note(1, [2, 3], is_beginning=True)
    expected.note(1, [4], is_beginning=False)
    assert list(expected) == [2, 3, 4]
    expected.note(1, [3, 5], is_beginning=True)
    assert list(expected) == [3, 5]
    expected.note(9, [5], is_beginning=True)
    assert list(expected) == [5, 3], "moved to another folder"
    expected.note(1, [], is_beginning=True)
    assert list(expected) == [5]


@pytest.mark.parametrize("is_backward", [False, True])
def test_of_too_many_those_that_come_last_are_left_out(
    monkeypatch: pytest.MonkeyPatch, is_backward: bool
) -> None:
    monkeypatch.setattr(limits, "LISTINGS_AHEAD_MAX", 4)
    expected = Expected()
    expected.note(1, [2, 3], is_beginning=True)
    expected.listed(3 if is_backward else 2)
    folders = list(range(100, 110))
    expected.note(50, folders, is_beginning=True)
    assert list(expected) == (folders[:-5:-1] if is_backward else folders[:4])
