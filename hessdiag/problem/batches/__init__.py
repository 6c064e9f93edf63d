"""Batches of data: where they come from, how they are cut, what they hold."""
