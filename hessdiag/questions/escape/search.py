"""Which learning rates are tried, and which of them wins."""

import math
from collections.abc import Sequence

from hessdiag.optimizers.recipe import Recipe
from hessdiag.problem.spec import call_of
from hessdiag.questions.escape.result import Run

ADAPTIVE = (3e-3, 1e-3, 3e-4)
GRIDS: dict[str, tuple[float, ...]] = {  # by the name of the class; the largest first, which escapes first if at all
    "sgd": (0.3, 0.1, 0.03, 0.01),
    "rmsprop": ADAPTIVE,
    "adam": ADAPTIVE,
    "adamw": ADAPTIVE,
    "nadam": ADAPTIVE,
    "radam": ADAPTIVE,
    "adamax": ADAPTIVE,
    "adagrad": (3e-2, 1e-2),
    "muon": (2e-2, 5e-3),
    "lion": (3e-3, 1e-3),
    "adafactor": (1e-2, 3e-3),
    "soap": (1e-2, 3e-3),
    "shampoo": (0.1, 0.01),
    "sophiah": (0.2, 0.06),
    "adahessian": (0.1, 0.03),
    "kron": (1e-2, 1e-3),
    "schedulefreeadamw": (1e-2, 3e-3),
}


def rates(spec: str, made: Recipe) -> tuple[float, ...]:
    """Learning rates to try for a spec; none where it names one, or nothing is known of its kind.

    >>> from hessdiag.optimizers.recipe import recipe
    >>> rates("lbfgs", recipe("lbfgs", None)), rates("adam(eps=1e-30)", recipe("adam(eps=1e-30)", None))
    ((), (0.003, 0.001, 0.0003))
    >>> rates("sgd(lr=0.5)", recipe("sgd(lr=0.5)", None))
    ()
    """
    if ":" in spec and not spec.startswith(("builtin:", "torch.optim:")):
        return ()
    _, mark, rest = spec.partition("(")
    given = dict(call_of(f"made({rest}")[1] or ()) if mark else {}
    return () if "lr" in given else GRIDS.get(made.kind.lower(), ())


def rank(run: Run) -> tuple[float, float]:
    """Earliest escape first, then the lowest loss to three digits; runs whose loss is no number last."""
    steps = math.inf if run.backprops is None else float(run.backprops)
    ended = math.inf if run.final_loss is None or math.isnan(run.final_loss) else float(f"{run.final_loss:.3g}")
    return (steps, ended)


def winner(runs: Sequence[Run]) -> int:
    """Index of the run whose learning rate is taken: of equals the first."""
    return min(range(len(runs)), key=lambda index: rank(runs[index]))
