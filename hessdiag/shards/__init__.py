"""Models whose parameters are spread over processes: pieces, and the units that gather, compute and let go."""
