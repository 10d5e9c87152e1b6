"""The tables, with the meaning of every column: unit, sentinels, invariant, and what repairs it after a crash.

Rules for every table, because the log of the store is made of SQLite session changesets:

- It has an explicit PRIMARY KEY without NULLs: sessions do not see tables or rows without one.
- The primary key is the only thing that is unique. A changeset is applied row by row in any order, and a
  second unique index could be violated half-way.
- No triggers, foreign keys, generated columns, AUTOINCREMENT or virtual tables: what they change is either
  not recorded or recorded and done twice. `integrity` checks the references instead.

A crash repairs nothing by itself and needs to repair nothing: a transaction holds whole operations of the
file system, and the database is always brought to the end of some transaction. Where a column below says that
something may be left over, that is a state with a name (an orphan, a dead stripe), and its owner finds it by
a partial index.
"""

from __future__ import annotations

from typing import Final

from ciaosfs.base import limits

APPLICATION_ID: Final = 0x43494153
"""ASCII "CIAS" in the database header, as file(1) shows it: protects against opening a foreign database."""

FORMAT: Final = 6
"""`user_version` of the database, raised when a table changes. A newer one is refused; 2 added `jobs`, 3 `images`,
4 `trims`, 5 `stripes.file_bytes`, 6 `users` and `tokens`."""

REBUILT_FORMATS: Final = (1, 2, 3, 4, 5)
"""Older ones: the database is rebuilt from the drives, whose log says it all, with the tables of today. From 3 on the log
may begin with an image, which has the tables of its day and gets what `ADDED` says."""

_STATE = """
-- One row: which commit of the drives' log this database is at. It changes in every transaction that is
-- committed, so it is part of every changeset, and database and log cannot disagree about where they are.
-- No row: nothing has been committed yet (sequence 0).
CREATE TABLE state (
    id              INTEGER PRIMARY KEY,  -- always 1
    store_id        BLOB    NOT NULL,     -- 16 bytes, the store this belongs to; never changes
    name_seed       INTEGER NOT NULL,     -- 63-bit secret of the cookie hash (see dentries); never changes
    sequence        INTEGER NOT NULL,     -- number of this commit, from 1, without gaps on a chain
    epoch           INTEGER NOT NULL,     -- rises with every opening of the store: decides between forks
    parent_id       INTEGER NOT NULL,     -- commit id of the commit before; 0 for the first
    time_ns         INTEGER NOT NULL,     -- when the cut was made, nanoseconds since the epoch
    log_volume_min  INTEGER NOT NULL      -- smallest volume id where commits after this one can be; 0: any
)
"""

_COUNTERS = """
-- Sums that would take a scan. Kept in memory, written when a changeset is taken, in the same transaction as
-- what they count. No row: 0. `counters.Counter` names them.
CREATE TABLE counters (
    counter  INTEGER PRIMARY KEY,
    value    INTEGER NOT NULL
)
"""

_INODES = """
-- One row per file, directory, symbolic link or device.
CREATE TABLE inodes (
    ino        INTEGER PRIMARY KEY,  -- 1 is the root; never used twice (counters hold the next one)
    mode       INTEGER NOT NULL,     -- st_mode, kind and permissions; the kind never changes
    nlink      INTEGER NOT NULL,     -- dentries to it; a directory: 2 + subdirectories, 0 once removed.
                                     -- 0: an orphan. It stays while it is open; purged at the next opening
    uid        INTEGER NOT NULL,
    gid        INTEGER NOT NULL,
    rdev       INTEGER NOT NULL,     -- device number of a device, else 0
    size       INTEGER NOT NULL,     -- bytes; of a symbolic link: of its target; of a directory: 0
    atime_ns   INTEGER NOT NULL,     -- nanoseconds since the epoch, may be negative
    mtime_ns   INTEGER NOT NULL,
    ctime_ns   INTEGER NOT NULL,
    btime_ns   INTEGER NOT NULL,     -- creation
    parent     INTEGER NOT NULL,     -- a directory: its parent, exactly (".."; the root: itself).
                                     -- anything else: a directory that has a name of it (without names:
                                     -- had the last one); 0: not known. A store older than format 6 may
                                     -- name a directory that has lost its name since
    flags      INTEGER NOT NULL,     -- inodes.FLAG_*
    allocated  INTEGER NOT NULL,     -- bytes covered by its extents; kept by extents.py alone
    target     BLOB                  -- what a symbolic link points to; NULL for everything else
)
"""

