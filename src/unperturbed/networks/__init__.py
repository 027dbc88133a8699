"""Checks of a network, and temporary changes to it."""
