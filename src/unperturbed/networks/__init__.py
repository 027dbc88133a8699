"""What is done to a user's network, and undone."""
