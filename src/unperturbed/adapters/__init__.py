"""Robust training in the loops of other libraries: Lightning, Hugging Face transformers and scikit-learn."""
