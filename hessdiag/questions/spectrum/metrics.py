"""The numbers of a `spectrum` result that gates are usually set on, and what each means."""

MEANINGS = {
    "trace": "sum of the eigenvalues",
    "frobenius": "Frobenius norm",
    "highest": "largest eigenvalue",
    "lowest": "smallest eigenvalue",
    "negative_fraction": "share of negative eigenvalues",
    "negative_mass": "share of Σ|λ| that negative eigenvalues hold",
    "near_zero_fraction": "share of eigenvalues below 1 % of the largest",
    "condition": "largest |λ| over the smallest that is not zero; null unless exact",
    "inertia.negative": "how many eigenvalues are negative; null unless exact",
}
