"""Closed-form predictions for random networks and matrices, derived in docs/concepts/theory.md."""
