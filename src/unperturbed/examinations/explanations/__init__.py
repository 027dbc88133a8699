"""Audits: examinations of a trained model that say whether its robustness is what it looks like."""
