"""`python -m ciaosfsd`."""

from __future__ import annotations

import sys

from ciaosfsd.main import main

sys.exit(main())
