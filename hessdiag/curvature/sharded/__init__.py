"""Second derivatives of sharded problems: their checks, and matrices of the loss seen through the output."""
