"""The numbers of a `transfer` result that gates are usually set on, and what each means."""

MEANINGS = {
    "slopes.lambda_max_weighted.slope": "power of the width in the curvature that the optimizer sees",
    "slopes.lambda_max_weighted.stderr": "its standard error, over networks",
    "slopes.lambda_max.slope": "power of the width in the largest eigenvalue itself",
    "slopes.activation.slope": "power of the width in the change of inner layers' outputs after a few steps",
    "slopes.update.slope": "power of the width in the change of inner layers' weights",
}
