"""The table of files with state: totals are exact, and nothing stays that needs no state."""

from __future__ import annotations

import random

import pytest

from ciaosfs.fs.files import File, Files


def check(files: Files, known: dict[int, File]) -> None:
    """The totals equal the sums over the files, and exactly the files with a reason are in the table."""
    pending = {ino: file.overlay.dirty_bytes + file.overlay.flight_bytes for ino, file in known.items()}
    assert files.pending_bytes == sum(pending.values())
    assert sum(file.handles for file in known.values()) == files.handle_count
    needed = {ino for ino, file in known.items() if file.handles or file.doomed or pending[ino]}
    assert {ino for ino in known if files.get(ino) is known[ino]} == needed
    assert len(files) == len(needed)
    dirty = {ino for ino, file in known.items() if file.overlay.dirty_bytes}
    assert {file.ino for file in files.dirty()} == dirty
    assert files.has_dirty == bool(dirty)


@pytest.mark.parametrize("seed", range(20))
def test_totals_hold_through_random_use(seed: int) -> None:
    dice = random.Random(seed)
    files = Files()
    known: dict[int, File] = {}
    handles: list[int] = []
    flights: list[tuple[object, list[File]]] = []
    for _ in range(300):
        ino = dice.randrange(6)
        action = dice.choice(
            ["open", "release", "write", "truncate", "fly", "land", "revert", "doom", "drop", "obtain"]
        )
        if action == "open":
            number, handle = files.open(ino, 0)
            handles.append(number)
            known[ino] = handle.file
        elif action == "release" and handles:
            files.release(handles.pop(dice.randrange(len(handles))))
        elif action == "write" and handles:
            file = files.handle(dice.choice(handles)).file
            file.overlay.write(dice.randrange(100), bytes(dice.randrange(1, 50)))
            files.account(file)
        elif action == "truncate" and (found := files.get(ino)) is not None:
            found.overlay.truncate(dice.randrange(100))
            files.account(found)
        elif action == "fly":
            mark = object()
            aboard = []
            for file in files.dirty():
                file.overlay.take(mark, dice.randrange(1, 60))
                files.account(file)
                aboard.append(file)
            flights.append((mark, aboard))
        elif action in ("land", "revert") and flights:
            mark, aboard = flights.pop(dice.randrange(len(flights)))
            for file in aboard:
                if action == "land":
                    file.overlay.land(mark)
                else:
                    file.overlay.revert(mark)
                files.account(file)
        elif action == "doom":
            known[ino] = files.obtain(ino)
            known[ino].doomed = True
        elif action == "drop" and (found := files.get(ino)) is not None and not found.handles:
            files.drop(found)
        elif action == "obtain":
            known[ino] = files.obtain(ino)
            files.settle(known[ino])
        check(files, {ino: file for ino, file in known.items() if files.get(ino) is file})


def test_handle_numbers_are_never_used_twice() -> None:
    files = Files()
    seen = set()
    for _ in range(50):
        number, _ = files.open(3, 0)
        files.release(number)
        seen.add(number)
    assert len(seen) == 50
    with pytest.raises(KeyError):
        files.handle(seen.pop())


def test_the_longest_dirty_file_is_first() -> None:
    files = Files()
    for ino in (7, 3, 5):
        _, handle = files.open(ino, 0)
        handle.file.overlay.write(0, b"x")
        files.account(handle.file)
    first = files.get(7)
    assert first is not None
    first.overlay.write(10, b"y")
    files.account(first)
    assert [file.ino for file in files.dirty()] == [7, 3, 5]


def test_a_file_with_bytes_in_flight_is_kept_after_its_last_handle() -> None:
    files = Files()
    number, handle = files.open(9, 0)
    file = handle.file
    file.overlay.write(0, b"abc")
    files.account(file)
    mark = object()
    file.overlay.take(mark, 3)
    files.account(file)
    files.release(number)
    assert files.get(9) is file
    assert not files.has_dirty
    file.overlay.land(mark)
    files.account(file)
    assert files.get(9) is None
    assert files.pending_bytes == 0


def test_a_flight_of_a_dropped_file_lands_nowhere() -> None:
    files = Files()
    file = files.obtain(9)
    file.overlay.write(0, b"abc")
    files.account(file)
    mark = object()
    file.overlay.take(mark, 3)
    files.account(file)
    file.doomed = True
    files.drop(file)
    assert (len(files), files.pending_bytes) == (0, 0)
    again = files.obtain(9)
    assert again is not file
    assert file.overlay.land(mark) == []
    files.account(file)
    assert files.pending_bytes == 0
    assert files.get(9) is again


def test_a_late_flight_does_not_forget_the_bytes_of_a_later_open() -> None:
    """Write, close, open with O_TRUNC, write again, and only then the first flight lands: found by this suite.

    The state of the first open is gone by then; taking its successor off the list of dirty files would let an fsync
    pass without the second write.
    """
    files = Files()
    number, handle = files.open(9, 0)
    old = handle.file
    old.overlay.write(0, b"first")
    files.account(old)
    mark = object()
    old.overlay.take(mark, 5)
    files.account(old)
    files.release(number)
    old.overlay.truncate(0)
    files.account(old)
    assert files.get(9) is None

    _, handle = files.open(9, 0)
    handle.file.overlay.write(0, b"second")
    files.account(handle.file)
    assert old.overlay.land(mark) == []
    files.account(old)
    assert list(files.dirty()) == [handle.file]
    assert files.get(9) is handle.file
    assert files.pending_bytes == 6
