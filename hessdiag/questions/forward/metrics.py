"""The numbers of a `forward` result that gates are usually set on, and what each means."""

MEANINGS = {
    "inits.0.log_median_per_layer": "log of the median norm ratio, per layer, of the first initialization",
    "inits.0.median": "median norm ratio after the last layer",
    "inits.0.rms": "root mean square of the same",
    "inits.0.layers.0.median": "median after the first layer",
    "inits.0.layers.0.dead_fraction": "share of networks that are dead by then",
}
