"""Attacks: a maximiser, a loss, and a status per example."""
