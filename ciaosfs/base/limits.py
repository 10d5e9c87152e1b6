"""Every bound in one place: sizes in bytes, times in seconds, counts without unit. Relations are asserted at import."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# Chunk store
CHECK_BLOCK_BYTES = 16 * KIB
"""Unit of checksum inside a needle: a 4 KiB random read verifies 16 KiB, 0.4 us of xxh3."""
STRIPE_PAYLOAD_BYTES_MAX = 4 * MIB
"""Payload of a full stripe. With 4+2 a shard is then 1 MiB, the size of one FUSE write, so no byte is copied to cut it."""
READ_AHEAD_BYTES = 16 * MIB
"""Of one stream. In single runs cold reads came to 1,050 MiB/s with 6 MiB, 1,290 with 8, 1,350 with 12, 1,600 with 16."""
READ_AHEAD_ROOM_BYTES = 24 * MIB
"""Of all streams together, with what is being answered."""
HOT_PAYLOAD_BYTES_MAX = 128 * KIB
"""Leftovers up to this size are written as a replicated stripe into the log volumes: one sync for data and commit."""
SMALL_PAYLOAD_BYTES_MAX = 512 * KIB
"""Stripes up to this size are worth packing together: their needles have much head for little payload, and files that
grow by crumbs lie in many of them."""
PACK_HOT_BYTES = 1 * MIB
PACK_AGE_S = 10.0
"""Replicated stripes are packed when they are so much or so old: what is written again at once never comes so far."""
PACK_SMALL_BYTES = 2 * MIB
PACK_SMALL_COUNT = 64
"""Small coded stripes are packed when there are so many or so much of them: each byte is copied a few times at most."""
DEFRAGMENT_EXTENT_BYTES_MAX = 32 * KIB
DEFRAGMENT_EXTENTS_MIN = 64
DEFRAGMENT_AGE_S = 60.0
"""Neighbouring pieces of a file that are so small, so many and so old are copied into one stripe."""
NEEDLE_ALIGN = 64
NEEDLE_ALIGN_LARGE = 4 * KIB
"""Needles with at least NEEDLE_LARGE_BYTES of payload start and put their payload on this boundary: whole pages are
read, and whole pages are given back when a shard dies."""
NEEDLE_LARGE_BYTES = 64 * KIB
VOLUME_SUPERBLOCK_BYTES = 4 * KIB
VOLUME_DATA_BYTES_MAX = 1 * GIB
VOLUME_LOG_BYTES_MAX = 64 * MIB
NEEDLE_PAYLOAD_BYTES_MAX = 64 * MIB
WRITE_BEHIND_BYTES = 8 * MIB
"""How far behind the tail of a data volume pages stay in the page cache. The mount has its own cache of the files, and
a page that is recycled costs a twentieth of one that is new to a virtual machine: 140 MiB/s written became 400."""
SHARDS_MAX = 256
"""zfec works in GF(2^8)."""
DRIVES_MAX = 256
"""Drives of one store: their configuration and their status each fit in one message."""
DRIVE_LABEL_CHARACTERS_MAX = 64
COMPRESS_BLOCK_BYTES = 128 * KIB
COMPRESS_GAIN_MIN = 0.10
"""A block is kept compressed only when it shrinks by at least this share."""

# Commit
COMMIT_INTERVAL_S = 5.0
COMMIT_INTERVAL_S_MIN = 0.1
COMMIT_INTERVAL_S_MAX = 300.0
COMMIT_CHANGESET_BYTES = 512 * KIB
"""Of a changeset after which a commit starts early: 2000 new small files. Taking it then holds the loop for about 6 ms, 12
where all of it is renames, and ending SQLite's transaction for 1.5."""
TRUNCATE_EXTENTS_INLINE = 1024
"""Extents that a request deletes itself when it cuts a file short, in about 3 ms; more wait for the background."""
SLICE_EXTENTS = 64
"""Extents that are deleted in one step, in 0.3 ms, where there are more."""
LOG_RESERVE_BYTES = 16 * MIB
"""Held back on every drive so that deletes and commits still fit on a full store (less on tiny drives)."""