_INODES_ORPHANS = "CREATE INDEX inodes_orphans ON inodes(ino) WHERE nlink = 0"

_DENTRIES = """
-- One row per name in a directory. The key is made of the hash of the name and not of the name, so that every
-- entry has a number that stays the same as long as it exists: the offset a directory stream continues at
-- (telldir).
CREATE TABLE dentries (
    parent  INTEGER NOT NULL,  -- inode of the directory
    cookie  INTEGER NOT NULL,  -- hash of the name under state.name_seed with the low 4 bits free, plus a slot
                               -- 0..15 that tells names of one hash apart; 16 <= cookie < 2**62
    name    BLOB    NOT NULL,  -- 1..255 bytes without "/" and NUL; once per parent
    ino     INTEGER NOT NULL,
    PRIMARY KEY (parent, cookie)
) WITHOUT ROWID
"""

_EXTENTS = """
-- Which bytes of a file lie where. Extents of one file never overlap; what none covers is a hole (zeros).
CREATE TABLE extents (
    ino            INTEGER NOT NULL,
    offset         INTEGER NOT NULL,  -- first byte of the file it covers
    length         INTEGER NOT NULL,  -- bytes of the file, > 0
    stripe         INTEGER NOT NULL,
    stripe_offset  INTEGER NOT NULL,  -- where the stored block begins in the stripe's payload
    stored_length  INTEGER NOT NULL,  -- bytes of the stored block in the payload; RAW: = length
    codec          INTEGER NOT NULL,  -- base.types.Codec
    skip           INTEGER NOT NULL,  -- bytes of the decoded block before the first that is used; RAW: 0
    PRIMARY KEY (ino, offset)
) WITHOUT ROWID
"""

_TRIMS = """
-- One row per file that was cut short while it had too many extents to delete them in one step: those at and beyond
-- `size` are no part of it any more, and go slice by slice; the row goes with the last of them. While it is there the
-- file is not longer than `size`. After a crash the slices go on.
CREATE TABLE trims (
    ino   INTEGER PRIMARY KEY,
    size  INTEGER NOT NULL     -- bytes; an extent that begins before and reaches beyond is still to be cut there
)
"""

_EXTENTS_STRIPE = "CREATE INDEX extents_stripe ON extents(stripe)"

_STRIPES = """
-- One row per stripe on the drives that the tree knows of. Stripes written by a transaction that a crash
-- forgot have no row: their needles are dead space in their volumes.
CREATE TABLE stripes (
    stripe         INTEGER PRIMARY KEY,  -- id from base.clock.IdSource; names one content for ever
    kind           INTEGER NOT NULL,     -- base.types.StripeKind. An image that is not needed any more has its
                                         -- stripes made kind FILE: dead, and given back as such
    data_count     INTEGER NOT NULL,     -- k; 1 for a replicated stripe
    parity_count   INTEGER NOT NULL,     -- m
    payload_bytes  INTEGER NOT NULL,     -- length before padding
    shard_bytes    INTEGER NOT NULL,     -- length of each shard
    live_bytes     INTEGER NOT NULL,     -- sum of the lengths of its extents (bytes of files, not payload);
                                         -- 0 with kind FILE: dead, waits to be given back, found again after
                                         -- a crash
    missing        INTEGER NOT NULL,     -- k + m less its rows in shards; > 0: waits for repair
    file_bytes     INTEGER NOT NULL DEFAULT 0  -- bytes of files that were put into it, before compression;
                                         -- live_bytes / file_bytes of it is still used. 0: not known (before format 5)
)
"""

