"""Floor 3: append-only volume files on drives: which exist, writing needles, verified reading, scanning
logs."""
