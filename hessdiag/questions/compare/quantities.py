"""Which numbers of each question are compared, where their errors stand beside them, and which way is better.

The first of a question that is an estimate is tested at nearly the full level, the others share the rest: so the order
counts. What is a setting, an error itself, or the same number on another scale is not here.
"""

from dataclasses import dataclass
from typing import Literal

# How a number is known:
# "exact"       to rounding, from weights and data alone
# "error"       its standard error and 95 % interval stand beside it; null where it is exact, or where it is not known
# "relative"    the same, of a positive number, where the logarithm is what is normal
# "eigenvalue"  to its residual where it converged; else it is a bound
# "radius"      certainly within what stands beside it as its error
# "bounds"      certainly within the interval beside it
# "share"       of so many independent networks or runs
# "told"        as "exact" where the method is exact; else with no error: shown, and never called different
How = Literal["exact", "error", "relative", "eigenvalue", "radius", "bounds", "share", "told"]
Better = Literal["less", "more", "near zero"]


@dataclass(frozen=True)
class Quantity:
    """One number that is compared.

    Attributes:
        path: Into the result; `*` is each entry of a list, -1 its last.
        name: In words.
        how: It is known.
        better: Which way is, where that can be said whatever the network.
        key: By which key the entries of the list are told; they are told by `names` of the result where it is empty.
        error: Path of the standard error, where it is not `_stderr` behind the own; `interval` likewise.
        interval: Its two ends, or where the paths of the ends are two, both.
        of: Path of a count: networks or runs of a share, or one more than the degrees of freedom of an error.
        widened: Path of a count n: error and interval are wider by Student's t of n - 1 degrees of freedom already.
        flag: Path of a word or a truth value that makes it a bound.
        scale: Paths of numbers whose largest magnitude rounding is relative to, besides its own.
        unit: A magnitude likewise: 1 for shares, which are differences of larger numbers.
        known: Whether it is exact where neither error nor interval stands beside it, whatever the method.
    """

    path: str
    name: str
    how: How = "error"
    better: Better | None = None
    key: str = "name"
    error: str = ""
    interval: tuple[str, ...] = ()
    of: str = ""
    widened: str = ""
    flag: str = ""
    scale: tuple[str, ...] = ()
    unit: float = 0.0
    known: bool = False


def _ends(low: str, high: str, names: tuple[str, str]) -> tuple[Quantity, Quantity]:
    """Largest and smallest eigenvalue."""
    return (
        Quantity(high, names[0], "eigenvalue", flag=f"{high}_is_bound", scale=(low,)),
        Quantity(low, names[1], "eigenvalue", flag=f"{low}_is_bound", scale=(high,)),
    )


