"""The inner maximisation: one ascent loop, and a step rule a file."""
