"""Floor 3: the metadata of a store in SQLite, the only door to apsw and the only SQL.

`metadata.Metadata` is the facade: one database and one object per table family. Everything is synchronous and
called in the loop, in one open transaction, except where a docstring says "in a worker thread". The drives
hold the truth; what is here is their index: every transaction's changes leave as a changeset for the commit
log (`commitlog`).
"""
