"""Training methods, a file a method."""
