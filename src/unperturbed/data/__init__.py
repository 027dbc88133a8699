"""Data: splits of labelled examples by random access, and the places that they come from."""
