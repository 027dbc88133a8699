"""Audit checks: a function a file, of the same name, from a network under audit to a result.

A file also says how many passes through the network an example costs (`PASSES`); cheap checks come first.
"""
