"""What the daemon counts of its own work, and how others get to see it."""
