"""Floor 4: stripes of k+m shards over the drives: layout, placement, writing, reading (degraded too), the
commit log."""
