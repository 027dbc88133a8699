"""Studies: claims of papers as experiments, each decided by a rule that is fixed before it runs."""
