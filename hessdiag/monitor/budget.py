"""Which share of training's time looks may take, what they have taken, and what the next one will."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from hessdiag.errors import SpecError

FEW = 3  # looks whose median says what the next will take, so that one that was disturbed does not
SURE = 1.1  # times what a look should take is saved up before it begins, for then it is made whole
PROBE = 4.0  # training steps that a gradient and a product take about as long as, while none has been timed


def share_of(budget: str | float | None) -> float:
    """A budget as a share of training's time.

    Args:
        budget: "5%", or 0.05; `None` for no limit.

    Raises:
        SpecError: if it is no share.

    >>> share_of("5%"), share_of(0.1), share_of(None)
    (0.05, 0.1, inf)
    """
    if budget is None:
        return math.inf
    try:
        found = float(budget.strip().removesuffix("%")) / 100 if isinstance(budget, str) else float(budget)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(budget, str) and not budget.strip().endswith("%"):
        found = math.nan
    if not 0 < found <= 1:
        raise SpecError(f"a budget is a share of training's time, not {budget!r}.", 'budget="5%", or None for no limit')
    return found


@dataclass
class Budget:
    """Time that passed, and how it was spent.

    Training's own time is all that passes between the first step and now, looks left out.

    Attributes:
        share: Of training's own time that looks may take.
        began: When the first step was over; `None` before.
        first: Its number.
        spent: Seconds in looks.
    """

    share: float
    began: float | None = None
    first: int = 0
    spent: float = 0.0
    _gradients: deque[float] = field(default_factory=lambda: deque(maxlen=FEW))
    _products: deque[float] = field(default_factory=lambda: deque(maxlen=FEW))

    def trained(self, now: float) -> float:
        """Seconds of training itself."""
        return 0.0 if self.began is None else max(now - self.began - self.spent, 0.0)

    def used(self, now: float) -> float:
        """Time of looks over training's own."""
        trained = self.trained(now)
        return self.spent / trained if trained else 0.0

    def left(self, now: float) -> float:
        """Seconds that looks may take now."""
        return math.inf if math.isinf(self.share) else self.share * self.trained(now) - self.spent

    def learn(self, gradient: float) -> None:
        """Take note of how long a look took before its first product: the loss and the gradient."""
        self._gradients.append(gradient)

    def learn_products(self, seconds: float, count: int) -> None:
        """Take note of how long so many products took, with all that goes with them."""
        if count:
            self._products.append(seconds / count)

    def look(self, products: int, single: float) -> float:
        """Seconds that the next look will take, and some to be sure; of the first what a gradient and a product take.

        Args:
            products: How many products it plans.
            single: Seconds of a training step.
        """
        if not self._gradients:
            return PROBE * single
        return SURE * (_usual(self._gradients) + self.products(products))

    @property
    def probing(self) -> bool:
        """Whether a product should be timed before many are planned."""
        return not self._products and not math.isinf(self.share)

    def products(self, count: int) -> float:
        """Seconds that so many products will take."""
        return count * _usual(self._products) if self._products else 0.0

    def spare(self, left: float, products: int) -> float:
        """How many products there is time for besides so many, of as many seconds as are left."""
        one = self.products(1)
        return max(left / one - products, 0.0) if one else math.inf


def _usual(seconds: Sequence[float]) -> float:
    """The median; of fewer than three the least, for the first ones load what later ones find."""
    return sorted(seconds)[len(seconds) // 2 if len(seconds) >= FEW else 0]
