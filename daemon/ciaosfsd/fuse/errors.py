"""The one translation from our errors to what pyfuse3 answers, applied to every handler in one place.

An exception other than FUSEError in a handler would end the whole mount. `guarded` builds what pyfuse3 is given
from an object of handlers, plain or async: each becomes an async function with one try around it. Handlers and
the floors below raise FsError, CiaosError or OSError; a bug becomes EIO for that request and a traceback in the
log. trio.Cancelled passes through.
"""

from __future__ import annotations

import errno
import inspect
import logging
from collections.abc import Callable
from typing import Any

import pyfuse3

from ciaosfs.base.errors import CiaosError, DamagedError
from ciaosfs.base.log import RateLimit

log = logging.getLogger(__name__)

_limit = RateLimit(burst=10, interval_s=60.0)


def failure(code: int) -> pyfuse3.FUSEError:
    """A fresh answer with errno `code`. Not kept for reuse: a raised exception pins its frames and their buffers."""
    return pyfuse3.FUSEError(code)


def translate(error: Exception, handler: str) -> pyfuse3.FUSEError:
    """What to answer for `error`; logs what is not the caller's own mistake."""
    if isinstance(error, pyfuse3.FUSEError):
        return error
    if isinstance(error, CiaosError):
        if isinstance(error, DamagedError) and _limit.allows(handler):
            log.error("%s: %s", handler, error)
        return failure(error.errno)
    if isinstance(error, OSError) and error.errno:
        if _limit.allows(handler):
            log.warning("%s: %s", handler, error)
        return failure(error.errno)
    if _limit.allows(handler):
        log.error("%s failed; the request gets an error", handler, exc_info=error)
    return failure(errno.ENOMEM if isinstance(error, MemoryError) else errno.EIO)


_GUARD = """
async def {name}({parameters}):
    try:
        return {wait} handler({parameters})
    except Exception as error:
        raise translate(error, {name!r}) from None
"""

_QUIET = """
async def {name}({parameters}):
    try:
        {wait} handler({parameters})
    except Exception as error:
        translate(error, {name!r})
"""
"""For `forget`, which answers nobody and may raise nothing, not even FUSEError."""


def guarded(handlers: object) -> pyfuse3.Operations:
    """What pyfuse3 is given: the public methods of `handlers` under guard, and its public settings.

    What `handlers` does not have is answered ENOSYS by pyfuse3.Operations.
    """
    operations = pyfuse3.Operations()
    for name in vars(type(handlers)):
        if not name.startswith("_"):
            assert hasattr(operations, name), f"pyfuse3 calls nothing by the name {name}"
            member = getattr(handlers, name)
            setattr(operations, name, _wrap(name, member) if callable(member) else member)
    return operations


def _wrap(name: str, handler: Callable[..., Any]) -> Callable[..., Any]:
    # Generated, so that a request pays for one coroutine and its plain arguments: 0.1 us instead of 0.5.
    source = (_QUIET if name == "forget" else _GUARD).format(
        name=name,
        parameters=", ".join(inspect.signature(handler).parameters),
        wait="await" if inspect.iscoroutinefunction(handler) else "",
    )
    namespace: dict[str, Any] = {"handler": handler, "translate": translate}
    exec(compile(source, f"<guard of {name}>", "exec"), namespace)
    wrapped: Callable[..., Any] = namespace[name]
    return wrapped
