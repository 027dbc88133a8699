"""Sweeps: a run for each combination of values, as tables and pictures."""
