"""Floor 8: the `ciaosfs` command. One module a command; `output` prints, `main` translates errors."""
