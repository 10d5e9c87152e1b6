"""Floor 1: what the daemon and its clients say to each other over the control socket."""
