"""Steps that change attributes: modes, owners, times, sizes, extended attributes and ACLs."""

from __future__ import annotations

from ciaosfs.base import limits
from ciaosfs.fs import acl
from ciaosfs.fs.acl import Entry
from ciaosfs.fs.attributes import SetAttributes
from tests.model.machine import MODES, Machine, Step, Steps
from tests.support.builders import WHO
from tests.support.model_fs import COMPRESSION

XATTRS = [b"user.one", b"user.two", b"trusted.x", b"security.y", COMPRESSION, acl.ACCESS, acl.DEFAULT]
STRANGE_XATTRS = [b"user.ciaos.odd", b"system.odd", b"odd", b"user." + b"n" * 251]


async def set(machine: Machine, number: int, **changes: int) -> None:
    machine.touched.add(number)
    renamed = {f"{name}_ns" if name in ("atime", "mtime") else name: v for name, v in changes.items()}
    await machine.both(
        lambda: machine.model.set_attributes(number, **changes),
        lambda: machine.fs.setattr(machine.real[number], SetAttributes(**renamed), WHO),
    )


async def chmod(machine: Machine, step: Step) -> None:
    await set(machine, machine.any(step.a), mode=MODES[step.b % len(MODES)])


async def chown(machine: Machine, step: Step) -> None:
    changes = {"uid": step.b % 3000, "gid": step.c % 3000}
    await set(machine, machine.any(step.a), **dict(list(changes.items())[step.d % 2 :]))


async def utimes(machine: Machine, step: Step) -> None:
    await set(machine, machine.any(step.a), atime=step.b * 1_000_003, mtime=step.c * 999_999_937)


async def truncate(machine: Machine, step: Step) -> None:
    number = machine.file(step.a) if step.a % 15 else machine.any(step.a)
    if number is None:
        return
    size = machine.model.nodes[number].size
    choices = [
        0,
        size,
        size // 2,
        max(0, size - 1),
        size + step.c % 5000,
        step.c % machine.file_bytes_max,
        4096,
    ]
    if step.d % 40 == 0:
        choices = [limits.FILE_BYTES_MAX + 1]
    await set(machine, number, size=choices[step.b % len(choices)])


async def setxattr(machine: Machine, step: Step) -> None:
    number = machine.any(step.a)
    name = (STRANGE_XATTRS if step.b % 12 == 0 else XATTRS)[step.b // 12 % len(STRANGE_XATTRS)]
    name = XATTRS[step.b % len(XATTRS)] if step.b % 12 else name
    value = xattr_value(machine, name, step)
    await machine.both(
        lambda: machine.model.set_xattr(number, name, value, WHO.gid),
        lambda: machine.fs.setxattr(machine.real[number], name, value, WHO),
    )


def xattr_value(machine: Machine, name: bytes, step: Step) -> bytes:
    if name == COMPRESSION:
        return [b"none", b"auto", b"zstd", b"odd"][step.c % 4]
    if name in (acl.ACCESS, acl.DEFAULT):
        perms = [step.d >> shift & 7 for shift in (0, 3, 6, 9, 12)]
        named = [Entry(2, perms[3], step.c % 5)] if step.c % 3 else []
        mask = [Entry(16, perms[4], 0xFFFFFFFF)] if named else []
        fixed = [Entry(tag, perm, 0xFFFFFFFF) for tag, perm in zip((1, 4, 32), perms, strict=False)]
        entries = [fixed[0], *named, fixed[1], *mask, fixed[2]]
        return (
            [b"", acl.encode([]), acl.encode(entries[1:])][step.c % 3]
            if step.c % 7 == 0
            else acl.encode(entries)
        )
    return bytes(
        step.c % 256 for _ in range(limits.XATTR_VALUE_BYTES_MAX + 1 if step.d % 50 == 0 else step.d % 200)
    )


async def removexattr(machine: Machine, step: Step) -> None:
    number, name = machine.any(step.a), XATTRS[step.b % len(XATTRS)]
    names = sorted(machine.model.nodes[number].xattrs)
    if names and step.c % 3:
        name = names[step.b % len(names)]
    await machine.both(
        lambda: machine.model.remove_xattr(number, name),
        lambda: machine.fs.removexattr(machine.real[number], name),
    )


STEPS: Steps = {
    "chmod": (3, chmod),
    "chown": (2, chown),
    "utimes": (2, utimes),
    "truncate": (6, truncate),
    "setxattr": (5, setxattr),
    "removexattr": (2, removexattr),
}
