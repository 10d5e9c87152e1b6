"""What can be asked about objects; PROTOCOL.md has the arguments and the answers.

An object is done for its caller: with his uid, gid and groups, below the prefix of his token. A new content is kept
by the connection until it is committed, and given up with it; so are objects that are open, and listings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ciaosfs.base import limits
from ciaosfs.base.errors import UsageError
from ciaosfs.control.scopes import Scope
from ciaosfs.objects.credentials import Actor
from ciaosfs.objects.drafts import Draft, Published
from ciaosfs.objects.kept import Kept
from ciaosfs.objects.keys import Names, parse_key, parse_prefix
from ciaosfs.objects.listing import Listing
from ciaosfs.objects.reading import METADATA_PREFIX, OWN_PREFIX, Description, OpenObject
from ciaosfs.objects.store import ObjectStore, Place
from ciaosfs.objects.visits import Wish
from ciaosfsd.control.call import Answer, Call, Operation
from ciaosfsd.control.needs import OWNER, TOKEN, holder

READ, WRITE, DELETE = holder(Scope.READ), holder(Scope.WRITE), holder(Scope.DELETE)
LIST_KEYS = 1000
"""In a page, unless the client asks for another number."""


class ObjectHandlers:
    """The handlers of one mounted store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation("object-stat", READ, self.stat),
            Operation("object-open", READ, self.open),
            Operation("object-get", READ, self.get, gives_body=True),
            Operation("object-read", READ, self.read, gives_body=True),
            Operation("object-create", WRITE, self.create),
            Operation("object-write", WRITE, self.write, takes_body=True),
            Operation("object-commit", WRITE, self.commit),
            Operation("object-put", WRITE, self.put, takes_body=True),
            Operation("object-append", WRITE, self.append, takes_body=True),
            Operation("object-list", READ, self.list, gives_page=True),
            Operation("object-delete", DELETE, self.delete),
            Operation("object-rename", WRITE, self.rename),
            Operation("object-let-go", OWNER, self.let_go),
            Operation("close", TOKEN, self.close),
        )

    # Reading

    async def stat(self, call: Call) -> dict[str, Any]:
        """What is known of the object `key`; its file must be readable."""
        return _object(await self._store.stat(_place(call), _key(call)))

    async def open(self, call: Call) -> dict[str, Any]:
        """As `stat`; it is kept as it is under a handle, whatever happens to the key."""
        found, description = await self._store.open(_place(call), _key(call))
        return {**_object(description), "handle": await _keep(call, found)}

    async def get(self, call: Call) -> Answer:
        """As `open`, with the first `length` bytes. There is no handle when that is all of it."""
        length = _number(call, "length", limits.CONTROL_BODY_BYTES_MAX, default=limits.CONTROL_BODY_BYTES_MAX)
        found, description, body = await self._store.get(_place(call), _key(call), length)
        handle = None
        try:
            if found is not None and len(body) < description.size:
                handle = call.connection.keep(found)
        finally:
            if found is not None and handle is None:
                await found.close()
        return Answer({**_object(description), "handle": handle}, body)

    async def read(self, call: Call) -> Answer:
        """Up to `length` bytes at `offset` of what is open under `handle`; fewer only at its end."""
        found = call.connection.kept(call.arguments.get("handle"), OpenObject)
        offset = _number(call, "offset", limits.FILE_BYTES_MAX)
        length = _number(call, "length", limits.CONTROL_BODY_BYTES_MAX)
        return Answer({}, await found.read(offset, length))

    async def list(self, call: Call) -> dict[str, Any]:
        """A page of the keys that begin with `prefix` and are greater than `after`, or the page at `cursor`."""
        keys_max = _number(call, "limit", limits.OBJECT_LIST_KEYS_MAX, default=LIST_KEYS) or 1
        cursor = call.arguments.get("cursor")
        if cursor is None:
            folder, beginning = parse_prefix(call.arguments.get("prefix", ""))
            listing = self._store.list(
                _place(call), folder, beginning, _after(call), flat=_flag(call, "flat")
            )
            cursor = await _keep(call, listing)
        else:
            listing = call.connection.kept(cursor, Listing)
        is_over = True
        try:
            page = await listing.page(keys_max)
            is_over = page.is_last
        finally:
            if is_over:
                await call.connection.let_go(cursor, Listing)
        return {
            "keys": [listed.key for listed in page.keys],
            "kinds": {listed.key: listed.kind for listed in page.keys if listed.kind},
            "denied": [{"key": key, "message": message} for key, message in page.denied],
            "cursor": None if is_over else cursor,
        }

    # Writing

    async def create(self, call: Call) -> dict[str, Any]:
        """Begin a new content for `key`; nobody sees it before it is committed."""
        draft = await self._store.begin(_place(call), _key(call), _wish(call), _permissions(call))
        return {"handle": await _keep(call, draft)}

    async def write(self, call: Call) -> dict[str, Any]:
        """The next bytes of the new content under `handle`."""
        draft = call.connection.kept(call.arguments.get("handle"), Draft)
        size = await draft.write(call.body, begins_part=_flag(call, "part"), sizes=_sizes(call))
        return {"size": size}

    async def commit(self, call: Call) -> dict[str, Any]:
        """Let the key stand for the new content under `handle`, with `metadata`. The handle is gone, whatever comes
        of it."""
        handle = call.arguments.get("handle")
        draft = call.connection.kept(handle, Draft)
        try:
            return _published(await self._store.publish(draft, _metadata(call), sync=_flag(call, "sync")))
        finally:
            await call.connection.let_go(handle, Draft)

    async def put(self, call: Call) -> dict[str, Any]:
        """A small object at once: the body is its content."""
        sizes = _sizes(call)
        published = await self._store.put(
            _place(call),
            _key(call),
            _wish(call),
            _permissions(call),
            call.body,
            [len(call.body)] if sizes is None else sizes,
            _metadata(call),
            sync=_flag(call, "sync"),
        )
        return _published(published)

    async def append(self, call: Call) -> dict[str, Any]:
        """Add the body at the end of the object `key`, as one part or several."""
        sizes = _sizes(call)
        goes_on = sizes is None and not _flag(call, "part", default=True)
        if sizes is not None and sum(sizes) != len(call.body):
            raise UsageError(f"The sizes of the parts are together not the {len(call.body)} bytes that came.")
        appended = await self._store.append(
            _place(call),
            _key(call),
            call.body,
            [len(call.body)] if sizes is None else sizes,
            goes_on=goes_on,
            sync=_flag(call, "sync"),
            create=_flag(call, "create"),
        )
        return {"size": appended.size, "offset": appended.offset}

    async def delete(self, call: Call) -> dict[str, Any]:
        """Remove `key`."""
        await self._store.delete(_place(call), _key(call))
        return {}

    async def rename(self, call: Call) -> dict[str, Any]:
        """Let `new`, which nothing has yet, stand for the object `old`."""
        await self._store.rename(_place(call), _key(call, "old"), _key(call, "new"))
        return {}

    # What is kept

    async def close(self, call: Call) -> dict[str, Any]:
        """Let go of what is kept under `handle`: an open object, a new content, a listing."""
        await call.connection.let_go(call.arguments.get("handle"), Kept)
        return {}

    async def let_go(self, call: Call) -> dict[str, Any]:
        """Close what clients have open for reading, so that the mount is not in use for them."""
        await self._store.let_go()
        return {}


