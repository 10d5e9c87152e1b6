"""Floor 6: objects under keys, for the control socket. A key is a path below a folder of the mount.

What is asked is done on the daemon's own mount, in threads that take over the caller's ids, so the kernel decides
what is allowed and everybody sees the same at once (`agent`, `visits`). New contents are written to files without a
name (`drafts`). `store.ObjectStore` is the facade.
"""
