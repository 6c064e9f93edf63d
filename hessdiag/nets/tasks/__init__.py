"""Training tasks of the papers: a model, the data that it is trained on, and how optimizers are compared on it."""