ENDS = ("largest eigenvalue", "smallest eigenvalue")
CHECK = (
    Quantity("confidence", "confidence of the first cause", "exact", "less"),
    Quantity("output.loss", "loss", "exact", "less"),
    Quantity("step.update_ratio", "first step over the weights", "exact"),
)
DIAG_SHARE = (
    Quantity("diag_share", "diagonal share", known=True),
    Quantity("layer_block_share", "share of the layers' own blocks", known=True),
    Quantity("trace", "trace", "exact", scale=("abs_diag_sum",)),
    Quantity("negative_diagonal_fraction", "negative share of the diagonal", "told"),
    Quantity("zero_rows", "share of zero rows", "told"),
    Quantity("layers.*.diag_share", "diagonal share of {}", known=True),
)
EIGS = (
    *_ends("smallest", "largest", ENDS),
    Quantity("largest_step", "largest stable step", "eigenvalue", flag="largest_step_is_bound"),
    Quantity("gradient_norm", "gradient norm", "exact"),
    Quantity("gradient_curvature", "curvature along the gradient", "exact", scale=("smallest", "largest")),
    Quantity("inertia.negative", "negative eigenvalues", "exact"),
)
SPECTRUM = (
    Quantity("trace", "trace", scale=("frobenius",)),
    Quantity("frobenius", "Frobenius norm"),
    *_ends("lowest", "highest", ENDS),
    Quantity("negative_fraction", "share of negative eigenvalues", "bounds"),
    Quantity("negative_mass", "negative share of Σ|λ|", unit=1.0),
    Quantity("near_zero_fraction", "share of eigenvalues near zero", "bounds"),
    Quantity("condition", "condition number", "told"),
    Quantity("inertia.negative", "negative eigenvalues", "exact"),
)
BOUNDS = (
    Quantity("measured.1", ENDS[0], "eigenvalue", error="measured_residuals.1", flag="measured_converged.1"),
    Quantity("measured.0", ENDS[1], "eigenvalue", error="measured_residuals.0", flag="measured_converged.0"),
    Quantity("gershgorin.1", "upper end of Gershgorin's discs", "told"),
    Quantity("gershgorin.0", "lower end of Gershgorin's discs", "told"),
    Quantity("perron.1", "upper end after diagonal scaling", "told"),
    Quantity("inner.0", "an eigenvalue is at or below", "told"),
)
BLOCKS = (
    Quantity("norm", "Frobenius norm", widened="probes"),
    Quantity("between_layers", "share of |H|² between layers", widened="probes", unit=1.0),
    Quantity("residual_share", "share of the residual", widened="probes", unit=1.0),
    Quantity("gauss_newton_norm", "norm of the Gauss-Newton part", widened="probes", scale=("norm",)),
    Quantity("residual_norm", "norm of the residual", widened="probes", scale=("norm",)),
    Quantity("eigenvalue_bounds.1", "upper bound from block norms", "told"),
    Quantity(
        "trace.*",
        "trace of {}",
        key="",
        error="trace_stderr.*",
        interval=("trace_interval.0.*", "trace_interval.1.*"),
        scale=("norm",),
    ),
)
BLOCKS_BY = (
    Quantity("frobenius_share", "share of |H|² inside blocks", widened="probes", unit=1.0),
    Quantity("absolute_share", "absolute share inside blocks", unit=1.0),
    Quantity("relative_error", "error of the block diagonal", widened="probes", unit=1.0),
    Quantity("heterogeneity", "heterogeneity of the blocks", widened="probes", unit=1.0),
    *_ends("lambda_min.hessian", "lambda_max.hessian", ENDS),
    *_ends(
        "lambda_min.blocks",
        "lambda_max.blocks",
        ("largest eigenvalue of the blocks", "smallest eigenvalue of the blocks"),
    ),
    Quantity("top_cosine", "cosine of the top eigenvectors", "told"),
)
PRECONDITION = (
    Quantity("preconditioners.*.condition", "condition number, {}", "bounds", "less"),
    Quantity("preconditioners.*.effective_dimension", "effective dimension, {}"),
    Quantity("preconditioners.*.cg_iterations", "CG iterations, {}", "told", "less"),
    Quantity("resolved", "eigenpairs found", "told"),
)
TRUST_RADIUS = (
    Quantity("trusted_radius.uniform", "trusted radius", "exact", "more"),
    Quantity("trusted_radius.rmsprop", "trusted radius in RMSprop's metric", "exact", "more"),
    Quantity("missing_share", "curvature that kinks add", "exact", unit=1.0),
    Quantity("gates", "units with a kink", "exact"),
)
SHARPNESS = (
    Quantity("noise_scale", "gradient noise scale", of="noise.pieces"),
    Quantity("ratio", "curvature over the threshold", "radius"),
    Quantity("largest_lr", "largest stable learning rate", "radius"),
    Quantity(
        "readings.*.value", "{} sharpness", "radius", key="kind", error="readings.*.stderr", flag="readings.*.bound"
    ),
)
FORWARD = (
    Quantity("inits.*.log_median_per_layer", "log median per layer, {}", better="near zero", key="init"),
    Quantity("inits.*.rms", "root mean square, {}", key="init"),
    Quantity("inits.*.layers.-1.dead_fraction", "dead networks, {}", "share", "less", key="init", of="inits.*.seeds"),
)
NETWORKS = "depths.-1.{}.networks"


def _at_depths(norm: str, name: str) -> Quantity:
    """The median of a norm at each depth."""
    home = f"depths.*.{norm}"
    return Quantity(
        f"{home}.median",
        f"{name} at depth {{}}",
        "relative",
        key="depth",
        error=f"{home}.log_median_stderr",
        of=f"{home}.networks",
    )


