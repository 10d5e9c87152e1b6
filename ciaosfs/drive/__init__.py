"""Floor 2: where bytes live: what a drive promises, a directory as a drive, threads for blocking calls."""
