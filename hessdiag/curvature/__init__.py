"""The Hessian of a `Problem`: as an operator, as a dense matrix, by rows and by blocks."""
