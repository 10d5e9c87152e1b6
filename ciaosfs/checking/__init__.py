"""Floor 6: proves a store consistent, mounted or not: metadata, every needle that is referred to, the commit log."""
