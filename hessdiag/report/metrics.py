"""The numbers of a result by name: what gates can be set on, what each means, and what people call it otherwise."""

import difflib

from hessdiag.errors import SpecError

MEANINGS = {
    "diag-share": {
        "diag_share": "share of the Hessian's absolute mass on its diagonal",
        "diag_share_stderr": "its standard error; null if exact",
        "layer_block_share": "share inside the layers' own blocks",
        "layers.0.diag_share": "the same within the first layer's block; layers.1 is the second",
        "baselines.wigner": "share of a random symmetric matrix of this size, 1/d",
        "trace": "sum of the diagonal; null if rows were sampled",
        "negative_diagonal_fraction": "share of negative diagonal entries",
        "zero_rows": "share of rows that are zero",
    },
    "eigs": {
        "largest": "largest eigenvalue, the sharpness",
        "smallest": "smallest eigenvalue",
        "largest_step": "2 / largest eigenvalue: the limit of gradient descent's step",
        "gradient_norm": "Euclidean norm of the gradient",
        "gradient_curvature": "curvature along the gradient, g'Hg / g'g",
        "highest.0.eigenvalue": "eigenvalues of the upper end, ascending; highest.0.residual is |Hv - θv|",
        "lowest.0.eigenvalue": "those of the lower end, ascending",
        "inertia.negative": "how many eigenvalues are negative; null unless exact",
    },
    "spectrum": {
        "trace": "sum of the eigenvalues",
        "frobenius": "Frobenius norm",
        "highest": "largest eigenvalue",
        "lowest": "smallest eigenvalue",
        "negative_fraction": "share of negative eigenvalues",
        "negative_mass": "share of Σ|λ| that negative eigenvalues hold",
        "near_zero_fraction": "share of eigenvalues below 1 % of the largest",
        "condition": "largest |λ| over the smallest that is not zero; null unless exact",
        "inertia.negative": "how many eigenvalues are negative; null unless exact",
    },
    "bounds": {
        "measured.1": "largest eigenvalue, measured",
        "measured.0": "smallest eigenvalue, measured",
        "gershgorin.1": "upper end of Gershgorin's discs",
        "gershgorin.0": "lower end of Gershgorin's discs",
        "perron.1": "upper end after the best diagonal scaling; null if sketched",
        "inner.0": "an eigenvalue is at or below this",
    },
    "blocks": {
        "norm": "Frobenius norm of the Hessian",
        "gauss_newton_norm": "of its Gauss-Newton part",
        "residual_norm": "of what Gauss-Newton leaves out",
        "between_layers": "share of |H|² between different layers",
        "residual_share": "share of the residual in |G|² + |R|²",
        "frobenius.0.1": "norm of one block: here of the first and the second layer",
        "trace.0": "trace of the first layer's own block",
        "eigenvalue_bounds.1": "upper bound of the eigenvalues, from block norms alone",
    },
    "forward": {
        "inits.0.log_median_per_layer": "log of the median norm ratio, per layer, of the first initialization",
        "inits.0.median": "median norm ratio after the last layer",
        "inits.0.rms": "root mean square of the same",
        "inits.0.layers.0.median": "median after the first layer",
        "inits.0.layers.0.dead_fraction": "share of networks that are dead by then",
    },
    "vanishing": {
        "rates.gradient.per_layer": "log of the median gradient norm, per layer",
        "rates.hessian.per_layer": "log of the median Hessian norm, per layer",
        "depths.0.gradient_norm.median": "median gradient norm at the first depth",
        "depths.0.hessian_norm.median": "median Hessian norm there",
        "depths.0.dead_fraction": "share of networks whose output is zero",
    },
    "chain": {
        "theory_median_abs": "exact median of the output",
        "theory_rms": "its exact root mean square",
        "gradient.theory_median_abs": "exact median of a gradient entry",
        "median_abs": "measured median of the output",
        "critical_scale.median_at_length": "scale that keeps the median at this length",
        "inertia.definite.theory": "share of positive definite Hessians, exact",
    },
}

