"""Where a token comes from."""

from __future__ import annotations

from pathlib import Path


def read_token_file(path: Path) -> str:
    return path.read_text().strip()
