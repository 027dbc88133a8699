"""What is learnt about a network, and done to it for a while."""
