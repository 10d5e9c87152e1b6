"""Prints any structure of a store, also of one that is damaged or mounted: reads only, and takes no lock.

Each question has a module; all answer with plain values (`Facts`), and what cannot be read becomes a fact, too.
"""
