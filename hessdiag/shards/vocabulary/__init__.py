"""Embeddings and heads whose weight no process ever holds whole, differentiable twice."""
