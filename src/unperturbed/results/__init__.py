"""Results of run folders, read back and put together in reports."""
