"""What keeps a store from being opened is one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import StoreError
from tests.support.builders import Store


@trio_test
async def test_a_file_in_the_place_of_the_metadata(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    meta = store.database.parent
    shutil.rmtree(meta)
    meta.touch()
    with pytest.raises(StoreError, match="meta cannot hold the metadata: it is not a directory"):
        async with store.open():
            pass
    meta.unlink()
    async with store.open():
        assert meta.is_dir()
