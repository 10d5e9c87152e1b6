"""What `ciaosfs recover` says, asks and returns."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from uuid import UUID

import click
import pytest
from trio.testing import trio_test

from ciaosfs.base.config import CONFIG_NAME
from tests.cli.conftest import Ciaosfs
from tests.support.builders import Store, put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.make(tmp_path / "store")

    @trio_test
    async def fill() -> None:
        async with store.open() as filesystem:
            await put(filesystem, b"file", b"content")

    fill()
    return store


def test_it_says_up_to_which_moment_and_where_the_old_database_is(ciaosfs: Ciaosfs, store: Store) -> None:
    store.lose_database()
    store.database.write_bytes(b"garbage" * 1000)
    outcome = ciaosfs("recover", store.path, "--yes")
    assert outcome.status == 0
    first, second = outcome.err.splitlines()
    assert first.startswith("The drives lead up to commit 1 of 20")
    assert second.startswith("The database cannot be used: ") and "not a database" in second
    first, second = outcome.out.splitlines()
    assert first.startswith("Recovered up to commit 1 of 20")
    kept = Path(second.removeprefix("The old database is kept in ").removesuffix("."))
    assert (kept / "meta.sqlite").read_bytes() == b"garbage" * 1000
    assert ciaosfs("check", store.path).status == 0
    fields = json.loads(ciaosfs("recover", store.path, "--yes", "--json").out)
    assert (fields["type"], fields["commit"], fields["problems"]) == ("recover", 1, [])
    assert Path(fields["kept"]).parent == store.path


@pytest.mark.parametrize("answer", [True, False])
def test_it_asks_on_a_terminal(
    ciaosfs: Ciaosfs, store: Store, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    asked = []

    def confirm(question: str, *, err: bool) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(click, "confirm", confirm)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    outcome = ciaosfs("recover", store.path)
    assert len(asked) == 1
    assert outcome.status == (0 if answer else 1)
    assert "The database is at commit 1 of" in outcome.err
    assert len(list(store.path.glob("meta.*"))) == (1 if answer else 0)


def test_without_a_terminal_it_wants_yes(ciaosfs: Ciaosfs, store: Store) -> None:
    outcome = ciaosfs("recover", store.path)
    assert outcome.status == 2
    assert "give --yes" in outcome.err
    assert not list(store.path.glob("meta.*"))


def test_an_empty_store_is_nothing_to_recover(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    ciaosfs("mkfs", tmp_path / "empty")
    outcome = ciaosfs("recover", tmp_path / "empty", "--yes")
    assert outcome.status == 7
    assert "nothing to recover from" in outcome.err


def test_with_too_few_drives_the_status_is_3(ciaosfs: Ciaosfs, store: Store) -> None:
    numbers = [drive.number for drive in store.config.drives]
    for drive in store.config.drives:
        drive.path.rename(drive.path.with_name(f"{drive.path.name}-gone"))
    outcome = ciaosfs("recover", store.path, "--yes")
    assert outcome.status == 3
    assert f"needed: look after drive {numbers[0]} at " in outcome.err


def test_drives_of_another_store_are_called_so(ciaosfs: Ciaosfs, store: Store) -> None:
    config = store.path / CONFIG_NAME
    ours, other = str(UUID(bytes=store.config.store_id)), str(UUID(bytes=bytes(16)))
    config.write_text(config.read_text().replace(ours, other))
    outcome = ciaosfs("recover", store.path, "--yes")
    assert outcome.status == 3
    assert f"belong to another store, {ours}, and this one is {other}: correct 'store'" in outcome.err
    store.config.drives[0].path.rename(store.path / "gone")
    mixed = ciaosfs("recover", store.path, "--yes").err
    assert f"{store.config.drives[0].path}, 1 at" in mixed and ", which is of another store" in mixed
