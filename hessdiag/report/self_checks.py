"""What each self-check of a document means, and whether it passed: the only list of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from hessdiag.numbers import deviation, number
from hessdiag.report.view import SelfCheck

CHECKS = {
    "hvp_symmetry": (
        "symmetry of the products",
        "two products with random vectors agree as those of a symmetric matrix; relative error",
    ),
    "hvp_finite_difference": (
        "products against differences",
        "a product with a random vector is what gradients change by along it; relative error",
    ),
    "hvp_two_steps": (
        "differences at two steps",
        "products by central differences do not depend on their step; relative error",
    ),
    "ggn_quadratic_form": (
        "Gauss-Newton against the linearized model",
        "v'Gv is the loss's curvature along the model's slopes; relative error",
    ),
    "hessian_norm_z": (
        "exact norms against products",
        "an exact Hessian norm agrees with random products; in their standard errors",
    ),
    "largest_z": (
        "simulation against theory",
        "the largest deviation from an exact value; in standard errors",
    ),
}
OF_INIT = ("_median_z", "medians against theory", "the largest deviation from an exact median; in standard errors")


def self_checks(doc: Mapping[str, Any]) -> tuple[SelfCheck, ...]:
    """The self-checks of a document, each with what it allows."""
    return tuple(_all(doc["checks"], doc.get("thresholds") or {}, doc["result"].get("check_tolerance")))


def _all(checks: Mapping[str, Any], thresholds: Mapping[str, Any], usual: float | None) -> Iterator[SelfCheck]:
    for name, value in checks.items():
        if isinstance(value, (dict, list, str, bool)):
            continue
        allowed = thresholds.get(name, usual)
        label, meaning = _words(name)
        in_errors = name.endswith("_z")
        yield SelfCheck(
            label,
            deviation(value) if in_errors else number(value, 2),
            number(allowed, 1) if allowed is None or allowed < 1 else f"{allowed:g}",
            _outcome(value, allowed),
            meaning,
        )


def _words(name: str) -> tuple[str, str]:
    if name in CHECKS:
        return CHECKS[name]
    ending, label, meaning = OF_INIT
    if name.endswith(ending):
        return f"{name.removesuffix(ending)}: {label}", meaning
    return name.replace("_", " "), ""


def _outcome(value: float | None, allowed: float | None) -> str:
    if value is None:
        return "not made"
    if allowed is None:
        return "no limit"
    return "passed" if abs(value) <= allowed else "FAILED"
