"""Floor 0: types, errors, limits, clock, configuration and logging that every other floor may use."""
