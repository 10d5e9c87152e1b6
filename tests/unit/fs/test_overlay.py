"""The overlay against the dumbest model there is: one dictionary entry per byte, with its value and its flight."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from ciaosfs.base.types import Buffer
from ciaosfs.fs.overlay import Overlay

SPACE = 96
"""Offsets are drawn below this, so that writes of up to 24 bytes meet each other all the time."""


@dataclass(frozen=True)
class Write:
    offset: int
    length: int
    as_view: bool


@dataclass(frozen=True)
class Truncate:
    size: int


@dataclass(frozen=True)
class Take:
    bytes_max: int


@dataclass(frozen=True)
class Finish:
    """The flight with this number, modulo those under way, lands or comes back."""

    number: int
    lands: bool


@dataclass(frozen=True)
class Clear:
    pass


Step = Write | Truncate | Take | Finish | Clear

writes = st.builds(Write, st.integers(0, SPACE), st.integers(1, 24), st.booleans())
steps = st.lists(
    st.one_of(
        writes,
        writes,
        st.builds(Truncate, st.integers(0, SPACE + 24)),
        st.builds(Take, st.integers(0, 60)),
        st.builds(Take, st.integers(0, 60)),
        st.builds(Finish, st.integers(0, 7), st.booleans()),
        st.builds(Finish, st.integers(0, 7), st.booleans()),
        st.builds(Truncate, st.integers(0, 8)),
        st.builds(Clear),
    ),
    max_size=40,
)


@dataclass
class Cell:
    value: int
    flight: object | None


class Model:
    """One cell per pending byte."""

    def __init__(self) -> None:
        self.cells: dict[int, Cell] = {}

    def write(self, offset: int, data: bytes) -> None:
        for at, value in enumerate(data, offset):
            self.cells[at] = Cell(value, None)

    def truncate(self, size: int) -> None:
        for at in [at for at in self.cells if at >= size]:
            del self.cells[at]

    def take(self, flight: object, bytes_max: int) -> list[tuple[int, int]]:
        """The (position, value) pairs that go."""
        dirty = sorted(at for at, cell in self.cells.items() if cell.flight is None)[:bytes_max]
        for at in dirty:
            self.cells[at].flight = flight
        return [(at, self.cells[at].value) for at in dirty]

    def land(self, flight: object) -> list[tuple[int, int]]:
        """The ranges that are removed, as long as can be."""
        gone = sorted(at for at, cell in self.cells.items() if cell.flight is flight)
        ranges: list[tuple[int, int]] = []
        for at in gone:
            del self.cells[at]
            if ranges and ranges[-1][1] == at:
                ranges[-1] = (ranges[-1][0], at + 1)
            else:
                ranges.append((at, at + 1))
        return ranges

    def revert(self, flight: object) -> None:
        for cell in self.cells.values():
            if cell.flight is flight:
                cell.flight = None


def check(overlay: Overlay, model: Model) -> None:
    """Same bytes with the same marks, in order, without overlap, and both counters right."""
    found: list[tuple[int, int, object | None]] = []
    end = 0
    for segment in overlay:
        assert len(segment.data) > 0
        assert segment.offset >= end
        end = segment.end
        found += [(at, value, segment.flight) for at, value in enumerate(bytes(segment.data), segment.offset)]
    assert found == [(at, cell.value, cell.flight) for at, cell in sorted(model.cells.items())]
    assert overlay.end == end
    assert bool(overlay) == bool(model.cells)
    flying = sum(1 for cell in model.cells.values() if cell.flight is not None)
    assert overlay.flight_bytes == flying
    assert overlay.dirty_bytes == len(model.cells) - flying


def check_overlapping(overlay: Overlay, model: Model, start: int, end: int) -> None:
    segments = overlay.overlapping(start, end)
    assert segments == [segment for segment in overlay if segment.offset < end and segment.end > start]
    covered = {at for segment in segments for at in range(segment.offset, segment.end)}
    assert {at for at in model.cells if start <= at < end} <= covered


def flat(parts: list[tuple[int, bytes]]) -> list[tuple[int, int]]:
    return [(at, value) for offset, data in parts for at, value in enumerate(data, offset)]


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(0, SPACE), st.integers(1, 40))
def test_every_step_does_what_the_model_does(script: list[Step], look_at: int, look_length: int) -> None:
    overlay, model = Overlay(), Model()
    flights: list[tuple[list[int], list[tuple[int, int]], list[tuple[int, Buffer]]]] = []
    stamp = 0
    for step in script:
        match step:
            case Write(offset, length, as_view):
                data = bytes((stamp + n) % 251 for n in range(length))
                stamp += 37
                overlay.write(offset, memoryview(b"<<" + data + b">>")[2:-2] if as_view else data)
                model.write(offset, data)
            case Truncate(size):
                overlay.truncate(size)
                model.truncate(size)
            case Take(bytes_max):
                mark: list[int] = []  # equal to every other mark: identity counts
                taken = [(segment.offset, segment.data) for segment in overlay.take(mark, bytes_max)]
                expected = model.take(mark, bytes_max)
                assert flat([(offset, bytes(data)) for offset, data in taken]) == expected
                flights.append((mark, expected, taken))
            case Finish(number, lands) if flights:
                mark, expected, taken = flights.pop(number % len(flights))
                # What a worker sees is what was taken, whatever happened to the map meanwhile.
                assert flat([(offset, bytes(data)) for offset, data in taken]) == expected
                if lands:
                    assert land_in_parts(overlay, mark, 1 + number % 3) == model.land(mark)
                else:
                    overlay.revert(mark)
                    model.revert(mark)
            case Clear():
                overlay.clear()
                model = Model()
            case Finish():
                pass
        check(overlay, model)
        check_overlapping(overlay, model, look_at, look_at + look_length)
    overlay.clear()
    check(overlay, Model())
    for mark, _, _ in flights:
        assert overlay.land(mark) == []
        overlay.revert(mark)
    check(overlay, Model())


def test_appends_stay_apart_and_are_taken_in_order() -> None:
    overlay = Overlay()
    for number in range(10):
        overlay.write(number * 3, bytes([number]) * 3)
    mark = object()
    taken = overlay.take(mark, 10)
    assert [(segment.offset, len(segment.data)) for segment in taken] == [(0, 3), (3, 3), (6, 3), (9, 1)]
    assert (overlay.dirty_bytes, overlay.flight_bytes) == (20, 10)
    assert overlay.land(mark) == [(0, 10)]
    assert (overlay.dirty_bytes, overlay.flight_bytes) == (20, 0)


def land_in_parts(overlay: Overlay, flight: object, limit: int) -> list[tuple[int, int]]:
    """All ranges, so many at a time."""
    found: list[tuple[int, int]] = []
    while ranges := overlay.land(flight, found[-1][1] if found else 0, limit):
        assert len(ranges) <= limit
        found += ranges
    return found


def test_a_write_into_a_flight_lands_as_the_ranges_on_both_sides() -> None:
    overlay = Overlay()
    overlay.write(0, b"a" * 100)
    mark = object()
    overlay.take(mark, 100)
    overlay.write(40, b"b" * 20)
    assert overlay.land(mark) == [(0, 40), (60, 100)]
    assert [(segment.offset, bytes(segment.data)) for segment in overlay] == [(40, b"b" * 20)]


def test_a_flight_that_comes_back_does_not_take_newer_bytes_with_it() -> None:
    overlay = Overlay()
    overlay.write(0, b"old" * 10)
    mark = object()
    overlay.take(mark, 30)
    overlay.write(0, b"new")
    overlay.truncate(12)
    overlay.revert(mark)
    assert b"".join(bytes(segment.data) for segment in overlay) == b"new" + b"old" * 3
    assert (overlay.dirty_bytes, overlay.flight_bytes) == (12, 0)


def test_a_crumb_of_a_large_buffer_does_not_keep_the_buffer_alive() -> None:
    overlay = Overlay()
    overlay.write(0, b"x" * (1 << 20))
    overlay.write(4096, b"y" * (1 << 20))
    first = next(iter(overlay))
    assert isinstance(first.data, bytes)
    assert len(first.data) == 4096


def test_a_large_part_of_a_buffer_is_kept_without_a_copy() -> None:
    overlay = Overlay()
    buffer = b"x" * (1 << 20)
    overlay.write(0, buffer)
    overlay.truncate(900_000)
    (segment,) = overlay
    assert isinstance(segment.data, memoryview)
    assert segment.data.obj is buffer


def test_crumbs_cut_from_views_of_views_are_copied_too() -> None:
    overlay = Overlay()
    overlay.write(0, b"x" * (1 << 20))
    for size in (900_000, 700_000, 600_000, 500_000):
        overlay.truncate(size)
    (segment,) = overlay
    assert len(segment.data) == 500_000
    assert isinstance(segment.data, bytes)
    assert overlay.dirty_bytes == 500_000


def test_take_of_nothing_marks_nothing() -> None:
    overlay = Overlay()
    overlay.write(5, b"abc")
    assert overlay.take(object(), 0) == []
    assert (overlay.dirty_bytes, overlay.flight_bytes) == (3, 0)
