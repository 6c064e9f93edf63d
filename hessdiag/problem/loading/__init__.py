"""From what a command line says to model, batches and loss that fit each other."""
