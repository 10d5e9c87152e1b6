"""ciaosfs: the CIAOS key/value and object store for machine-learning work, as a file system."""

__version__ = "0.1.0"
