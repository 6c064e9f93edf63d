"""The numbers of an `eigs` result that gates are usually set on, and what each means."""

MEANINGS = {
    "largest": "largest eigenvalue, the sharpness",
    "smallest": "smallest eigenvalue",
    "largest_step": "2 / largest eigenvalue: the limit of gradient descent's step",
    "gradient_norm": "Euclidean norm of the gradient",
    "gradient_curvature": "curvature along the gradient, g'Hg / g'g",
    "highest.0.eigenvalue": "eigenvalues of the upper end, ascending; highest.0.residual is |Hv - θv|",
    "lowest.0.eigenvalue": "those of the lower end, ascending",
    "inertia.negative": "how many eigenvalues are negative; null unless exact",
}
