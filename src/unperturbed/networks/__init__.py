"""Wrappers, modes and checks of a user's network."""
