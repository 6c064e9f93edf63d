"""The numbers of a `blocks` result that gates are usually set on, and what each means."""

MEANINGS = {
    "norm": "Frobenius norm of the Hessian",
    "gauss_newton_norm": "of its Gauss-Newton part",
    "residual_norm": "of what Gauss-Newton leaves out",
    "between_layers": "share of |H|² between different layers",
    "residual_share": "share of the residual in |G|² + |R|²",
    "frobenius.0.1": "norm of one block: here of the first and the second layer",
    "trace.0": "trace of the first layer's own block",
    "eigenvalue_bounds.1": "upper bound of the eigenvalues, from block norms alone",
    "frobenius_share": "with --by: share of |H|² inside blocks",
    "absolute_share": "share of the sum of |H_ij| inside blocks",
    "relative_error": "of the block diagonal, in the Frobenius norm",
    "lambda_max.hessian": "largest eigenvalue of the Hessian",
    "lambda_max.blocks": "and of its block diagonal",
    "lambda_min.hessian": "smallest eigenvalue of the Hessian",
    "lambda_min.blocks": "and of its block diagonal",
    "top_cosine": "between the top eigenvectors of both",
    "heterogeneity": "mean Jensen-Shannon distance between the blocks' spectra",
}
