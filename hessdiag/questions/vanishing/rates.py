"""By how much norms change with each layer, and how far measured medians are from exact ones."""

import math
from collections.abc import Sequence

import numpy as np

from hessdiag.questions.common.ensembles.agreement import FEWEST_TO_COMPARE
from hessdiag.questions.common.ensembles.prediction import Theory
from hessdiag.questions.vanishing.result import QUANTITIES, DepthAgreement, DepthNorms, Rate, ends, known, statistics_of


def rates(depths: Sequence[DepthNorms], theory: Theory | None) -> dict[str, Rate]:
    """Change per layer of every quantity's log-median between two depths of one width.

    Two medians of the table give each rate, so that a reader can do it again; a line through all medians between
    them would know it little better.
    """
    between = ends(depths)
    if between is None:
        return {}
    first, last = between
    layers = last.depth - first.depth
    found = {}
    for quantity in QUANTITIES:
        start, end = (statistics_of(entry, quantity) for entry in between)
        if known(start) and known(end):
            found[quantity] = Rate(
                per_layer=(end.log_median - start.log_median) / layers,
                per_layer_stderr=math.hypot(start.log_median_stderr, end.log_median_stderr) / layers,
                theory_per_layer=theory.rates.get(quantity) if theory else None,
                from_depth=first.depth,
                to_depth=last.depth,
            )
    return found


def agreement(depths: Sequence[DepthNorms]) -> tuple[DepthAgreement, ...]:
    """Every measured log-median for which theory is exact."""
    return tuple(
        DepthAgreement(
            depth=entry.depth,
            quantity=quantity,
            measured_log_median=norm.log_median,
            stderr=norm.log_median_stderr,
            theory_log_median=exact,
            z=(norm.log_median - exact) / norm.log_median_stderr,
        )
        for entry in depths
        for quantity, exact in _exact(entry).items()
        if (norm := statistics_of(entry, quantity)) is not None
        and norm.log_median_stderr > 0
        and norm.networks >= FEWEST_TO_COMPARE
    )


def _exact(entry: DepthNorms) -> dict[str, float]:
    return {quantity: float(np.log(value)) for quantity, value in (entry.theory_median or {}).items()}
