"""What the floor above knows of the kernel and this one needs: that it forgets what it has cached of a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

ForgetName: TypeAlias = Callable[[int, bytes, Sequence[int]], list[int]]
"""(directory, name, inodes) -> those of the inodes that the kernel does not know.

Blocks, and waits for requests in that directory to be answered: never in the loop. When it returns, the kernel asks
again for the name and for the attributes of the directory and the inodes, and whoever was looking the name up
meanwhile is done.
"""
