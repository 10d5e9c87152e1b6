"""Floor 1: pure transforms of bytes: checksums, compression, erasure coding, the records of a volume."""
