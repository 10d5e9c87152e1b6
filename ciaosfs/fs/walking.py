"""Which folder a client that walks the tree lists next.

A walk lists a folder, then those in it, one after the other, each with all below it. Some begin with the first (find(1),
`os.walk`), some with the last (who keeps what is still to be done on a stack, as many a loop around `os.scandir`). So what
is to come is what listings have held and nobody has listed since: the folders of the newest listing first, from the end that
the client takes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ciaosfs.base import limits


class Expected:
    """Folders that were in listings and were not listed themselves, at most `limits.LISTINGS_AHEAD_MAX` of them."""

    def __init__(self) -> None:
        self._groups: dict[int, dict[int, None]] = {}
        """Folders in the order of their listing, by the folder they are in. The one that was looked at last is the last."""
        self._parents: dict[int, int] = {}
        self._is_backward = False

    def note(self, parent: int, folders: Sequence[int], *, is_beginning: bool) -> None:
        """`folders` are in a listing of `parent`, or in a further part of it."""
        if is_beginning:
            for folder in self._groups.pop(parent, ()):
                del self._parents[folder]
        if not folders:
            return
        for folder in folders:
            self._remove(folder)
        self._groups.setdefault(parent, {}).update(dict.fromkeys(folders))
        self._parents.update(dict.fromkeys(folders, parent))
        while len(self._parents) > limits.LISTINGS_AHEAD_MAX:
            oldest = next(iter(self._groups.values()))
            self._remove(next(iter(oldest) if self._is_backward else reversed(oldest)))

    def listed(self, folder: int) -> None:
        """A client lists it: those in it are next, and after them its neighbour."""
        parent = self._parents.get(folder)
        if parent is not None:
            group = self._groups[parent]
            if len(group) > 1:
                if next(iter(group)) == folder:
                    self._is_backward = False
                elif next(reversed(group)) == folder:
                    self._is_backward = True
            self._remove(folder)
        own = self._groups.pop(folder, None)
        if own is not None:
            self._groups[folder] = own

    def __iter__(self) -> Iterator[int]:
        """The likely ones first. Nothing may be noted or listed meanwhile."""
        for group in reversed(self._groups.values()):
            yield from reversed(group) if self._is_backward else group

    def __len__(self) -> int:
        return len(self._parents)

    def _remove(self, folder: int) -> None:
        parent = self._parents.pop(folder, None)
        if parent is not None:
            group = self._groups[parent]
            del group[folder]
            if not group:
                del self._groups[parent]
