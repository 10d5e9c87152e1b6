"""How a token that speaks for somebody is told to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ciaosfs.base import clock
from ciaosfs.base.units import format_duration


def describe(fields: Mapping[str, Any]) -> str:
    """As "as ann with token 7: read, write below /ann, for 29 d" from what `login` and `whoami` answer."""
    end = fields["expires_ns"]
    left = f", for {format_duration(max(0.0, (end - clock.now_ns()) / 1e9))}" if end else ""
    return f"as {fields['user']} with token {fields['token']}: {', '.join(fields['scopes'])} below {fields['prefix']}{left}"
