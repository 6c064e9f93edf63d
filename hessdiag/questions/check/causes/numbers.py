"""Rules on numbers: overflow, underflow, NaN."""

import math

from hessdiag.numbers import percent
from hessdiag.questions.check.causes.candidate import Candidate
from hessdiag.questions.check.result import Check

UNDERFLOW = 0.05  # share of gradient entries
SMALLEST_HALF = 2.0**-25  # what rounds to 0 in float16
HALF = ("float16", "bfloat16")


def numbers(check: Check) -> list[Candidate]:
    """Where numbers leave the range of their dtype."""
    return [*_not_finite(check), *_underflow(check), *_epsilon(check)]


def _not_finite(check: Check) -> list[Candidate]:
    found, output = check.numbers, check.output
    where = found.not_finite if found is not None else None
    loss = output.loss if output is not None else 0.0
    if where is None and loss is not None and math.isfinite(loss):
        return []
    dtype = found.dtype if found is not None else "the dtype"
    place = f"the output of layer {where} is not finite though its input is" if where else "the loss is not finite"
    return [
        Candidate(
            "numeric_range",
            where,
            math.inf,
            1.0,
            "largest output over the largest number of the dtype",
            0.95,
            f"Numbers leave their range in {dtype}: {place}.",
            "Look for logarithms, roots and divisions at 0, exponentials, weights that are NaN; or compute in float32.",
        )
    ]


def _underflow(check: Check) -> list[Candidate]:
    found = check.numbers
    if found is None or found.zero_share is None or found.zero_share < UNDERFLOW:
        return []
    sure = 0.85 if found.zero_share > 0.5 else 0.6 if found.dtype in HALF else 0.45
    return [
        Candidate(
            "numeric_range",
            None,
            found.zero_share,
            UNDERFLOW,
            "share of gradients that round to 0",
            sure,
            f"{percent(found.zero_share)} of gradients are 0 only because they are too small for {found.dtype}.",
            "Train in float32 or bfloat16, or scale the loss (torch.amp.GradScaler).",
        )
    ]


def _epsilon(check: Check) -> list[Candidate]:
    """An epsilon that is 0 in the dtype of the parameters: where a gradient is 0, so is what it is divided by."""
    found, step = check.numbers, check.step
    epsilon = None if step is None else step.settings.get("eps")
    if found is None or found.dtype != "float16" or not epsilon or epsilon >= SMALLEST_HALF or check.trains:
        return []
    return [
        Candidate(
            "numeric_range",
            None,
            epsilon,
            SMALLEST_HALF,
            "epsilon of the optimizer",
            0.9,
            f"The optimizer's eps = {epsilon:g} is 0 in float16: it divides 0 by 0 where a gradient is 0.",
            "Keep the weights in float32 and let autocast compute in half precision, or set eps to 1e-4.",
        )
    ]
