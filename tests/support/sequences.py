"""Random sequences of system calls, made from a seed: the same seed gives the same calls on any file system.

The generator knows nothing about results. Names come from a small pool, so that calls meet what earlier
ones left: about half of them succeed. Kinds are drawn by weight; sizes are mostly small, some larger than a
stripe.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.caller import DIRECT_ALIGN, RENAME_EXCHANGE, RENAME_NOREPLACE

SLOTS = 4
FAR_BYTES = 24 << 20
"""No write begins beyond it: sparse files stay quick to compare."""

DIRECTORIES = [b"alpha", b"beta", b"alpha/gamma", b"beta/\xff\xfe"]
NAMES = [b"one", b"two", b"\xc3\xa4 three\n", b"\x80raw\x01", b"l" * 255]
STRANGE = [
    b"m" * 256,
    b"nowhere/one",
    b"one/below",
    b"alpha/..",
    b".",
    b"alpha/",
    b"one/",
    b"beta/../one",
    b"",
]
XATTRS = [
    b"user.one",
    b"user.two",
    b"user." + b"x" * 200,
    b"trusted.three",
    b"user." + b"y" * 251,
    b"none.four",
]

Call = tuple[str, tuple[Any, ...]]


class Sequence:
    """An endless iterator of calls."""

    def __init__(self, seed: int, *, as_root: bool) -> None:
        self._dice = random.Random(seed)
        self._as_root = as_root
        kinds = self._kinds()
        self._makers = [maker for maker, _ in kinds]
        self._weights = [weight for _, weight in kinds]

    def __iter__(self) -> Iterator[Call]:
        for directory in DIRECTORIES:
            yield "mkdir", (directory, 0o755)
        while True:
            yield self._dice.choices(self._makers, self._weights)[0]()

    def _kinds(self) -> list[tuple[Callable[[], Call], float]]:
        return [
            (self._open, 16),
            (lambda: ("close", (self._slot(),)), 4),
            (lambda: ("pread", (self._slot(), self._size(), self._offset())), 8),
            (lambda: ("pwrite", (self._slot(), self._data(), self._offset())), 12),
            (lambda: ("read", (self._slot(), self._size())), 3),
            (lambda: ("write", (self._slot(), self._data())), 8),
            (
                lambda: (
                    "seek",
                    (self._slot(), self._dice.choice((-1, 0, 1, 100, 70000)), self._dice.randrange(3)),
                ),
                3,
            ),
            (lambda: ("ftruncate", (self._slot(), self._offset())), 4),
            (lambda: ("allocate", (self._path(), self._offset() % 65536, 1 + self._size() % 65536)), 1),
            (lambda: ("fstat", (self._slot(),)), 3),
            (lambda: ("fchmod", (self._slot(), self._mode())), 2),
            (lambda: ("fsync", (self._slot(),)), 1),
            (lambda: ("fdatasync", (self._slot(),)), 1),
            (self._copy_range, 2),
            (lambda: ("sendfile", (self._slot(), self._slot(), self._size(), self._offset())), 1),
            (
                lambda: (
                    "map_shared",
                    (self._slot(), self._offset(), self._bytes(1 + self._dice.randrange(9000))),
                ),
                4,
            ),
            (
                lambda: (
                    "map_private",
                    (self._slot(), self._offset(), self._bytes(1 + self._dice.randrange(9000))),
                ),
                2,
            ),
            (self._direct_write, 3),
            (
                lambda: (
                    "direct_read",
                    (self._path(), self._dice.randrange(40), 1 + self._dice.randrange(64)),
                ),
                3,
            ),
            (lambda: ("stat", (self._path(),)), 4),
            (lambda: ("lstat", (self._path(),)), 4),
            (lambda: ("access", (self._path(), self._dice.randrange(8))), 1),
            (lambda: ("read_file", (self._path(),)), 8),
            (lambda: ("write_file", (self._path(), self._data())), 6),
            (lambda: ("append_file", (self._path(), self._bytes(100))), 6),
            (lambda: ("truncate", (self._path(), self._offset())), 4),
            (lambda: ("unlink", (self._path(),)), 4),
            (lambda: ("mkdir", (self._directory(), self._mode())), 8),
            (lambda: ("rmdir", (self._directory(),)), 1),
            (lambda: ("list", (self._directory(),)), 4),
            (self._rename, 12),
            (lambda: ("link", (self._path(), self._path())), 5),
            (self._symlink, 3),
            (lambda: ("readlink", (self._path(),)), 2),
            (self._mknod, 2),
            (lambda: ("chmod", (self._any(), self._mode())), 4),
            (self._lchown, 3),
            (lambda: ("utime", (self._any(), self._time(), self._time())), 4),
            (self._setxattr, 6),
            (lambda: ("getxattr", (self._any(), self._dice.choice(XATTRS))), 3),
            (lambda: ("removexattr", (self._any(), self._dice.choice(XATTRS))), 2),
            (lambda: ("listxattr", (self._any(),)), 2),
            (lambda: ("statvfs", (self._any(),)), 1),
        ]

    # Arguments

    def _slot(self) -> int:
        return self._dice.randrange(SLOTS)

    def _directory(self) -> bytes:
        return self._dice.choice(STRANGE) if self._dice.random() < 0.03 else self._dice.choice(DIRECTORIES)

    def _path(self) -> bytes:
        luck = self._dice.random()
        if luck < 0.04:
            return self._dice.choice(STRANGE)
        if luck < 0.10:
            return self._dice.choice(DIRECTORIES)
        name = self._dice.choice(NAMES)
        return name if luck < 0.4 else self._dice.choice(DIRECTORIES) + b"/" + name

    def _any(self) -> bytes:
        return self._directory() if self._dice.random() < 0.3 else self._path()

    def _size(self) -> int:
        return self._dice.choice((0, 1, 100, 4095, 4096, 4097, 65536, 131072, 200_000, 1 << 20, 5 << 20))

    def _offset(self) -> int:
        luck = self._dice.random()
        if luck < 0.3:
            return 0
        if luck < 0.6:
            return self._dice.randrange(20_000)
        if luck < 0.8:
            return self._dice.randrange(64) * 4096
        return self._dice.randrange(300_000 if luck < 0.95 else FAR_BYTES)

    def _bytes(self, length: int) -> bytes:
        """Random, or, half the time, what compresses well."""
        if self._dice.random() < 0.5:
            return self._dice.randbytes(length)
        word = self._dice.randbytes(7)
        return (word * (length // 7 + 1))[:length]

    def _data(self) -> bytes:
        luck = self._dice.random()
        if luck < 0.5:
            return self._bytes(self._dice.randrange(200))
        if luck < 0.8:
            return self._bytes(self._dice.randrange(20_000))
        return self._bytes(self._dice.randrange(300_000) if luck < 0.97 else 4_500_000)

    def _mode(self) -> int:
        mode = self._dice.choice((0o755, 0o700, 0o644, 0o600, 0o777, 0o1777, 0o2755, 0o4755, 0o500, 0o000))
        return mode if self._as_root else mode | 0o700  # or the trees could not be compared

    def _time(self) -> int:
        return self._dice.choice((0, 1, 999_999_999, 1_234_567_890_123_456_789, 1_700_000_000_000_000_001))

    # Calls with dependent arguments

    def _open(self) -> Call:
        flags = self._dice.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR))
        for flag, chance in (
            (os.O_CREAT, 0.8),
            (os.O_EXCL, 0.1),
            (os.O_TRUNC, 0.15),
            (os.O_APPEND, 0.2),
            (os.O_NOFOLLOW, 0.1),
            (os.O_DIRECTORY, 0.03),
            (os.O_DSYNC, 0.02),
        ):
            if self._dice.random() < chance:
                flags |= flag
        # A fifo would wait for its other end.
        return "open", (self._slot(), self._path(), flags | os.O_NONBLOCK, self._mode() | 0o600)

    def _copy_range(self) -> Call:
        return "copy_range", (self._slot(), self._slot(), self._size(), self._offset(), self._offset())

    def _direct_write(self) -> Call:
        data = self._bytes(DIRECT_ALIGN * (1 + self._dice.randrange(40)))
        return "direct_write", (self._path(), self._dice.randrange(40), data)

    def _rename(self) -> Call:
        pick = self._directory if self._dice.random() < 0.15 else self._path
        flags = self._dice.choice((0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE))
        flags = RENAME_NOREPLACE | RENAME_EXCHANGE if self._dice.random() < 0.01 else flags
        return "rename", (pick(), pick(), flags)

    def _symlink(self) -> Call:
        targets = [*NAMES, b"../one", b"nowhere", b"alpha", b".", b"t" * 3000]
        return "symlink", (self._dice.choice(targets), self._path())

    def _mknod(self) -> Call:
        kind = self._dice.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK))
        device = os.makedev(1, 3) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        return "mknod", (self._path(), kind | self._mode(), device)

    def _lchown(self) -> Call:
        owners = (-1, 0, 1000, 65534) if self._as_root else (-1, os.getuid())
        groups = (-1, 0, 1000, 65534) if self._as_root else (-1, os.getgid())
        return "lchown", (self._any(), self._dice.choice(owners), self._dice.choice(groups))

    def _setxattr(self) -> Call:
        flags = self._dice.choice((0, 0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
        value = self._bytes(self._dice.randrange(120))
        return "setxattr", (self._any(), self._dice.choice(XATTRS), value, flags)
