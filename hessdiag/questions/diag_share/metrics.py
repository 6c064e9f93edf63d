"""The numbers of a `diag-share` result that gates are usually set on, and what each means."""

MEANINGS = {
    "diag_share": "share of the Hessian's absolute mass on its diagonal",
    "diag_share_stderr": "its standard error; null if exact",
    "layer_block_share": "share inside the layers' own blocks",
    "layers.0.diag_share": "the same within the first layer's block; layers.1 is the second",
    "baselines.wigner": "share of a random symmetric matrix of this size, 1/d",
    "trace": "sum of the diagonal; null if rows were sampled",
    "negative_diagonal_fraction": "share of negative diagonal entries",
    "zero_rows": "share of rows that are zero",
}