# Images of the metadata
IMAGE_PIECE_BYTES = 1 * MIB
"""Of the database, compressed as one: larger gains little, smaller pays for more tables."""
IMAGE_LOG_BYTES_MIN = 64 * MIB
"""Changesets after which an image is due, or as many as the last image has bytes if that is more: writing images costs
at most as much again as writing the log. 64 MiB is about half a million changed files."""
IMAGE_LOG_COMMITS_MIN = 32768
"""... or so many commits: applying one takes about 0.2 ms, so a rebuilt database waits some 7 s for them."""
IMAGE_LOG_BYTES_PER_COMMIT = 4 * KIB
"""... or the last image's bytes divided by this, if that is more: reading so many takes as long as applying one."""
IMAGES_KEPT = 2
"""The older one is for the day when the newer one cannot be read; with less the log may not be shortened."""

# Memory
DIRTY_BYTES_MAX = 64 * MIB
"""File data accepted but not yet on drives; writers wait above it."""
INFLIGHT_STRIPES_MAX = 6
FLUSH_AHEAD_BYTES = 48 * MIB
"""Pending bytes of many small files above which mixed stripes leave before the commit. Coding and writing beside requests
slows these by a fifth, so a burst is taken at full speed for a while: by turns, 3,000 files were made at 1.25 and 1.31 of
the benchmark's ceiling with 56 MiB, at 1.02 and 1.08 with 24; 12,000 files at 1.15 and 0.92 with this, at 1.02 and 0.97
with 24."""
SQLITE_CACHE_BYTES = 32 * MIB
NEEDLE_HEADS_CACHE_MAX = 8192
STRIPE_RECORDS_CACHE_MAX = 8192
LISTED_ROWS_CACHE_MAX = 32768
"""Rows of directory listings kept while nothing changes; about 500 bytes each."""
LISTINGS_AHEAD_MAX = 1024
"""Folders noted to be listed ahead; about 200 bytes each."""

# Namespace
NAME_BYTES_MAX = 255
LINK_MAX = 65000
SYMLINK_BYTES_MAX = 4095
XATTR_NAME_BYTES_MAX = 255
XATTR_VALUE_BYTES_MAX = 64 * KIB
FILE_BYTES_MAX = 1 << 62

# Jobs
JOB_SHARE = 0.25
"""Of the time, by default, that a job keeps the drives busy: requests hardly notice it."""
JOB_SHARE_MIN = 0.001
JOBS_RUNNING_MAX = 4
JOBS_UNFINISHED_MAX = 64
JOBS_FINISHED_MAX = 64
"""Remembered after their end, the newest."""
JOB_RETRY_S = 30.0
"""A job that met trouble with the drives tries again after this."""
REPAIR_SUSPECTS_MAX = 65536
"""Stripes with damage remembered at once; more are found again when they are read again."""
VERIFY_STEP_BYTES = 4 * MIB
SCRUB_PERIOD_DAYS = 7.0
SCRUB_PERIOD_DAYS_MAX = 3650.0
REPAIR_AFTER_S = 600.0
"""A drive that comes back within this (a cable, a reboot of its host) is not repaired around."""
REPAIR_AFTER_S_MAX = 30 * 86400.0

# Slow drives
DRIVE_DEADLINE_S = 15.0
"""A drive that does not answer a write, sync, look or read for so long is set aside. A disk that sleeps takes about ten
seconds to spin up, one that fights for a sector about seven."""
DRIVE_DEADLINE_S_MAX = 60.0
"""As long as this when the store could not write without the drive, or when more drives than parity replaces are silent
together: then it is rather the machine, or what they all hang on, and controllers need up to a minute to fail over."""
DRIVE_HANGING_S = 1.0
"""How long calls may still take on a drive that has let one pass the deadline and not answered since."""
DRIVE_READS_MAX = 6
"""Reads under way on one drive; more wait. One that hangs leaves most threads to the others."""
WRITE_OFF_S = 0.5
"""A thread in a drive for so long is not counted as one of the pool's any more, so another one may work in its place."""
READ_LATE_S_MIN = 0.005
"""No read is late before: threads take turns, and so do virtual machines."""
READ_LATE_S_MAX = 1.0
READ_LATE_S_FIRST = 0.1
"""For a drive of which nothing is known yet: longer than any disk that is awake and at leisure."""
HEDGE_SHARE_MAX = 0.1
HEDGES_BURST_MAX = 32
"""Reads of a late drive that are decoded from others besides: at most this share of all, and this many at a time. What
a single lagging drive needs is not counted: it is read round as soon as it is known."""

