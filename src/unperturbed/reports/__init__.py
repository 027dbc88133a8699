"""Reports: plain findings turned into what people look at; nothing here computes with a model."""
