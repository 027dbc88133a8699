"""Data: splits of labelled examples by random access, and their sources."""