# Users and tokens
USERS_MAX = 10_000
TOKENS_MAX = 10_000
"""Tokens that are live at once; looking for those that expired takes the loop 0.5 ms then."""
TOKENS_BELOW_MAX = 1000
"""Of these, derived from one that the owner gave: nobody uses up what is there for all."""
TOKENS_ENDED_MAX = 10_000
TOKENS_ENDED_S = 30 * 86400.0
"""Tokens that have ended are remembered for so long, the newest of them."""
TOKEN_LIFE_S_MAX = 100 * 365 * 86400.0
"""Its end still fits into 63 bits of nanoseconds."""
ACCESS_NAME_CHARACTERS_MAX = 64
"""Of a user's name, and of a token's."""
ACCESS_PATH_BYTES_MAX = 1 * KIB
"""Of a user's folder and a token's prefix: CONTROL_PAGE_ITEMS of them fit into one answer, however they are escaped."""
SESSIONS_MAX = 4096
"""Kernel sessions that are logged in at once; each takes a descriptor."""
KNOWN_PLACES_MAX = 65536
"""Directories whose place is remembered, seen from all prefixes together."""
LEARNED_NAMES_MAX = 16384
"""Names remembered of files that have others elsewhere."""

# Edges
WORKER_THREADS_MAX = 16
CONTROL_MESSAGE_BYTES_MAX = 64 * KIB
CONTROL_REPLY_BYTES_MAX = 1 * MIB
"""The status of a store with SHARDS_MAX drives fits."""
CONTROL_CLIENTS_MAX = 512
CONTROL_CLIENTS_USER_MAX = 256
"""Of one user who is not the owner."""
CONTROL_CLIENTS_OWNER = 32
"""Kept free for the owner, whatever the others do."""
CONTROL_BODY_BYTES_MAX = 1 * MIB
"""Behind one message."""
CONTROL_BODIES_BYTES_MAX = 16 * MIB
"""Of all clients together; one more body may be on its way so that there is always one that goes on."""
CONTROL_BODIES_USER_BYTES_MAX = 8 * MIB
"""Of one user's clients together: who is slow with many slows down only his own."""
CONTROL_KEPT_MAX = 64
"""Things, such as open objects, that a connection keeps between its requests."""
CONTROL_KEPT_USER_MAX = 2048
CONTROL_KEPT_ALL_MAX = 4096
CONTROL_IDLE_S = 600.0
"""A client that is silent for so long and keeps nothing is let go."""
CONTROL_ARRIVAL_S = 30.0
"""A request that has begun to arrive, and a body, must be there within this."""
CONTROL_SEND_S = 30.0
"""A client that does not take its answer within this is let go."""
OBJECT_THREADS_MAX = 16
"""Threads that act for clients on the mount; further operations wait for one of them."""
OBJECT_LISTED_NAMES_MAX = 32768
"""Names one listing keeps; a folder with more is looked through again for the next ones."""
OBJECT_LISTED_NAMES_MIN = 1024
OBJECT_LISTED_NAMES_ALL_MAX = 131072
"""... all listings together, beyond which each keeps no more than the least; about 120 bytes each."""
OBJECT_LISTINGS_MAX = 128
OBJECT_LIST_KEYS_MAX = 10_000
OBJECT_LIST_BYTES_MAX = 512 * KIB
"""Of the keys of one page, as they stand in the answer."""
OBJECT_LIST_WORK_MAX = 50_000
"""Names looked at for one page, in about 0.1 s; entering a folder counts as many as OBJECT_LIST_FOLDER_WORK."""
OBJECT_LIST_FOLDER_WORK = 50
KEY_BYTES_MAX = 4096
"""As PATH_MAX."""
PARTS_MAX = 10_000
"""Blobs of one object: their sizes are kept in an xattr, and go in one message."""
CHECK_PROBLEMS_MAX = 1000
"""Sentences that a check keeps and sends (all are counted): far below CONTROL_REPLY_BYTES_MAX."""
CHECK_BAD_SHARDS_MAX = 200_000
"""Damaged shards a check remembers to find the stripes that are lost with them."""
CONTROL_PAGE_ITEMS = 100
"""Sentences or files in one part of an answer."""
DAMAGED_BATCH_FILES = 20_000
"""Files whose paths are looked up at once, by one look at every name."""
LOG_FILE_BYTES_MAX = 4 * MIB
LOG_FILES_MAX = 3
"""The daemon's log and its rotated predecessors."""

