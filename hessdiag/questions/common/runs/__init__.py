"""Long runs: what they will hold and take, how far they are, and what is kept of them."""
