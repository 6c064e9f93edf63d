"""The numbers of a `sharpness` result that gates are usually set on, and what each means."""

MEANINGS = {
    "ratio": "curvature that the optimizer sees, over what it can take; 1 at the edge of stability",
    "largest_lr": "learning rate at which that would be 1",
    "readings.0.value": "largest eigenvalue",
    "noise_scale": "samples of a batch at which gradient noise costs as much as curvature along the mean gradient",
}
