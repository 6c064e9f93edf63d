"""What closed forms say of square random networks, as results hold it."""

import math
from dataclasses import dataclass

from hessdiag.fields import Real

CRITICAL = 1e-6  # relative distance of rho from 1 that counts as critical


@dataclass(frozen=True)
class Theory:
    """Asymptotic predictions for one width.

    Attributes:
        mean_square_growth: rho, the factor by which a layer multiplies the expected squared norm; 1 is critical.
        typical_growth: The factor by which a layer multiplies the norm of a typical network.
        rates: Natural log per layer of each quantity's median.
        critical_width_per_depth: At rho = 1, the width per layer of depth at which the median norm halves.
        exact: Whether the medians are exact laws (Gaussian weights) or first order in 1 / width.
    """

    mean_square_growth: Real
    typical_growth: Real
    rates: dict[str, Real]
    critical_width_per_depth: Real
    exact: bool

    @property
    def keeps_mean_square(self) -> bool:
        """Whether rho is 1, the critical value."""
        return abs(math.log(self.mean_square_growth)) <= CRITICAL
