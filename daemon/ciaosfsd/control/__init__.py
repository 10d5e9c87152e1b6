"""The control socket's server, and what it can do."""

from __future__ import annotations
