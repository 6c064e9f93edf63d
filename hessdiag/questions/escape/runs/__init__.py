"""One run of one optimizer: its steps, what they cost, and what is seen of the loss."""
