"""How a store codes its stripes cannot be changed: what was promised of the drives would not hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import StoreError
from tests.support.builders import Store, files_of, put


def edit(store: Store, old: str, new: str) -> None:
    path = store.path / "ciaosfs.toml"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [("\nparity = 2", "\nparity = 1"), ("\ndata = 4", "\ndata = 3")])
@trio_test
async def test_a_store_does_not_open_with_another_shape(tmp_path: Path, old: str, new: str) -> None:
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"file", b"content")
    edit(store, old, new)
    with pytest.raises(StoreError, match=re.escape("was made for 4 and 2, which cannot be changed")):
        async with store.open():
            pass
    edit(store, new, old)
    assert await files_of(store) == {b"file": b"content"}


@trio_test
async def test_an_added_drive_knows_the_shape_and_drives_of_before_it_was_written_down_open(
    tmp_path: Path,
) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    for number in range(3):
        path = store.drive(number) / "drive.json"
        fields = json.loads(path.read_text())
        assert (fields.pop("data"), fields.pop("parity")) == (2, 1)
        path.write_text(json.dumps(fields))
    async with store.open_with_jobs() as (_, jobs):
        await jobs.drives.add(tmp_path / "new")
    edit(store, "\nparity = 1", "\nparity = 2")
    with pytest.raises(StoreError, match=r"drive 3 was made for 2 and 1"):
        async with store.open():
            pass
