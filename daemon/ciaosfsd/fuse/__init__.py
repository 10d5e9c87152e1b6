"""The FUSE edge: the only place that knows pyfuse3."""

from __future__ import annotations
