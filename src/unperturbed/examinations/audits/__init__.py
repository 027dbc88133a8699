"""Audit checks, one per file: a function of the file's name, from a network under audit to a result.

A file also has the number of passes per example (`PASSES`); cheap checks come first.
"""
