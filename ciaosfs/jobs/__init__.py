"""Floor 6: long work in the background (scrub, repair, drain), and what runs, throttles and remembers it."""
