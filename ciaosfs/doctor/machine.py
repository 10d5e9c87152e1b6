"""The machine: FUSE, the kernel, limits, memory, libraries. Nothing here needs a store."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ciaosfs.base import limits
from ciaosfs.base.units import format_bytes
from ciaosfs.doctor.finding import Finding, attempt, ok, problem, warning

DESCRIPTORS_MIN, DESCRIPTORS_GOOD = 512, 4096
"""A volume in use takes one, and so does a client; hundreds of clients are allowed for."""
MEMORY_MIN_BYTES, MEMORY_GOOD_BYTES = 192 * limits.MIB, 384 * limits.MIB
"""A busy daemon was measured at 196 MiB."""
_OPENAT2 = 437
_REQUIREMENT = re.compile(r"([\w.-]+)\s*>=\s*([\d.]+)$")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where things are on this one."""

    fuse_device: Path = Path("/dev/fuse")
    fuse_config: Path = Path("/etc/fuse.conf")
    meminfo: Path = Path("/proc/meminfo")
    is_root: bool = False

    @classmethod
    def here(cls) -> Machine:
        return cls(is_root=os.geteuid() == 0)


def check_machine(machine: Machine) -> Iterator[Finding]:
    yield check_fuse_device(machine.fuse_device)
    yield check_fusermount(os.environ.get("PATH", os.defpath), is_root=machine.is_root)
    yield check_other_users(machine.fuse_config, is_root=machine.is_root)
    yield check_descriptors()
    yield check_kernel()
    yield attempt("memory", check_memory, machine.meminfo)
    yield check_libraries()


def check_fuse_device(path: Path) -> Finding:
    name = "fuse"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return problem(
            name,
            f"{path} does not exist.",
            "Load the kernel's module with 'modprobe fuse'; a container needs it passed in.",
        )
    except PermissionError:
        return problem(
            name, f"{path} may not be opened.", f"Let everybody: 'chmod 666 {path}', as udev does."
        )
    except OSError as error:
        return problem(
            name,
            f"{path} cannot be opened: {error.strerror}.",
            "Load the kernel's module with 'modprobe fuse'.",
        )
    return ok(name, f"{path} can be opened.")


def check_fusermount(path: str, *, is_root: bool) -> Finding:
    """`path` is where programs are looked for."""
    name = "fusermount3"
    program = shutil.which("fusermount3", path=path)
    if program is None:
        if is_root:
            return ok(name, "It is missing, and root mounts without it.")
        return problem(name, "It is missing: a user cannot mount.", "Install the package fuse3.")
    found = Path(program).stat()
    if not is_root and not (found.st_mode & stat.S_ISUID and found.st_uid == 0):
        return problem(
            name, f"{program} does not run as root: a user cannot mount.", "Install the package fuse3 again."
        )
    return ok(name, f"{program} is there.")


def check_other_users(config: Path, *, is_root: bool) -> Finding:
    name = "other users"
    if is_root:
        return ok(name, "What root mounts can be used by everybody whom the permissions let.")
    try:
        lines = config.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if any(line.strip() == "user_allow_other" for line in lines):
        return ok(
            name, f"{config} has user_allow_other; what you mount is still for you and what you run alone."
        )
    return ok(name, "What you mount is for you and what you run alone; root mounts for everybody.")


def check_descriptors() -> Finding:
    """The daemon takes all that is allowed."""
    name = "descriptors"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= DESCRIPTORS_GOOD:
        return ok(name, f"A process may have {'any number of' if hard < 0 else hard} files open.")
    found = problem if hard < DESCRIPTORS_MIN else warning
    return found(
        name,
        f"A process may have only {hard} files open.",
        f"Allow {DESCRIPTORS_GOOD} or more: 'ulimit -Hn', LimitNOFILE= of the service, /etc/security/limits.conf.",
    )


def check_kernel() -> Finding:
    """By trying what is used, not by the version: distributions carry things back."""
    name = "kernel"
    missing = [
        what for what, is_there in (("openat2", _has_openat2()), ("pidfd", _has_pidfd())) if not is_there
    ]
    release = os.uname().release
    if missing:
        return problem(
            name,
            f"Linux {release} lacks {' and '.join(missing)}, which keys and logins need.",
            "Use Linux 5.6 or newer, or let the container make these system calls.",
        )
    return ok(name, f"Linux {release} has openat2 and pidfd.")


def _has_openat2() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, 0)
    descriptor = libc.syscall(_OPENAT2, -100, b"/", ctypes.byref(how), ctypes.sizeof(how))
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


def _has_pidfd() -> bool:
    try:
        descriptor = os.pidfd_open(os.getpid())
    except OSError:
        return False
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def check_memory(meminfo: Path) -> Finding:
    name = "memory"
    available = 1024 * next(
        int(line.split()[1]) for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")
    )
    if available >= MEMORY_GOOD_BYTES:
        return ok(name, f"{format_bytes(available)} are available.")
    found = problem if available < MEMORY_MIN_BYTES else warning
    return found(
        name,
        f"Only {format_bytes(available)} are available, and a busy daemon takes {format_bytes(MEMORY_MIN_BYTES)}.",
        "Free some, or add swap: a daemon that is killed for memory loses up to 5 s of what was not synced.",
    )


def check_libraries() -> Finding:
    """Against what the installed package says it needs."""
    installed = {}
    try:
        requirements = metadata.requires("ciaosfs") or []
    except metadata.PackageNotFoundError:
        return ok(
            "libraries", f"Python {sys.version.split()[0]}; ciaosfs runs from a directory, not as a package."
        )
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement.partition(";")[0].strip())
        if found is not None and "extra" not in requirement:
            installed[found[1]] = (_version(found[1]), found[2])
    return compare_libraries(installed)


def compare_libraries(installed: Mapping[str, tuple[str | None, str]]) -> Finding:
    """By library: what is installed, if it is, and the oldest version that will do."""
    name = "libraries"
    wrong = [
        f"{library} {version or 'is missing'} ({wanted} or newer is needed)"
        for library, (version, wanted) in installed.items()
        if version is None or _parts(version) < _parts(wanted)
    ]
    if wrong:
        return problem(
            name, f"{', '.join(wrong)}.", "Install ciaosfs again: 'pip install --upgrade ciaosfs'."
        )
    versions = [f"{library} {version}" for library, (version, _) in installed.items()]
    return ok(name, f"Python {sys.version.split()[0]}, {', '.join(versions)}.")


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
