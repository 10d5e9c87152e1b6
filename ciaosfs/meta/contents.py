"""What a commit brings, read from its changeset without applying it."""

from __future__ import annotations

import apsw

from ciaosfs.base.errors import LogDamagedError


def stripes_brought(changeset: bytes) -> list[int]:
    """The ids of the stripes that the commit made known, lowest first. LogDamagedError when it cannot be
    read.
    """
    found: list[int] = []
    try:
        for change in apsw.Changeset.iter(changeset):
            if change.name == "stripes" and change.op == "INSERT" and change.new is not None:
                stripe_id = change.new[0]
                assert isinstance(stripe_id, int)
                found.append(stripe_id)
    except apsw.Error as error:
        raise LogDamagedError(f"The changes of a commit cannot be read: {error}.") from error
    return sorted(found)
