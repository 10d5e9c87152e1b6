"""ciaosfs: the CIAOS key/value and object store for machine-learning work, as a file system.

    from ciaosfs import Ciaos, Config

The client is imported when one of its names is asked for, so that `import ciaosfs` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ciaosfs.base.errors import CiaosError as CiaosError
    from ciaosfs.client.aio import AsyncCiaos as AsyncCiaos
    from ciaosfs.client.ciaos import Ciaos as Ciaos
    from ciaosfs.client.config import Config as Config
    from ciaosfs.client.info import ObjectInfo as ObjectInfo

__version__ = "0.1.0"
__all__ = ["AsyncCiaos", "Ciaos", "CiaosError", "Config", "ObjectInfo"]

_MODULES = {
    "AsyncCiaos": "ciaosfs.client.aio",
    "Ciaos": "ciaosfs.client.ciaos",
    "CiaosError": "ciaosfs.base.errors",
    "Config": "ciaosfs.client.config",
    "ObjectInfo": "ciaosfs.client.info",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
