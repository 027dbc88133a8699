"""Reports: plain findings as pages, charts and text, without computations by a model."""