# Clients
CLIENT_TIMEOUT_S = 60.0
"""How long a client waits for each answer: longer than a write waits for room or a drive that hangs."""
CLIENT_RETRY_S = 10.0
"""How long a client tries again what may be tried again: a daemon is unmounted and mounted anew within that."""
CLIENT_RETRY_PAUSE_S = 0.02
CLIENT_RETRY_PAUSE_S_MAX = 1.0
CLIENT_PATIENCE_S_MAX = 86400.0
CLIENT_CONFIG_BYTES_MAX = 64 * KIB
CLIENT_CALLS_MAX = 8
"""Calls of one session under way at once, each on its own connection; others wait for one of them."""
CLIENT_STREAMS_MAX = 32
"""Objects that one session keeps open, each on its own connection."""
CLIENT_WINDOW_PIECES = 4
"""Pieces of CONTROL_BODY_BYTES_MAX that are under way at once for one object."""
CLIENT_KEYS_PAGE = 1000

assert STRIPE_PAYLOAD_BYTES_MAX % CHECK_BLOCK_BYTES == 0
assert COMPRESS_BLOCK_BYTES % CHECK_BLOCK_BYTES == 0
assert HOT_PAYLOAD_BYTES_MAX <= SMALL_PAYLOAD_BYTES_MAX < PACK_SMALL_BYTES <= STRIPE_PAYLOAD_BYTES_MAX
assert NEEDLE_ALIGN_LARGE % NEEDLE_ALIGN == 0 and VOLUME_SUPERBLOCK_BYTES % NEEDLE_ALIGN_LARGE == 0
assert INFLIGHT_STRIPES_MAX * STRIPE_PAYLOAD_BYTES_MAX <= DIRTY_BYTES_MAX
assert FLUSH_AHEAD_BYTES < DIRTY_BYTES_MAX  # stripes leave before writers wait
assert VOLUME_LOG_BYTES_MAX < VOLUME_DATA_BYTES_MAX
assert 2 * IMAGE_PIECE_BYTES <= STRIPE_PAYLOAD_BYTES_MAX  # one fits, with its table, if nothing can be gained
assert IMAGES_KEPT >= 2
assert SHARDS_MAX <= DRIVES_MAX
assert TOKENS_BELOW_MAX < TOKENS_MAX
assert 8 * ACCESS_PATH_BYTES_MAX * CONTROL_PAGE_ITEMS <= CONTROL_REPLY_BYTES_MAX
assert COMMIT_INTERVAL_S_MIN <= COMMIT_INTERVAL_S <= COMMIT_INTERVAL_S_MAX
assert DRIVE_HANGING_S < DRIVE_DEADLINE_S < DRIVE_DEADLINE_S_MAX
assert READ_LATE_S_MIN < READ_LATE_S_FIRST < READ_LATE_S_MAX < DRIVE_DEADLINE_S
assert 2 * DRIVE_READS_MAX < WORKER_THREADS_MAX
assert CONTROL_CLIENTS_USER_MAX + CONTROL_CLIENTS_OWNER < CONTROL_CLIENTS_MAX
assert CONTROL_BODY_BYTES_MAX < CONTROL_BODIES_USER_BYTES_MAX < CONTROL_BODIES_BYTES_MAX
assert CONTROL_KEPT_MAX < CONTROL_KEPT_USER_MAX < CONTROL_KEPT_ALL_MAX
