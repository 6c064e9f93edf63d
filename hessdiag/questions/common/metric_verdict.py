"""What a result in an optimizer's metric says of it: where the metric is from, and where its threshold lies."""

from typing import Literal

from hessdiag.numbers import number, percent
from hessdiag.questions.common.metric import Metric, source
from hessdiag.questions.common.result import Finding
from hessdiag.theory.stability import EDGE

ABOVE = 1 + EDGE


def metric_findings(metric: Metric | None, matrix: str = "Hessian") -> list[Finding]:
    """That all numbers are in a metric, and what to know of it."""
    if metric is None or metric.state is None:
        return []
    because = [source(metric)]
    if metric.rates_differ:
        because.append("learning rates differ between groups, and P is divided by their ratios to the largest")
    if metric.held:
        because.append(f"{metric.held:,} parameters that it does not move have rows of zeros here")
    because += metric.notes
    return [
        Finding(
            "note",
            f"All numbers are of P^(-1/2) A P^(-1/2), A the {matrix}, in the metric of {metric.optimizer}.",
            "; ".join(because),
            "the same command without --metric, for the matrix itself",
        )
    ]


def limit_findings(metric: Metric, curvature: float, *, bound: bool = False, more: str = "") -> list[Finding]:
    """Where the optimizer stands beside its threshold, by the largest eigenvalue in its metric.

    Args:
        metric: With threshold and learning rate.
        curvature: Largest eigenvalue, positive.
        bound: Whether it has not converged, so that it may be larger.
        more: What to do for the eigenvalue itself, where it has not.
    """
    limit = metric.limit(curvature)
    value = f"the largest eigenvalue in its metric is {'at least ' * bound}{number(curvature, 4)}"
    if metric.threshold is None or limit is None:
        why, cure = (
            "no threshold is known for it",
            "hessdiag sharpness MODEL, for what else tells how far a step may go",
        )
        if metric.state == "given":
            why, cure = "the numbers name no optimizer", "the optimizer itself: --metric adam, or a live one in Python"
        elif metric.threshold is not None:
            why = (
                "its weight decay is part of the gradient and adds to this curvature, entry by entry, what is not in it"
            )
            cure = "hessdiag sharpness MODEL, which adds it"
        return [Finding("note", f"No limit of the learning rate follows: {why}.", value, cure)]
    decay = f" + {number(metric.shift)} of its weight decay" if metric.shift else ""
    because = (
        f"{value}, and it is stable below {number(metric.threshold, 4)} / learning rate{decay and f', with{decay[2:]}'}"
    )
    others = ", the others in proportion" if metric.rates_differ else ""
    which = "largest learning rate" if metric.rates_differ else "learning rate"
    if not metric.lr:
        says = f"{metric.optimizer} is stable here only for learning rates below {number(limit, 4)}."
        return [Finding("note", says, because, more)]
    ratio = metric.lr / limit
    level: Literal["warn", "note"] = "warn" if ratio > ABOVE and metric.state in ("checkpoint", "optimizer") else "note"
    if bound and ratio <= ABOVE:
        says = f"{metric.optimizer} is unstable here for a {which} above {number(limit, 4)}{others}; the limit may be lower."
        return [Finding("note", says, f"{because}; its own is {number(metric.lr)}", more)]
    if ratio > ABOVE:
        says = f"{metric.optimizer} is beyond its threshold here: at {'or above ' * bound}{percent(ratio)} of it."
        cure = f"a {which} below {number(limit, 4)}{others}; or training goes on at the edge, where curvature gives way"
        return [Finding(level, says, because, cure)]
    says = f"{metric.optimizer} is stable here for a {which} below {number(limit, 4)}{others}: its own, {number(metric.lr)}, is at {percent(ratio)} of that."
    return [Finding("note", says, because, "hessdiag sharpness MODEL, for other readings beside this one")]
