"""Data sets by name: a file each, found by its name."""
