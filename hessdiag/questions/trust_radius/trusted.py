"""From ratios at some radii to the radius up to which a model is trusted."""

import math
from collections.abc import Iterable

from hessdiag.fields import Number
from hessdiag.questions.trust_radius.result import Radius

Band = tuple[float, float]

# A trust-region method takes a model with rho above 3/4 for very good, and lets its region grow (Conn, Gould and Toint
# 2000, chapter 6); as far above 1, the loss falls by a quarter more than the model knows.
BAND: Band = (0.75, 1.25)


def trusted_radius(steps: Iterable[tuple[Number, Number]], band: Band = BAND) -> float | None:
    """The largest radius up to which rho stays in a band, interpolated over the logarithm of the radius.

    Args:
        steps: Length of the step and rho, from the shortest on. What is `None` was not measured, and is passed over.
        band: Lowest and highest rho.

    Returns:
        0 where rho is outside from the first, the longest step where it never leaves; `None` where nothing is known.

    >>> round(trusted_radius([(1e-4, 1.0), (1e-2, 0.5)]), 6)
    0.001
    """
    inside: tuple[float, float] | None = None
    for length, rho in steps:
        if length is None or rho is None:
            continue
        if band[0] <= rho <= band[1]:
            inside = length, rho
            continue
        if inside is None:
            return 0.0
        edge = band[1] if rho > band[1] else band[0]
        way = (edge - inside[1]) / (rho - inside[1]) if math.isfinite(rho) else 0.0
        return float(inside[0] * (length / inside[0]) ** way) if inside[0] else 0.0
    return None if inside is None else inside[0]


def of_rows(rows: Iterable[Radius], *, frozen: bool = False) -> float | None:
    """The trusted radius of one metric's steps, with gates held if that is asked for."""
    return trusted_radius((row.reach, row.rho_frozen_gates if frozen else row.rho) for row in rows)


def missing_share(rows: Iterable[Radius], band: Band = BAND) -> float | None:
    """What autograd leaves out along the longest step at which the model of the held gates is true."""
    true = [row for row in rows if row.rho_frozen_gates is not None and band[0] <= row.rho_frozen_gates <= band[1]]
    return true[-1].missing_share if true else None
