"""Run folders and data in object stores: local copies of them, and the publication of their changes."""
