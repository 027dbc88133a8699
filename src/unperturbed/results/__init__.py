"""Results of run folders, and reports on them."""
