"""Floor 7: the daemon process that owns one mounted store."""

from __future__ import annotations
