"""Rules on what the model receives: its size, its offset, its features' sizes, whether there is anything in it."""

import math

from hessdiag.numbers import number, percent
from hessdiag.questions.check.causes.candidate import Candidate, grade
from hessdiag.questions.check.causes.path import adaptive, stands_in
from hessdiag.questions.check.readings import InputReading
from hessdiag.questions.check.result import Check

# Where a small network on digits trains worse, and where not at all: under gradient descent, and under an optimizer
# whose steps do not shrink with the gradient.
LARGE = {False: (12.0, 60.0), True: (100.0, 1e4)}  # root mean square
SMALL = {False: (0.03, 3e-3), True: (0.01, 5e-4)}
OFFSET = {False: (4.0, 15.0), True: (10.0, 60.0)}  # mean over standard deviation over samples
UNEVEN, VERY_UNEVEN = 30.0, 1000.0  # largest standard deviation of a feature over the median
STANDARDIZE = "Standardize it: subtract the mean of the training data and divide by its standard deviation."


def inputs(check: Check) -> list[Candidate]:
    """What is wrong with the inputs; at most one thing of each."""
    free = adaptive(check) and not stands_in(check)  # where the user's own is not known, for either kind
    several = len(check.inputs) > 1
    return [found[0] for one in check.inputs if one.kind == "real" and (found := _of(one, several, free))]


def _of(one: InputReading, several: bool, free: bool) -> list[Candidate]:
    name = f"Input {one.name}" if several else "The input"
    if one.rms is None or not math.isfinite(one.rms):
        says = f"{name} is not finite: it holds NaN or infinite entries, which reach the loss."
        return [
            Candidate(
                "input_scale",
                one.taken_by,
                one.rms,
                None,
                "size of the input",
                0.98,
                says,
                "Remove them, or fill them in.",
            )
        ]
    if one.variation == 0:
        says = f"{name} is the same for every sample: nothing in it tells them apart."
        remedy = "Look at how the batch is loaded: every sample of it is equal."
        return [
            Candidate(
                "constant_inputs", one.taken_by, 0.0, 0.0, "variation of the input over samples", 0.95, says, remedy
            )
        ]
    if one.normalized:
        return []
    return sorted(
        [*_scale(one, name, free), *_offset(one, name, free), *_uneven(one, name)], key=lambda found: -found.confidence
    )


def _scale(one: InputReading, name: str, free: bool) -> list[Candidate]:
    rms = one.rms or 0.0
    large, small = grade(rms, *LARGE[free]), grade(rms, *SMALL[free])
    if not max(large, small):
        return []
    size = (
        f"mean {number(one.mean)}, standard deviation {number(one.stdev)}, from {number(one.low)} to {number(one.high)}"
    )
    says = f"{name} is too {'large' if large else 'small'}: {size}; layers are initialized for inputs near 1."
    threshold = (LARGE if large else SMALL)[free][0]
    quantity = "root mean square of the input"
    return [Candidate("input_scale", one.taken_by, rms, threshold, quantity, max(large, small), says, STANDARDIZE)]


def _offset(one: InputReading, name: str, free: bool) -> list[Candidate]:
    if one.mean is None or not one.rms or one.variation is None:
        return []
    spread = one.variation * one.rms
    far = abs(one.mean) / spread if spread else math.inf
    sure = grade(far, *OFFSET[free])
    if not sure:
        return []
    says = f"{name} lies far from zero: its mean is {number(one.mean)} where samples differ by {number(spread)}."
    quantity = "mean of the input over its standard deviation over samples"
    return [Candidate("input_scale", one.taken_by, far, OFFSET[free][0], quantity, sure, says, STANDARDIZE)]


def _uneven(one: InputReading, name: str) -> list[Candidate]:
    sure = 0.8 * grade(one.steepest, UNEVEN, VERY_UNEVEN)
    if not sure:
        return []
    same = f", and {percent(one.constant_share)} never vary" if one.constant_share else ""
    says = f"One feature of {name.lower()} is {number(one.steepest)} times as large as the typical one{same}."
    quantity = "largest standard deviation of a feature over the median"
    remedy = "Standardize each feature by itself."
    return [Candidate("input_scale", one.taken_by, one.steepest, UNEVEN, quantity, sure, says, remedy)]
