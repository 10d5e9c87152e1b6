"""Floor 5: POSIX semantics over the metadata and the chunk store, without any FUSE type.

`opening.open_store` brings a store to life; `filesystem.FileSystem` is the facade the edges use.
"""