_STRIPES_DEAD = "CREATE INDEX stripes_dead ON stripes(stripe) WHERE live_bytes = 0 AND kind = 1"
_STRIPES_IMAGE = "CREATE INDEX stripes_image ON stripes(stripe) WHERE kind = 2"
_STRIPES_SMALL = (
    "CREATE INDEX stripes_small ON stripes(stripe)"
    f" WHERE payload_bytes <= {limits.SMALL_PAYLOAD_BYTES_MAX} AND kind = 1"
)
_STRIPES_MISSING = "CREATE INDEX stripes_missing ON stripes(missing) WHERE missing > 0"

_SHARDS = """
-- Where each shard of a stripe lies. A shard without a row is missing: never written, or found lost since.
CREATE TABLE shards (
    stripe       INTEGER NOT NULL,
    shard_index  INTEGER NOT NULL,  -- 0..k-1 data, k..k+m-1 parity
    volume       INTEGER NOT NULL,
    offset       INTEGER NOT NULL,  -- first byte of the needle's header in the volume
    PRIMARY KEY (stripe, shard_index)
) WITHOUT ROWID
"""

_SHARDS_VOLUME = "CREATE INDEX shards_volume ON shards(volume)"

_VOLUMES = """
-- The volumes of all drives. A volume made just before a crash may be on its drive without a row here.
CREATE TABLE volumes (
    volume  INTEGER PRIMARY KEY,  -- id from base.clock.IdSource
    drive   INTEGER NOT NULL,     -- number of the drive it lies on
    kind    INTEGER NOT NULL,     -- base.types.VolumeKind
    state   TEXT    NOT NULL      -- open, sealed, compacting, dead: volume.volume.VolumeState
)
"""

_DRIVES = """
-- The drives the store knows, by the number they have in its configuration. A number is never given twice. The
-- configuration goes before: fs/drivesync.py brings the rows in step with it when the store is opened.
CREATE TABLE drives (
    number    INTEGER PRIMARY KEY,
    uuid      BLOB    NOT NULL,  -- 16 bytes
    state     INTEGER NOT NULL,  -- volumes.DriveState
    added_ns  INTEGER NOT NULL   -- nanoseconds since the epoch
)
"""

_XATTRS = """
-- Extended attributes. An inode that has any has inodes.FLAG_XATTRS; the flag may outlive the last one.
CREATE TABLE xattrs (
    ino    INTEGER NOT NULL,
    name   BLOB    NOT NULL,  -- with its namespace: user.*, trusted.*, security.*, system.posix_acl_*
    value  BLOB    NOT NULL,  -- may be empty
    PRIMARY KEY (ino, name)
) WITHOUT ROWID
"""

_JOBS = """
-- Work in the background that outlives a restart, and the last of what is finished. Rows follow the memory of
-- jobs/runner.py within half a minute: after a crash a job repeats what it did since, which does no harm.
CREATE TABLE jobs (
    job         INTEGER PRIMARY KEY,  -- from 1, rising
    kind        TEXT    NOT NULL,     -- scrub, repair, drain
    arguments   TEXT    NOT NULL,     -- what was asked, a JSON object
    state       TEXT    NOT NULL,     -- waiting, running, paused, done, failed: jobs.job.JobState
    cursor      TEXT    NOT NULL,     -- where to go on; the kind knows how to read it, "" is the beginning
    done        INTEGER NOT NULL,     -- progress, in `unit`
    total       INTEGER NOT NULL,     -- what `done` grows to, an estimate; 0 while it is not known
    unit        TEXT    NOT NULL,     -- of done and total: bytes, stripes
    created_ns  INTEGER NOT NULL,     -- nanoseconds since the epoch
    updated_ns  INTEGER NOT NULL,
    message     TEXT    NOT NULL      -- a sentence: what it waits for, or how it ended
)
"""

