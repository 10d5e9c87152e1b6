"""Does the metadata agree with itself? Every invariant of schema.py that SQL can see, as a sentence if broken.

Reads the last commit, in a worker thread; takes some ten seconds per million files. Sentences name the thing by
its number, since a broken tree may have no path to it. What is no damage is not reported: orphans (nlink 0)
and dead stripes wait for their turn, missing shards wait for repair.

Each check is one query that returns what is wrong and nothing else, and the format of the sentence about one
row; those of users and tokens are in `integrity_access`, and what takes more than a query in `integrity_rows`. Two
invariants never report the same cause: an extent whose inode is gone says just that, and not that a sum is off as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from ciaosfs.base import limits
from ciaosfs.meta import integrity_access, integrity_rows
from ciaosfs.meta.counters import Counter
from ciaosfs.meta.inodes import FLAG_ACL_ACCESS, FLAG_ACL_DEFAULT, FLAG_XATTRS, ROOT_INO
from ciaosfs.meta.reader import Reader


class _Check(NamedTuple):
    sentence: str
    query: str


_IS_DIRECTORY: Final = "(mode & 61440) = 16384"  # S_IFMT, S_IFDIR
_IS_FILE: Final = "(mode & 61440) = 32768"
_IS_LINK: Final = "(mode & 61440) = 40960"
_KINDS: Final = "(4096, 8192, 16384, 24576, 32768, 40960, 49152)"  # S_IFIFO to S_IFSOCK
_IS_DEAD: Final = "stripes.live_bytes = 0 AND stripes.kind = 1"

_STATE: Final = (
    _Check(
        "The database does not say clearly which commit it is at: row {0} of its state, commit {1}.",
        "SELECT id, sequence FROM state WHERE id <> 1 OR sequence < 1 OR length(store_id) <> 16",
    ),
)

_NAMESPACE: Final = (
    _Check(
        "The root directory is missing.",
        f"SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM inodes WHERE ino = {ROOT_INO} AND {_IS_DIRECTORY})"
        " AND EXISTS (SELECT 1 FROM state)",
    ),
    _Check(
        "Name {1!r} in directory {0} stands for inode {2}, which does not exist.",
        "SELECT parent, name, ino FROM dentries WHERE ino NOT IN (SELECT ino FROM inodes)",
    ),
    _Check(
        "Name {1!r} is in directory {0}, which does not exist.",
        "SELECT parent, name FROM dentries WHERE parent NOT IN (SELECT ino FROM inodes)",
    ),
    _Check(
        "Name {1!r} is in inode {0}, which is no directory.",
        "SELECT dentries.parent, dentries.name FROM dentries JOIN inodes ON inodes.ino = dentries.parent"
        f" WHERE NOT {_IS_DIRECTORY}",
    ),
    _Check(
        "Name {1!r} is in directory {0}, which was removed.",
        "SELECT dentries.parent, dentries.name FROM dentries JOIN inodes ON inodes.ino = dentries.parent"
        f" WHERE {_IS_DIRECTORY} AND inodes.nlink = 0",
    ),
    _Check(
        "Name {1!r} is {2} times in directory {0}.",
        "SELECT parent, name, count(*) FROM dentries GROUP BY parent, name HAVING count(*) > 1",
    ),
    _Check(
        "Name {1!r} in directory {0} cannot be a name.",
        f"SELECT parent, name FROM dentries WHERE length(name) NOT BETWEEN 1 AND {limits.NAME_BYTES_MAX}"
        " OR instr(name, x'2f') OR instr(name, x'00') OR name IN (x'2e', x'2e2e')",
    ),
    _Check(
        "Inode {0} counts {1} links and has {2} names.",
        "SELECT inodes.ino, nlink, count(dentries.ino) FROM inodes LEFT JOIN dentries ON dentries.ino = inodes.ino"
        f" WHERE NOT {_IS_DIRECTORY} GROUP BY inodes.ino HAVING nlink <> count(dentries.ino)",
    ),
    _Check(
        "Directory {0} counts {1} links and has {2} subdirectories.",
        f"WITH directories AS (SELECT ino, nlink FROM inodes WHERE {_IS_DIRECTORY} AND nlink <> 0)"
        " SELECT directories.ino, directories.nlink, ifnull(subdirectories, 0) FROM directories LEFT JOIN"
        " (SELECT dentries.parent, count(*) AS subdirectories FROM dentries"
        f" JOIN inodes ON inodes.ino = dentries.ino WHERE {_IS_DIRECTORY} GROUP BY dentries.parent) AS below"
        " ON below.parent = directories.ino WHERE directories.nlink <> 2 + ifnull(subdirectories, 0)",
    ),
    _Check(
        "Directory {0} has {1} names.",
        "SELECT inodes.ino, count(dentries.ino) FROM inodes LEFT JOIN dentries ON dentries.ino = inodes.ino"
        f" WHERE {_IS_DIRECTORY} GROUP BY inodes.ino"
        f" HAVING count(dentries.ino) <> (inodes.nlink <> 0 AND inodes.ino <> {ROOT_INO})",
    ),
    _Check(
        "Directory {0} takes {1} for its parent and is in {2}.",
        "SELECT inodes.ino, inodes.parent, dentries.parent FROM dentries"
        f" JOIN inodes ON inodes.ino = dentries.ino WHERE {_IS_DIRECTORY} AND inodes.parent <> dentries.parent",
    ),
    _Check(
        "The root directory takes {0} for its parent.",
        f"SELECT parent FROM inodes WHERE ino = {ROOT_INO} AND parent <> {ROOT_INO}",
    ),
    # Files are reached when their directories are; a directory without a name is reported above. What is left
    # are directories that contain each other in a circle.
    _Check(
        "Directory {0} cannot be reached from the root.",
        f"WITH RECURSIVE reached(ino) AS (SELECT {ROOT_INO} UNION SELECT inodes.ino FROM reached"
        " JOIN dentries ON dentries.parent = reached.ino JOIN inodes ON inodes.ino = dentries.ino"
        f" WHERE {_IS_DIRECTORY})"
        f" SELECT DISTINCT inodes.ino FROM inodes JOIN dentries ON dentries.ino = inodes.ino"
        f" WHERE {_IS_DIRECTORY} AND inodes.ino NOT IN (SELECT ino FROM reached)"
        " AND dentries.parent IN (SELECT ino FROM inodes)",
    ),
)

_INODES: Final = (
    _Check(
        "Inode {0} is of the impossible kind {1:o}.",
        f"SELECT ino, mode FROM inodes WHERE (mode & 61440) NOT IN {_KINDS}",
    ),
    _Check(
        "Inode {0} has impossible numbers.",
        "SELECT ino FROM inodes WHERE ino < 1 OR nlink < 0 OR size < 0 OR allocated < 0"
        f" OR {_IS_DIRECTORY} AND size <> 0",
    ),
    _Check(
        "Inode {0} is a symbolic link of {1} bytes and has a target of {2}.",
        f"SELECT ino, size, ifnull(length(target), 0) FROM inodes WHERE {_IS_LINK}"
        " AND ifnull(length(target), 0) <> size",
    ),
    _Check(
        "Inode {0} has a target and is no symbolic link.",
        f"SELECT ino FROM inodes WHERE target IS NOT NULL AND NOT {_IS_LINK}",
    ),
    _Check(
        "Attribute {1!r} belongs to inode {0}, which does not exist.",
        "SELECT ino, name FROM xattrs WHERE ino NOT IN (SELECT ino FROM inodes)",
    ),
    _Check(
        "Attribute {1!r} of inode {0} is longer than an attribute can be.",
        f"SELECT ino, name FROM xattrs WHERE length(name) NOT BETWEEN 1 AND {limits.XATTR_NAME_BYTES_MAX}"
        f" OR length(value) > {limits.XATTR_VALUE_BYTES_MAX}",
    ),
    _Check(
        "Inode {0} has attribute {1!r} and its flags do not say so.",
        "SELECT xattrs.ino, xattrs.name FROM xattrs JOIN inodes ON inodes.ino = xattrs.ino"
        f" WHERE flags & {FLAG_XATTRS} = 0"
        f" OR xattrs.name = CAST('system.posix_acl_access' AS BLOB) AND flags & {FLAG_ACL_ACCESS} = 0"
        f" OR xattrs.name = CAST('system.posix_acl_default' AS BLOB) AND flags & {FLAG_ACL_DEFAULT} = 0",
    ),
)

_EXTENTS: Final = (
    _Check(
        "The extent at {1} belongs to inode {0}, which does not exist.",
        "SELECT ino, offset FROM extents WHERE ino NOT IN (SELECT ino FROM inodes)",
    ),
    _Check(
        "The extent at {1} belongs to inode {0}, which is no file.",
        "SELECT extents.ino, offset FROM extents JOIN inodes ON inodes.ino = extents.ino"
        f" WHERE NOT {_IS_FILE}",
    ),
    _Check(
        "The extent of inode {0} at {1} has impossible numbers.",
        "SELECT ino, offset FROM extents WHERE offset < 0 OR length <= 0 OR skip < 0 OR stripe_offset < 0"
        " OR stored_length <= 0 OR codec NOT IN (0, 1) OR codec = 0 AND (skip <> 0 OR stored_length <> length)"
        f" OR codec = 1 AND skip + length > {limits.COMPRESS_BLOCK_BYTES}",
    ),
    _Check(
        "The extent of inode {0} at {1} overlaps the next.",
        "SELECT ino, offset FROM (SELECT ino, offset, length,"
        " lead(offset) OVER (PARTITION BY ino ORDER BY offset) AS next FROM extents)"
        " WHERE offset + length > next",
    ),
    _Check(
        "The extent of inode {0} at {1} reaches beyond the end of the file, {2}.",
        # What lies beyond the size of a trim waits to be deleted.
        "SELECT extents.ino, offset, inodes.size FROM extents JOIN inodes ON inodes.ino = extents.ino"
        " LEFT JOIN trims ON trims.ino = extents.ino WHERE nlink > 0 AND (trims.size IS NULL OR offset < trims.size)"
        f" AND min(offset + length, ifnull(trims.size, offset + length)) > inodes.size AND {_IS_FILE}",
    ),
    _Check(
        "Inode {0}, of which extents wait to be deleted, does not exist.",
        "SELECT ino FROM trims WHERE ino NOT IN (SELECT ino FROM inodes)",
    ),
    _Check(
        "Inode {0}, of which extents wait to be deleted, is no file.",
        f"SELECT trims.ino FROM trims JOIN inodes ON inodes.ino = trims.ino WHERE NOT {_IS_FILE}",
    ),
    _Check(
        "Inode {0} is {1} bytes long, and its extents from {2} on wait to be deleted.",
        "SELECT trims.ino, inodes.size, trims.size FROM trims JOIN inodes ON inodes.ino = trims.ino"
        f" WHERE inodes.size > trims.size AND {_IS_FILE}",
    ),
    _Check(
        "The extent of inode {0} at {1} lies in stripe {2}, which does not exist.",
        "SELECT ino, offset, stripe FROM extents WHERE stripe NOT IN (SELECT stripe FROM stripes)",
    ),
    _Check(
        "The extent of inode {0} at {1} reaches beyond the end of stripe {2}.",
        "SELECT ino, offset, extents.stripe FROM extents JOIN stripes ON stripes.stripe = extents.stripe"
        " WHERE stripe_offset + stored_length > payload_bytes",
    ),
    _Check(
        "Inode {0} counts {1} allocated bytes and its extents have {2}.",
        "SELECT inodes.ino, allocated, ifnull(bytes, 0) FROM inodes LEFT JOIN"
        " (SELECT ino, sum(length) AS bytes FROM extents GROUP BY ino) AS sums ON sums.ino = inodes.ino"
        " WHERE allocated <> ifnull(bytes, 0)",
    ),
    _Check(
        "Stripe {0} counts {1} live bytes and its extents have {2}.",
        "SELECT stripes.stripe, live_bytes, ifnull(bytes, 0) FROM stripes LEFT JOIN"
        " (SELECT stripe, sum(length) AS bytes FROM extents GROUP BY stripe) AS sums"
        " ON sums.stripe = stripes.stripe WHERE live_bytes <> ifnull(bytes, 0)",
    ),
)

_STRIPES: Final = (
    _Check(
        "Stripe {0} has impossible numbers.",
        "SELECT stripe FROM stripes WHERE data_count < 1 OR parity_count < 0 OR kind NOT IN (1, 2)"
        " OR shard_bytes * data_count < payload_bytes OR payload_bytes < 0"
        f" OR data_count + parity_count > {limits.SHARDS_MAX}",
    ),
    _Check(
        "Shard {1} belongs to stripe {0}, which does not exist.",
        "SELECT stripe, shard_index FROM shards WHERE stripe NOT IN (SELECT stripe FROM stripes)",
    ),
    _Check(
        "Stripe {0} has a shard {1}, outside its counts.",
        "SELECT shards.stripe, shard_index FROM shards JOIN stripes ON stripes.stripe = shards.stripe"
        " WHERE shard_index NOT BETWEEN 0 AND data_count + parity_count - 1",
    ),
    _Check(
        "Stripe {0} counts {1} missing shards and misses {2}.",
        "SELECT stripes.stripe, missing, data_count + parity_count - ifnull(there, 0) FROM stripes LEFT JOIN"
        " (SELECT stripe, count(*) AS there FROM shards GROUP BY stripe) AS sums"
        " ON sums.stripe = stripes.stripe WHERE missing <> data_count + parity_count - ifnull(there, 0)",
    ),
    _Check(
        "Shard {1} of stripe {0} lies in volume {2:016x}, which does not exist.",
        "SELECT stripe, shard_index, volume FROM shards WHERE volume NOT IN (SELECT volume FROM volumes)",
    ),
    _Check(
        "Shard {1} of stripe {0} lies in volume {2:016x}, which is dead.",
        "SELECT stripe, shard_index, shards.volume FROM shards JOIN volumes ON volumes.volume = shards.volume"
        " WHERE state = 'dead'",
    ),
    _Check(
        "Shard {1} of stripe {0} begins at byte {2} of a volume, where no needle can begin.",
        "SELECT stripe, shard_index, offset FROM shards"
        f" WHERE offset < {limits.VOLUME_SUPERBLOCK_BYTES} OR offset % {limits.NEEDLE_ALIGN} <> 0",
    ),
    _Check(
        "Stripe {0} has {2} shards on drive {1}.",
        "SELECT shards.stripe, drive, count(*) FROM shards JOIN volumes ON volumes.volume = shards.volume"
        " JOIN stripes ON stripes.stripe = shards.stripe"
        f" WHERE NOT ({_IS_DEAD}) GROUP BY shards.stripe, drive HAVING count(*) > 1",
    ),
)

_DRIVES: Final = (
    _Check(
        "Volume {0:016x} is of the unknown kind {1} or state {2!r}.",
        "SELECT volume, kind, state FROM volumes"
        " WHERE kind NOT IN (1, 2) OR state NOT IN ('open', 'sealed', 'compacting', 'dead')",
    ),
    _Check(
        "Volume {0:016x} is on drive {1}, which does not exist.",
        "SELECT volume, drive FROM volumes WHERE drive NOT IN (SELECT number FROM drives)"
        " AND state <> 'dead' AND EXISTS (SELECT 1 FROM drives)",
    ),
    _Check(
        "Drive {0} has an impossible identity or state.",
        "SELECT number FROM drives WHERE number < 0 OR length(uuid) <> 16 OR state NOT IN (1, 2)",
    ),
    _Check(
        "Drives {0} and {1} have one identity.",
        "SELECT min(number), max(number) FROM drives GROUP BY uuid HAVING count(*) > 1",
    ),
)

_IMAGES: Final = (
    _Check(
        "The image of commit {0} is of {1} bytes, and its stripes have {2}.",
        "SELECT sequence, stored_bytes, ifnull((SELECT sum(payload_bytes) FROM stripes WHERE kind = 2"
        " AND stripe BETWEEN first_stripe AND last_stripe), 0) AS there FROM images WHERE there <> stored_bytes",
    ),
    _Check(
        "The images of commits {0} and {1} share stripes.",
        "SELECT one.sequence, two.sequence FROM images AS one JOIN images AS two ON one.sequence < two.sequence"
        " AND one.first_stripe <= two.last_stripe AND two.first_stripe <= one.last_stripe",
    ),
    _Check(
        "There is an image of commit {0}, and the database is at commit {1}.",
        "SELECT images.sequence, state.sequence FROM images JOIN state ON images.sequence > state.sequence",
    ),
)

_COUNTED: Final = {
    Counter.FILES: f"SELECT count(*) FROM inodes WHERE {_IS_FILE}",
    Counter.DIRECTORIES: f"SELECT count(*) FROM inodes WHERE {_IS_DIRECTORY}",
    Counter.OTHERS: f"SELECT count(*) FROM inodes WHERE NOT ({_IS_FILE} OR {_IS_DIRECTORY})",
    Counter.ALLOCATED_BYTES: "SELECT ifnull(sum(allocated), 0) FROM inodes",
    Counter.STRIPES: "SELECT count(*) FROM stripes",
    Counter.PAYLOAD_BYTES: "SELECT ifnull(sum(payload_bytes), 0) FROM stripes",
    Counter.IMAGE_BYTES: "SELECT ifnull(sum(payload_bytes), 0) FROM stripes WHERE kind = 2",
    Counter.FILE_BYTES: "SELECT ifnull(sum(file_bytes), 0) FROM stripes",
}

_COUNTERS: Final = (
    *(
        _Check(
            f"The counter of {counter.name.lower().replace('_', ' ')} says {{0}} and there are {{1}}.",
            "SELECT counted, there FROM (SELECT"
            f" ifnull((SELECT value FROM counters WHERE counter = {counter.value}), 0) AS counted,"
            f" ({query}) AS there) WHERE counted <> there",
        )
        for counter, query in _COUNTED.items()
    ),
    _Check(
        "The next inode number would be {0} and inode {1} exists.",
        "SELECT next, highest FROM (SELECT ifnull((SELECT value FROM counters"
        f" WHERE counter = {Counter.NEXT_INO.value}), {ROOT_INO + 1}) AS next,"
        " (SELECT max(ino) FROM inodes) AS highest) WHERE next <= highest",
    ),
)

_ACCESS: Final = tuple(_Check._make(check) for check in integrity_access.CHECKS)

CHECKS: Final = (
    *_STATE,
    *_NAMESPACE,
    *_INODES,
    *_EXTENTS,
    *_STRIPES,
    *_DRIVES,
    *_IMAGES,
    *_ACCESS,
    *_COUNTERS,
)


def check(reader: Reader) -> Iterator[str]:
    """A sentence for each broken invariant, as they are found; nothing for sound metadata.

    LogDamagedError when SQLite's structures are so damaged that a query fails: look at `quick_check` first.
    """
    for step in steps():
        yield from step(reader)


def steps() -> list[Callable[[Reader], Iterator[str]]]:
    """The parts of `check`, for who wants to show how far it is."""
    return [*(partial(_broken, one) for one in CHECKS), *integrity_rows.CHECKS]


def _broken(one: _Check, reader: Reader) -> Iterator[str]:
    for row in reader.rows(one.query):
        yield one.sentence.format(*row)