VANISHING = (
    Quantity(
        "rates.gradient.per_layer",
        "log gradient norm per layer",
        better="near zero",
        of=NETWORKS.format("gradient_norm"),
    ),
    Quantity(
        "rates.hessian.per_layer", "log Hessian norm per layer", better="near zero", of=NETWORKS.format("hessian_norm")
    ),
    _at_depths("gradient_norm", "gradient norm"),
    _at_depths("hessian_norm", "Hessian norm"),
    Quantity("depths.*.dead_fraction", "dead networks at depth {}", "share", "less", key="depth", of="depths.*.seeds"),
)
TRANSFER = tuple(
    Quantity(
        f"slopes.{what}.slope",
        name,
        better="near zero",
        error=f"slopes.{what}.stderr",
        interval=(f"slopes.{what}.low", f"slopes.{what}.high"),
    )
    for what, name in (
        ("activation", "power of the size in what outputs change"),
        ("lambda_max_weighted", "power of the size in the curvature that the optimizer sees"),
        ("lambda_max", "power of the size in the largest eigenvalue"),
        ("update", "power of the size in what weights change"),
    )
)
CHAIN = (
    Quantity("log_median", "log of the measured median"),
    Quantity("gradient.log_median", "log of a gradient entry's median"),
    Quantity("theory_median_abs", "exact median", "exact"),
    Quantity("theory_rms", "exact root mean square", "exact"),
    Quantity("gradient.theory_median_abs", "exact median of a gradient entry", "exact"),
    Quantity("critical_scale.median_at_length", "scale that keeps the median", "exact"),
    Quantity("inertia.definite.theory", "share of definite Hessians", "exact"),
)
ESCAPE = (
    Quantity(
        "contenders.*.escaped", "runs of {} that escaped", "share", "more", key="optimizer", of="contenders.*.runs"
    ),
    Quantity("contenders.*.backprops", "backpropagations of {}", "told", "less", key="optimizer"),
    Quantity("plateaus.0.loss", "loss at the start", "exact"),
    Quantity("plateaus.0.gradient_norm", "gradient norm at the start", "exact"),
    Quantity("plateaus.0.lowest", "smallest eigenvalue at the start", "told"),
)

# By command, and the key of a kind of result that not all of a command have.
QUANTITIES: dict[tuple[str, str], tuple[Quantity, ...]] = {
    ("check", ""): CHECK,
    ("diag-share", ""): DIAG_SHARE,
    ("eigs", ""): EIGS,
    ("spectrum", ""): SPECTRUM,
    ("bounds", ""): BOUNDS,
    ("blocks", ""): BLOCKS,
    ("blocks", "partition"): BLOCKS_BY,
    ("precondition", ""): PRECONDITION,
    ("trust-radius", ""): TRUST_RADIUS,
    ("sharpness", ""): SHARPNESS,
    ("forward", ""): FORWARD,
    ("vanishing", ""): VANISHING,
    ("transfer", ""): TRANSFER,
    ("chain", ""): CHAIN,
    ("escape", ""): ESCAPE,
}
# Of the numbers that gates are set on, those that are not compared, and why.
LEFT_OUT = {
    "diag_share_stderr": "an error",
    "baselines.wigner": "follows from the size",
    "layers.0.diag_share": "in layers.*",
    "highest.0.eigenvalue": "largest stands for the upper end",
    "lowest.0.eigenvalue": "smallest stands for the lower end",
    "frobenius.0.1": "single blocks: thousands",
    "trace.0": "in trace.*",
    "preconditioners.0.condition": "in preconditioners.*",
    "preconditioners.1.condition": "in preconditioners.*",
    "preconditioners.0.cg_iterations": "in preconditioners.*",
    "preconditioners.0.effective_dimension": "in preconditioners.*",
    "readings.0.value": "in readings.*",
    "slopes.lambda_max_weighted.stderr": "an error",
    "inits.0.log_median_per_layer": "in inits.*",
    "inits.0.median": "the median per layer on another scale",
    "inits.0.rms": "in inits.*",
    "inits.0.layers.0.median": "the last layer stands for all",
    "inits.0.layers.0.dead_fraction": "the last layer stands for all",
    "depths.0.gradient_norm.median": "in depths.*",
    "depths.0.hessian_norm.median": "in depths.*",
    "depths.0.dead_fraction": "in depths.*",
    "median_abs": "log_median on another scale",
    "escaped": "in contenders.*",
    "contenders.0.backprops": "in contenders.*",
    "contenders.0.escaped": "in contenders.*",
    "runs.0.backprops": "one run by chance",
    "runs.0.best_loss": "one run by chance",
    "runs.0.score": "one run by chance",
}
