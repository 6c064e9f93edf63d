"""What was measured, in a few words: the head of every report about one model."""

from collections.abc import Mapping, Sequence
from typing import Any

from hessdiag.report.numbers import MISSING, counted, number

COUNTED = ("targets", "targets, by class weight", "labels")  # which may be fewer, or more, than samples
FEW = 4  # weights that are all named
ALIKE = 1e-3  # relative difference of weights that goes without saying


def subject(problem: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Model, parameters, batch, loss and machine, as (name, value)."""
    model = problem.get("model", "")
    origin = [problem["spec"]] if problem.get("spec") else []
    if problem.get("weights"):
        origin.append(f"weights {problem['weights']}")
    batches = problem.get("batches", 1)
    batch = f"{counted(problem.get('samples'), 'sample')}" + (
        f" in {counted(batches, 'batch', 'batches')}" if batches != 1 else ""
    )
    if problem.get("input_shape"):
        batch += f" of {_shape(problem['input_shape'])}"
    if problem.get("synthetic"):
        batch += ", SYNTHETIC"
    elif problem.get("data"):
        batch += f" ({problem['data']})"
    loss, reduction = problem.get("loss", ""), problem.get("reduction")
    return (
        ("model", f"{model} ({', '.join(origin)})" if origin else str(model)),
        (
            "parameters",
            number(problem.get("parameters")) + (", training mode" if problem.get("train_mode") else ""),
        ),
        ("batch", batch),
        ("loss", f"{loss} ({_average(problem, reduction)})" if reduction else str(loss)),
        (
            "computed",
            f"{problem.get('dtype', '')} on {problem.get('device', '')}, seed {problem.get('seed', MISSING)}",
        ),
    )


def _average(problem: Mapping[str, Any], reduction: str) -> str:
    """How the loss joins what it is a mean of, and batches, where there is more to say than its reduction.

    >>> over = {"what": "targets", "count": 18.0}
    >>> _average({"samples": 8, "batches": 2, "batch_weights": [0.25, 0.75], "averaged_over": over}, "mean")
    'mean over 18 targets in 2 batches, which weigh 0.25 and 0.75'
    """
    over, batches = problem.get("averaged_over"), problem.get("batches", 1)
    if not over or reduction == "sum":
        return reduction if batches == 1 else f"{reduction} over {batches} batches"
    if batches == 1 and (over["what"] not in COUNTED or over["count"] == problem.get("samples")):
        return reduction
    said = f"{reduction}, averaged" if reduction != "mean" else reduction
    count = over["count"]
    said += f" over {number(int(count) if count == int(count) else count, 4)} {over['what']}"
    return said if batches == 1 else f"{said} in {batches} batches{_weights(problem['batch_weights'])}"


def _weights(weights: Sequence[float]) -> str:
    low, high = min(weights), max(weights)
    if high - low <= ALIKE * high:
        return ""
    if len(weights) > FEW:
        return f", which weigh {low:.3g} to {high:.3g}"
    *most, last = (f"{weight:.3g}" for weight in weights)
    return f", which weigh {', '.join(most)} and {last}"


def _shape(shape: Any) -> str:
    """Shape of one sample; of several inputs, each.

    >>> _shape([3, 32, 32]), _shape([[8], [4]]), _shape({"input_ids": [16]})
    ('3×32×32', '8 + 4', 'input_ids 16')
    """
    if isinstance(shape, Mapping):
        return " + ".join(f"{name} {_shape(size)}" for name, size in shape.items())
    if any(not isinstance(size, int) for size in shape):
        return " + ".join(_shape(size) for size in shape)
    return "×".join(map(str, shape)) or "1"
