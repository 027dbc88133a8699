"""The sections of a report: a function from stored runs to a section each."""
