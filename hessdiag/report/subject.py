"""What was measured, in a few words: the head of every report about one model."""

from collections.abc import Mapping
from typing import Any

from hessdiag.report.numbers import MISSING, number


def subject(problem: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Model, parameters, batch, loss and machine, as (name, value)."""
    model = problem.get("model", "")
    origin = [problem["spec"]] if problem.get("spec") else []
    if problem.get("weights"):
        origin.append(f"weights {problem['weights']}")
    batches = problem.get("batches", 1)
    batch = f"{number(problem.get('samples'))} samples" + (f" in {batches} batches" if batches != 1 else "")
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
        ("loss", f"{loss} ({reduction})" if reduction else str(loss)),
        (
            "computed",
            f"{problem.get('dtype', '')} on {problem.get('device', '')}, seed {problem.get('seed', MISSING)}",
        ),
    )


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
