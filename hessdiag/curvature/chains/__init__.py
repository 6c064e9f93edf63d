"""Models that are simple enough to be differentiated by hand."""
