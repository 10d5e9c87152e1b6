"""What may be wrong with a machine or a store before anybody has lost an hour to it, and how to mend it."""
