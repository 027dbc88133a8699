"""Sweeps: one run for each combination of values, with tables and pictures."""
