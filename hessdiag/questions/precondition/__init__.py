"""Which preconditioner is worth its memory here? Condition numbers, and what they mean for conjugate gradients."""
