"""`python -m ciaosfs`."""

from __future__ import annotations

from ciaosfs.cli.main import main

main()
