"""The numbers of a `trust-radius` result that gates are usually set on, and what each means."""

MEANINGS = {
    "trusted_radius.uniform": "rms of steps up to which the quadratic model tells the truth",
    "trusted_radius.rmsprop": "the same, of steps measured as RMSprop scales them",
    "missing_share": "share of the curvature along the step that kinks add to autograd's; null for a smooth network",
    "gates": "units with a kink, over all samples",
}
