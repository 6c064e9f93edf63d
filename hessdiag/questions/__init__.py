"""The questions that can be asked: one package each, and the registry that lists them."""
