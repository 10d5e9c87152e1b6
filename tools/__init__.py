"""Programs for developers: benchmarks, exercisers, repository rules. Nothing here is installed."""
