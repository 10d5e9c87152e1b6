"""Parts of `tools/bench_mount`: the targets, the timed phases and the report."""
