"""Run folders on the Hugging Face hub: which files are shared, how they go there and come back."""
