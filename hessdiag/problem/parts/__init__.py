"""Which entries of the parameter vector belong together: neurons, attention heads, classes, rows of embeddings."""
