"""Engines: where the units of a job are executed."""
