"""The numbers of a `precondition` result that gates are usually set on, and what each means."""

MEANINGS = {
    "preconditioners.0.condition": "condition number without a preconditioner, damped",
    "preconditioners.1.condition": "with the diagonal of H; the others follow in the order of the table",
    "preconditioners.0.cg_iterations": "iterations of conjugate gradients without one",
    "preconditioners.0.effective_dimension": "about how many directions are curved",
    "resolved": "eigenpairs of H that were found",
}
