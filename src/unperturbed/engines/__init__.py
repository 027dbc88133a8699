"""Engines, which execute the units of a job."""
