"""The numbers of a `chain` result that gates are usually set on, and what each means."""

MEANINGS = {
    "theory_median_abs": "exact median of the output",
    "theory_rms": "its exact root mean square",
    "gradient.theory_median_abs": "exact median of a gradient entry",
    "median_abs": "measured median of the output",
    "critical_scale.median_at_length": "scale that keeps the median at this length",
    "inertia.definite.theory": "share of positive definite Hessians, exact",
}
