"""Floor 7: commands that own a store while it is not mounted."""
