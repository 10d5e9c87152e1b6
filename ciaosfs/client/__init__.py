"""Floor 2: how another process finds a store's daemon and talks to it. Needs only base and control."""
