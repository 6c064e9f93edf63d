"""Matrix-free numerics for any symmetric operator. Knows no model: an operator is whatever has `@`."""
