"""The numbers of a report to look at first."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hessdiag.questions import registry
from hessdiag.questions.report.result import KeyNumber, Section

FIRST = {
    "check": ("output.loss",),
    "sharpness": ("ratio", "largest_lr", "noise_scale"),
    "eigs": ("largest", "smallest", "largest_step", "gradient_norm"),
    "spectrum": ("trace", "negative_mass"),
    "blocks": ("between_layers", "residual_share"),
    "diag-share": ("diag_share",),
    "trust-radius": ("trusted_radius.uniform", "missing_share"),
    "precondition": ("preconditioners.0.condition",),
}
LIMITS = ("ratio", "largest_lr", "largest_step")  # of steps


def key_numbers(sections: Sequence[Section], *, limits: bool = True) -> tuple[KeyNumber, ...]:
    """Those of all sections that have a value.

    Args:
        sections: Answered.
        limits: Whether steps of training have the limits that were found here.
    """
    found = (number for section in sections for number in _of(section))
    return tuple(number for number in found if limits or number.metric not in LIMITS)


def _of(section: Section) -> Iterator[KeyNumber]:
    meanings = registry.question(section.command).module("metrics").MEANINGS
    result = section.document["result"]
    for metric in FIRST.get(section.command, ()):
        value = at(result, metric)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            stderr = at(result, f"{metric}_stderr")
            yield KeyNumber(
                command=section.command,
                metric=metric,
                meaning=meanings.get(metric, metric.replace("_", " ")),
                value=float(value),
                stderr=float(stderr) if isinstance(stderr, (int, float)) else None,
            )


def at(result: Any, path: str) -> Any:
    """What stands at a dotted path in the "result" of a document; `None` where nothing does.

    >>> at({"readings": [{"value": 2.0}]}, "readings.0.value"), at({}, "trace")
    (2.0, None)
    """
    for step in path.split("."):
        if isinstance(result, Mapping):
            result = result.get(step)
        elif isinstance(result, (list, tuple)) and step.isdecimal() and int(step) < len(result):
            result = result[int(step)]
        else:
            return None
    return result
