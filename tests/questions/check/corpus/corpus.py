"""All cases of the corpus by name: importing its modules enters them."""

from tests.questions.check.corpus import (  # noqa: F401
    broken_scales,
    broken_signal,
    broken_training,
    broken_units,
    healthy_fresh,
    healthy_trained,
)
from tests.questions.check.corpus.case import BROKEN, HEALTHY

__all__ = ["BROKEN", "HEALTHY"]
