"""A session with one store's daemon: where it is, who speaks, and each call tried again where that does no harm."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from ciaosfs.base.errors import AccessError, CiaosError, DaemonError, StoreError, UnreachableError
from ciaosfs.client import locate
from ciaosfs.client.config import Settings
from ciaosfs.client.cutting import exposed
from ciaosfs.client.keys import check_prefix
from ciaosfs.client.pool import Pool
from ciaosfs.client.retry import Patience, may_try_again
from ciaosfs.client.secret import read_token_file
from ciaosfs.client.transport import Connection
from ciaosfs.client.wire import Wire

Result = TypeVar("Result")


def always() -> bool:
    """For what may be done twice."""
    return True


def never() -> bool:
    """For what may not."""
    return False


class Session:
    """Safe for many threads. Whoever makes it closes it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = Pool(self._connect, settings.timeout_s)
        self._was_answered = False

    @property
    def retry_s(self) -> float:
        """How long what may be tried again is tried again."""
        return self._settings.retry_s

    def carry_out(
        self, attempt: Callable[[Wire], Result], is_harmless: Callable[[], bool] = always
    ) -> Result:
        """What `attempt` returns. It is called again when that does no harm: `is_harmless` says, after one of which the end
        is not known, whether what it asked for may be asked for twice."""
        patience = Patience(self.retry_s)
        while True:
            try:
                with self._pool.lease() as wire, exposed(wire):
                    return attempt(wire)
            except CiaosError as error:
                if not may_try_again(error, is_harmless=is_harmless()):
                    raise
                patience.pause(error)

    def borrow(self) -> Wire:
        """A connection for a stream, to be given back. Raises OSError (EMFILE) when there are too many."""
        patience = Patience(self.retry_s)
        while True:
            try:
                return self._pool.borrow()
            except CiaosError as error:
                if not may_try_again(error, is_harmless=True):
                    raise
                patience.pause(error)

    def give_back(self, wire: Wire) -> None:
        """The end of a stream."""
        self._pool.give_back(wire)

    def full_key(self, key: str) -> str:
        """The key as the daemon is told it: an owner who speaks for a user begins at the root, and not in a folder."""
        return self._prefix + key

    def own_key(self, full: str) -> str:
        """The reverse of `full_key`."""
        return full.removeprefix(self._prefix)

    def close(self) -> None:
        """Nothing can begin any more; what is under way comes to its end."""
        self._pool.close()

    def __repr__(self) -> str:
        settings = self._settings
        where = settings.socket_path or settings.place or "the only mounted store"
        return f"<session with {where}{f' as {settings.user_id}' if settings.user_id else ''}>"

    @cached_property
    def _prefix(self) -> str:
        """Before each key: empty, unless the owner of the store speaks for a user without a token of that user."""
        user = self._settings.user_id
        if not user or self._settings.token or self._settings.token_file is not None:
            return ""
        check_prefix(f"{user}/")
        try:
            folder = self.carry_out(lambda wire: _folder_of(wire, user))
        except AccessError:  # no owner: the folder is that of the kernel session's token
            return ""
        return f"{folder.strip('/')}/".removeprefix("/")

    def _connect(self) -> Wire:
        try:
            wire = Wire(self._reach(), self._settings.timeout_s)
            try:
                self._introduce(wire)
            except BaseException:
                wire.close()
                raise
        except (StoreError, DaemonError) as error:
            if self._was_answered:  # it was there, so it may come back
                raise UnreachableError(error.message) from error
            if isinstance(error, UnreachableError):
                raise DaemonError(error.message) from error
            raise
        self._was_answered = True
        return wire

    def _reach(self) -> Connection:
        if self._settings.socket_path is not None:
            return Connection(self._settings.socket_path).__enter__()
        target, _ = locate.locate_mounted(self._settings.place)
        return locate.connect(target.store).__enter__()

    def _introduce(self, wire: Wire) -> None:
        """Give the token, if there is one."""
        token = self._settings.token
        if self._settings.token_file is not None:
            token = read_token_file(self._settings.token_file)
        if not token:
            return
        user = wire.call("auth", token=token)["user"]
        if self._settings.user_id not in ("", user):
            raise AccessError(
                f"The token is one of {user}, not of {self._settings.user_id}: give the user's own, or leave out the user."
            )


def _folder_of(wire: Wire, user: str) -> str:
    """The folder of a user; of one whom the store does not know the one that it would have."""
    after = 0
    while True:
        page = wire.call("user-list", after=after)
        for known in page["users"]:
            if known["name"] == user:
                return str(known["folder"])
        after = page["after"]
        if not after:
            return f"/{user}"
