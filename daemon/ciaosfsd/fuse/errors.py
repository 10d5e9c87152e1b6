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
from ciaosfsd.metrics.requests import Requests, Tally

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
    tally.count = number = tally.count + 1
    if number < tally.due:
        try:
            result = {wait} handler({parameters})
        except Exception as error:
            raise refused(tally, error) from None
        {note}
        return result
    sample, pid, carried = begin(tally), {pid}, 0
    try:
        result = {wait} handler({parameters})
        {note}
        carried = {carried}
    except Exception as error:
        raise refused(tally, error) from None
    finally:
        end(tally, sample, pid, carried)
    return result
"""
"""Both branches do the same; the second one is for samples (see `metrics/requests.py`)."""

_QUIET = """
async def {name}({parameters}):
    tally.count += 1
    try:
        {wait} handler({parameters})
    except Exception as error:
        translate(error, {name!r})
"""
"""For `forget`, which answers nobody and may raise nothing, not even FUSEError."""

_CARRIED = {"read": "len(result)", "write": "result"}
"""Bytes of file content in a request or its answer."""
_BY_HANDLE = ("read", "write", "fsync", "release")
"""Requests that name a file handle and no process."""
_NOTED = {
    "open": "openers[result.fh] = ctx.pid",
    "create": "openers[result[0].fh] = ctx.pid",
    "release": "openers.pop(fh, 0)",
    **{name: f"tally.bytes += {carried}" for name, carried in _CARRIED.items()},
}


def guarded(handlers: object, requests: Requests | None = None) -> pyfuse3.Operations:
    """What pyfuse3 is given: the public methods of `handlers` under guard, and its public settings.

    What `handlers` does not have is answered ENOSYS by pyfuse3.Operations. `requests` counts what is called.
    """
    requests = Requests() if requests is None else requests
    operations = pyfuse3.Operations()
    for name in dir(type(handlers)):
        if not name.startswith("_"):
            assert hasattr(operations, name), f"pyfuse3 calls nothing by the name {name}"
            member = getattr(handlers, name)
            setattr(operations, name, _wrap(name, member, requests) if callable(member) else member)
    return operations


def _wrap(name: str, handler: Callable[..., Any], requests: Requests) -> Callable[..., Any]:
    # Generated, so that a request pays for one coroutine and its plain arguments: 0.1 us instead of 0.5.
    parameters = list(inspect.signature(handler).parameters)
    source = (_QUIET if name == "forget" else _GUARD).format(
        name=name,
        parameters=", ".join(parameters),
        wait="await" if inspect.iscoroutinefunction(handler) else "",
        note=_NOTED.get(name, ""),
        carried=_CARRIED.get(name, "0"),
        pid="ctx.pid" if "ctx" in parameters else "openers.get(fh, 0)" if name in _BY_HANDLE else "0",
    )
    namespace: dict[str, Any] = {
        "handler": handler,
        "translate": translate,
        "refused": _refused,
        "tally": requests.tally(name),
        "begin": requests.begin,
        "end": requests.end,
        "openers": requests.openers,
    }
    exec(compile(source, f"<guard of {name}>", "exec"), namespace)
    wrapped: Callable[..., Any] = namespace[name]
    return wrapped


def _refused(tally: Tally, error: Exception) -> pyfuse3.FUSEError:
    answer = translate(error, tally.name)
    tally.failed(answer.errno)
    return answer
