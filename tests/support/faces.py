"""The same store by three ways in: plain file calls, the Python client, the commands."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ciaosfs.cli.main import run
from ciaosfs.client.ciaos import Ciaos


class Face(Protocol):
    """What every way in can do, as its user would do it. Keys are relative to a folder of the mount."""

    def put(self, key: str, data: bytes) -> None: ...
    def get(self, key: str) -> bytes: ...
    def replace(self, key: str, data: bytes) -> None: ...
    def append(self, key: str, data: bytes) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def delete(self, key: str) -> None: ...
    def keys(self) -> list[str]: ...
    def size(self, key: str) -> int: ...


class Plain:
    """File calls below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, data: bytes) -> None:
        (self._folder / key).parent.mkdir(parents=True, exist_ok=True)
        with (self._folder / key).open("xb") as file:
            file.write(data)

    def get(self, key: str) -> bytes:
        return (self._folder / key).read_bytes()

    def replace(self, key: str, data: bytes) -> None:
        (self._folder / key).write_bytes(data)

    def append(self, key: str, data: bytes) -> None:
        with (self._folder / key).open("ab") as file:
            file.write(data)

    def rename(self, old: str, new: str) -> None:
        (self._folder / new).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / old).rename(self._folder / new)

    def delete(self, key: str) -> None:
        (self._folder / key).unlink()

    def keys(self) -> list[str]:
        found = [path for path in self._folder.rglob("*") if path.is_file()]
        return sorted((str(path.relative_to(self._folder)) for path in found), key=os.fsencode)

    def size(self, key: str) -> int:
        return (self._folder / key).stat().st_size


class Client:
    """`Ciaos`, with keys below `prefix`."""

    def __init__(self, ciaos: Ciaos, prefix: str) -> None:
        self._ciaos = ciaos
        self._prefix = prefix

    def put(self, key: str, data: bytes) -> None:
        self._ciaos.put_binary(self._prefix + key, [data])

    def get(self, key: str) -> bytes:
        return b"".join(self._ciaos.get(self._prefix + key))

    def replace(self, key: str, data: bytes) -> None:
        self._ciaos.update(self._prefix + key, [data])

    def append(self, key: str, data: bytes) -> None:
        self._ciaos.append(self._prefix + key, [data])

    def rename(self, old: str, new: str) -> None:
        self._ciaos.update_key(self._prefix + old, self._prefix + new)

    def delete(self, key: str) -> None:
        self._ciaos.delete(self._prefix + key)

    def keys(self) -> list[str]:
        return [key.removeprefix(self._prefix) for key in self._ciaos.keys(self._prefix)]

    def size(self, key: str) -> int:
        return self._ciaos.stat(self._prefix + key).size


class Commands:
    """`ciaosfs put`, `get` and so on, with keys below `prefix`, in this process."""

    def __init__(self, url: Path, prefix: str, scratch: Path) -> None:
        self._url = url
        self._prefix = prefix
        self._file = scratch

    def put(self, key: str, data: bytes) -> None:
        self._file.write_bytes(data)
        self._run("put", str(self._file), self._prefix + key)

    def get(self, key: str) -> bytes:
        return self._run("cat", self._prefix + key)

    def replace(self, key: str, data: bytes) -> None:
        self._run("put", "--replace", "-", self._prefix + key, given=data)

    def append(self, key: str, data: bytes) -> None:
        self._run("append", self._prefix + key, given=data)

    def rename(self, old: str, new: str) -> None:
        self._run("mv", self._prefix + old, self._prefix + new)

    def delete(self, key: str) -> None:
        self._run("rm", self._prefix + key)

    def keys(self) -> list[str]:
        lines = os.fsdecode(self._run("ls", "-r", self._prefix)).splitlines()
        return [line.removeprefix(self._prefix) for line in lines]

    def size(self, key: str) -> int:
        self._run("get", self._prefix + key, str(self._file))
        return self._file.stat().st_size

    def _run(self, *arguments: str, given: bytes = b"") -> bytes:
        with standard_streams(given) as out:
            status = run([arguments[0], "--url", str(self._url), *arguments[1:]])
        assert status == 0, f"{arguments}: {status}"
        return out.getvalue()


@contextmanager
def standard_streams(given: bytes) -> Iterator[io.BytesIO]:
    """With `given` on standard input; what goes to standard output is in the result."""
    out = io.BytesIO()
    former = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO(given)), io.TextIOWrapper(out, write_through=True)
    try:
        yield out
    finally:
        sys.stdout.flush()
        sys.stdout.detach()
        sys.stdin, sys.stdout = former