_LARGEST = ("largest", "highest", "measured.1")
_SMALLEST = ("smallest", "lowest", "measured.0")
ALIASES = {  # what people type: what may be meant, in one command or another
    "lambda_max": _LARGEST,
    "lambdamax": _LARGEST,
    "max_eigenvalue": _LARGEST,
    "eigenvalue_max": _LARGEST,
    "largest_eigenvalue": _LARGEST,
    "top_eigenvalue": _LARGEST,
    "eigmax": _LARGEST,
    "eig_max": _LARGEST,
    "max": _LARGEST,
    "sharpness": _LARGEST,
    "spectral_norm": _LARGEST,
    "spectral_radius": _LARGEST,
    "lambda_1": _LARGEST,
    "lambda_min": _SMALLEST,
    "lambdamin": _SMALLEST,
    "min_eigenvalue": _SMALLEST,
    "eigenvalue_min": _SMALLEST,
    "smallest_eigenvalue": _SMALLEST,
    "eigmin": _SMALLEST,
    "eig_min": _SMALLEST,
    "min": _SMALLEST,
    "negative_curvature": _SMALLEST,
    "tr": ("trace",),
    "condition_number": ("condition",),
    "cond": ("condition",),
    "kappa": ("condition",),
    "frobenius_norm": ("frobenius", "norm"),
    "hessian_norm": ("norm", "frobenius", "depths.0.hessian_norm.median"),
    "fro": ("frobenius", "norm"),
    "share": ("diag_share",),
    "diagonal_share": ("diag_share",),
    "diag": ("diag_share",),
    "wigner": ("baselines.wigner",),
    "learning_rate": ("largest_step",),
    "lr": ("largest_step",),
    "step": ("largest_step",),
    "max_lr": ("largest_step",),
    "grad_norm": ("gradient_norm", "depths.0.gradient_norm.median"),
    "gradient": ("gradient_norm", "rates.gradient.per_layer"),
    "gradient_rate": ("rates.gradient.per_layer",),
    "rate": ("rates.gradient.per_layer",),
    "hessian_rate": ("rates.hessian.per_layer",),
    "median": ("inits.0.median", "theory_median_abs", "depths.0.gradient_norm.median"),
    "dead": ("inits.0.layers.0.dead_fraction", "depths.0.dead_fraction"),
    "dead_fraction": ("inits.0.layers.0.dead_fraction", "depths.0.dead_fraction"),
    "gershgorin": ("gershgorin.1",),
    "residual": ("residual_share",),
    "negative_eigenvalues": ("inertia.negative", "negative_fraction"),
}


def check(metric: str, command: str) -> None:
    """Refuse the name of a number that a command's result never has.

    Raises:
        SpecError: naming what may have been meant.
    """
    if command in MEANINGS and not _leads(metric, command):
        raise unknown(metric, command)


def unknown(metric: str, command: str) -> SpecError:
    """The error for a number that is not there, with the nearest that are, or the command that has it."""
    known = MEANINGS[command]
    plain = metric.lower().replace("-", "_")
    wanted = (*ALIASES.get(plain, ()), plain)
    own = [name for name in wanted if name in known] or difflib.get_close_matches(plain, known, n=2, cutoff=0.6)
    others = [(other, name) for other in MEANINGS for name in wanted if name in MEANINGS[other]]
    what = f"a result of {command} has no number {metric!r}"
    if own:
        return SpecError(f"{what}; {' or '.join(own)} may be meant.", f"--fail-if '{own[0]} > 0'")
    if others:
        other, name = others[0]
        return SpecError(f"{what}; one of {other} has {name}.", f"hessdiag {other} ... --fail-if '{name} > 0'")
    return SpecError(f"{what}.", f"hessdiag ls metrics {command}")


def _leads(metric: str, command: str) -> bool:
    """Whether the name is the path of a number in a command's result."""
    from msgspec import inspect  # importing msgspec is for those who set a gate

    from hessdiag.report.schema.check import description
    from hessdiag.report.schema.parts import NonFinite
    from hessdiag.report.schema.words import types_at

    steps = [int(step) if step.isdecimal() else step for step in metric.split(".")]
    return any(
        isinstance(kind, (inspect.IntType, inspect.FloatType))
        or (isinstance(kind, inspect.EnumType) and kind.cls is NonFinite)
        for kind in types_at(description(command), ["result", *steps])
    )