_IMAGES = """
-- Images of the metadata that are kept on the drives: root and stripes are synced. A stripe of kind IMAGE in the
-- range of none of them is what is left of one that was never finished: it is let go at the next opening.
CREATE TABLE images (
    sequence        INTEGER PRIMARY KEY,  -- number of the commit it is an image of
    log_volume_min  INTEGER NOT NULL,     -- state.log_volume_min of that commit: log volumes below hold nothing
                                          -- that is needed after it
    first_stripe    INTEGER NOT NULL,     -- its stripes are those of kind IMAGE with ids from here ...
    last_stripe     INTEGER NOT NULL,     -- ... to here
    stored_bytes    INTEGER NOT NULL,     -- sum of their payloads
    created_ns      INTEGER NOT NULL      -- when its root was synced, nanoseconds since the epoch
)
"""

_USERS = """
-- Who may have tokens. A name is there once. access/authority.py alone changes users and tokens.
CREATE TABLE users (
    user        INTEGER PRIMARY KEY,  -- from 1
    name        TEXT    NOT NULL,     -- 1..64 letters, digits and any of . _ -
    folder      BLOB    NOT NULL,     -- where the keys of the user begin: a path from the root, "/" or "/a/b". The
                                      -- directory may be missing: it is made with the user, and anybody may rename it
    uid         INTEGER NOT NULL,     -- whom the folder was made for
    gid         INTEGER NOT NULL,
    created_ns  INTEGER NOT NULL      -- nanoseconds since the epoch
)
"""

_TOKENS = """
-- What was given to whom. Of the secret there is only a hash. A token that has expired or was revoked is remembered for a
-- while; those of a user who is removed go with the user.
CREATE TABLE tokens (
    token       INTEGER PRIMARY KEY,  -- never used twice (counters hold the next one): who is bound to one that has
                                      -- ended must not come to life again with another
    user        INTEGER NOT NULL,
    parent      INTEGER NOT NULL,     -- the token it was derived from, or made with; 0: the owner of the store made it
    hash        BLOB    NOT NULL,     -- SHA-256 of the secret's 32 random bytes
    name        TEXT    NOT NULL,     -- a label for people, may be empty
    scopes      INTEGER NOT NULL,     -- control.scopes.Scope; not more than those of its parent
    prefix      BLOB    NOT NULL,     -- what it is good for: a path from the root, inside the folder of the user, and
                                      -- inside the prefix of its parent
    created_ns  INTEGER NOT NULL,     -- nanoseconds since the epoch
    expires_ns  INTEGER NOT NULL,     -- 0: never; not later than its parent
    revoked_ns  INTEGER NOT NULL      -- 0: it was not. Whoever is revoked has all tokens below revoked in the same step
)
"""

_TOKENS_PARENT = "CREATE INDEX tokens_parent ON tokens(parent) WHERE parent > 0"

TABLES: Final = {
    "state": _STATE,
    "counters": _COUNTERS,
    "inodes": _INODES,
    "dentries": _DENTRIES,
    "extents": _EXTENTS,
    "trims": _TRIMS,
    "stripes": _STRIPES,
    "shards": _SHARDS,
    "volumes": _VOLUMES,
    "drives": _DRIVES,
    "xattrs": _XATTRS,
    "jobs": _JOBS,
    "images": _IMAGES,
    "users": _USERS,
    "tokens": _TOKENS,
}

INDEXES: Final = (
    _INODES_ORPHANS,
    _EXTENTS_STRIPE,
    _STRIPES_DEAD,
    _STRIPES_IMAGE,
    _STRIPES_MISSING,
    _STRIPES_SMALL,
    _SHARDS_VOLUME,
    _TOKENS_PARENT,
)

ADDED: Final[dict[int, tuple[str, ...]]] = {
    4: (TABLES["trims"],),
    5: ("ALTER TABLE stripes ADD COLUMN file_bytes INTEGER NOT NULL DEFAULT 0", _STRIPES_SMALL),
    6: (TABLES["users"], TABLES["tokens"], _TOKENS_PARENT),
}
"""How each format after the first with images is made of the one before: tables, empty at first, and columns with a
default, which come last because a changeset without them is then still one of the table."""
