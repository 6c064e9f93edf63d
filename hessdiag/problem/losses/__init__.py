"""Losses: named, the user's own, and those that models compute themselves."""