def _place(call: Call) -> Place:
    caller = call.caller
    actor = Actor(caller.uid, caller.gid, caller.groups)
    if caller.grant is None:
        return Place(actor)
    return Place(actor, caller.grant.folder, caller.grant.prefix)


async def _keep(call: Call, thing: Kept) -> int:
    try:
        return call.connection.keep(thing)
    except BaseException:
        await thing.close()
        raise


def _key(call: Call, name: str = "key") -> Names:
    return parse_key(call.arguments.get(name))


def _after(call: Call) -> bytes:
    after = call.arguments.get("after", "")
    if not isinstance(after, str):
        raise UsageError(f"{after!r} is no key to go on after: give text.")
    try:
        return after.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"The key {after!r} cannot be written as UTF-8.") from None


def _wish(call: Call) -> Wish:
    mode = call.arguments.get("mode", Wish.PUT)
    try:
        return Wish(mode)
    except ValueError:
        raise UsageError(f"The mode of a put is {', '.join(Wish)}, not {mode!r}.") from None


def _permissions(call: Call) -> int | None:
    if call.arguments.get("permissions") is None:
        return None
    return _number(call, "permissions", 0o777)


def _flag(call: Call, name: str, *, default: bool = False) -> bool:
    value = call.arguments.get(name, default)
    if not isinstance(value, bool):
        raise UsageError(f"The argument {name!r} is true or false, not {value!r}.")
    return value


def _number(call: Call, name: str, largest: int, *, default: int | None = None) -> int:
    value = call.arguments.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise UsageError(f"The argument {name!r} is a number from 0 to {largest}, not {value!r}.")
    return value


def _sizes(call: Call) -> Sequence[int] | None:
    sizes = call.arguments.get("parts")
    if sizes is None:
        return None
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise UsageError("The parts are a list of their sizes in bytes.")
    return sizes


def _metadata(call: Call) -> dict[bytes, bytes]:
    """As xattrs of the file."""
    metadata = call.arguments.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise UsageError("Metadata are names and values, both text.")
    values: dict[bytes, bytes] = {}
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise UsageError(f"The metadata {name!r} is no text.")
        try:
            key, content = (text.encode(errors="surrogateescape") for text in (name, value))
        except UnicodeEncodeError:
            raise UsageError(f"The metadata {name!r} cannot be written as UTF-8.") from None
        key = METADATA_PREFIX + key
        if not name or b"\0" in key or len(key) > limits.XATTR_NAME_BYTES_MAX or key.startswith(OWN_PREFIX):
            raise UsageError(
                f"{name!r} is no name for metadata: give up to 250 bytes, not beginning with 'ciaos.'."
            )
        values[key] = content
    return values


def _object(description: Description) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "size": description.size,
        "parts": description.parts,
        "mtime_ns": description.mtime_ns,
        "metadata": description.metadata,
    }
    if description.omitted:
        fields["omitted"] = description.omitted
    return fields


def _published(published: Published) -> dict[str, Any]:
    return {"size": published.size, "mtime_ns": published.mtime_ns, "replaced": published.replaced}
