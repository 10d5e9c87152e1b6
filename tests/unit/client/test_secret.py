"""Where a token may come from, in which order, and that nothing of it is in an error."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from ciaosfs.base.errors import UsageError
from ciaosfs.client.secret import given_token, new_token_file, read_token_file

ONE, TWO, THREE = (f"ciaosfs_{number}_{'Ab-_' * 10}abc" for number in (1, 2, 3))


def token_file(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_the_nearest_source_counts(tmp_path: Path) -> None:
    argument, named = (
        token_file(tmp_path / "one", ONE + "\n"),
        token_file(tmp_path / "two", f"\n {TWO}  \r\n"),
    )
    both = {"CIAOSFS_TOKEN_FILE": str(named), "CIAOSFS_TOKEN": THREE}
    assert given_token(argument, both) == ONE
    assert given_token(None, both) == TWO
    assert given_token(None, {"CIAOSFS_TOKEN": f" {THREE}\n"}) == THREE
    assert given_token(None, {"CIAOSFS_TOKEN": "", "CIAOSFS_TOKEN_FILE": ""}) is None


def test_a_token_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ONE.encode() + b"\n")))
    assert read_token_file(Path("-")) == ONE


@pytest.mark.parametrize(
    "content",
    ["", "hunter2-is-no-token", f"{ONE} {TWO}", f"{ONE}\n{TWO}\n", "ciaosfs_!", "é" + ONE, ONE * 99],
)
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    path = token_file(tmp_path / "file", content)
    sources: list[tuple[Path | None, dict[str, str]]] = [
        (path, {}),
        (None, {"CIAOSFS_TOKEN": content or "x"}),
    ]
    for file, environment in sources:
        with pytest.raises(UsageError) as refused:
            given_token(file, environment)
        assert not content or content not in str(refused.value)
        assert str(path) in str(refused.value) or "CIAOSFS_TOKEN" in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing cannot be read: No such file"):
        given_token(tmp_path / "missing", {})


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    before = os.umask(0)
    try:
        with new_token_file(path) as write:
            write(ONE)
    finally:
        os.umask(before)
    assert path.read_text() == ONE + "\n" and path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="exists already"), new_token_file(path):
        pytest.fail("it is not written over")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(UsageError, match="exists already"), new_token_file(tmp_path / "link"):
        pytest.fail("nor through a link")
    assert path.read_text() == ONE + "\n"


def test_a_file_for_a_token_that_was_not_made_goes_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(ZeroDivisionError), new_token_file(path):
        raise ZeroDivisionError
    assert not path.exists()
    with pytest.raises(UsageError, match="cannot be made"), new_token_file(tmp_path / "missing" / "token"):
        pytest.fail("before anything is asked for")
