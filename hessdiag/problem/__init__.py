"""What is measured: a model, batches of data and an objective, loaded safely."""
