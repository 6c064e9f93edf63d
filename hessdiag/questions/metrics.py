"""The numbers of a result by name: what gates can be set on, what each means, and what people call it otherwise."""

import difflib

from hessdiag.errors import SpecError
from hessdiag.questions.registry import QUESTIONS

REPORT = "report"  # whose numbers are those of its sections, each after the name of its command
MEANINGS: dict[str, dict[str, str]] = {asked.name: asked.module("metrics").MEANINGS for asked in QUESTIONS}

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


def check(metric: str, command: str, *, of_model: bool = False) -> None:
    """Refuse the name of a number that a command's result never has.

    Args:
        metric: The name.
        command: The command.
        of_model: Whether a report is of a model, and of no log.

    Raises:
        SpecError: naming what may have been meant.
    """
    question, _, rest = metric.partition(".")
    if command == REPORT and question in MEANINGS and question != REPORT:
        check(rest, question)
    elif command in MEANINGS and not _leads(metric, command, 0):
        if of_model and _leads(metric, command):
            what = f"a report of a model has no number {metric!r}; one of the log of a hessdiag.Monitor has."
            raise SpecError(what, f"hessdiag {command} run.jsonl --fail-if '{metric} > 0'")
        if of_model or not _leads(metric, command):
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


def _leads(metric: str, command: str, kind: int | None = None) -> bool:
    """Whether the name is the path of a number in a command's result, of one of its kinds or of any."""
    from msgspec import inspect  # importing msgspec and results is for those who set a gate

    from hessdiag.fields import NonFinite
    from hessdiag.questions import documents
    from hessdiag.questions.expected import types_at

    steps: list[str | int] = [int(step) if step.isdecimal() else step for step in metric.split(".")]
    return steps[0] not in documents.ENVELOPE and any(
        isinstance(kind, (inspect.IntType, inspect.FloatType))
        or (isinstance(kind, inspect.EnumType) and kind.cls is NonFinite)
        for found in documents.result_types(command)[slice(None) if kind is None else slice(kind, kind + 1)]
        for kind in types_at(found, steps)
    )
