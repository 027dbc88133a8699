"""Remedies for hidden gradients: surrogate networks with the same logits and a useful gradient."""
