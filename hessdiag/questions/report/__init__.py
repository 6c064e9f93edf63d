"""What is there to know about this model? Every question that applies to it, under one budget of time."""
