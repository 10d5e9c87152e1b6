"""Has the machine gone down since the store was last open? And where the files lie that tell, and the database.

What was written in this boot of the machine can be read in it, synced or not.
"""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
META_NAME = "meta"


def database_path(store: Path) -> Path:
    """The metadata database of the store in this directory."""
    return store / META_NAME / "meta.sqlite"


def boot_path(store: Path) -> Path:
    """Where the store notes the boot of the machine in which it was open."""
    return store / META_NAME / "boot-id"


def is_same_boot(boot: Path) -> bool:
    """Whether the note says this boot; False without one."""
    try:
        return boot.read_bytes() == _BOOT_ID.read_bytes()
    except FileNotFoundError:
        return False


def note_boot(boot: Path) -> None:
    """From here on what is written in this boot of the machine can be read in it: recovery has judged the rest."""
    boot.write_bytes(_BOOT_ID.read_bytes())
