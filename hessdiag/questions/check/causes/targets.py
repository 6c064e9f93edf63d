"""Rules on the targets: whether they tell anything, and whether the loss can take them."""

from hessdiag.numbers import number
from hessdiag.questions.check.causes.candidate import Candidate
from hessdiag.questions.check.readings import TargetReading
from hessdiag.questions.check.result import Check

NEAR, RATHER_NEAR = 0.6, 0.75  # distance of neighbours over that of any two samples, for neighbours to tell
NOISE = 0.45  # how sure, where the inputs' features are independent of each other
UNLIKE = 1.5  # standard deviations above chance by which neighbours' targets agree, below which they look shuffled


def targets(check: Check) -> list[Candidate]:
    """What is wrong with the targets."""
    found = check.targets
    if found is None or found.kind == "none":
        return []
    return [*_constant(found), *_range(found), *_shuffled(check, found)]


def _constant(found: TargetReading) -> list[Candidate]:
    if not found.constant or found.count < 8:
        return []
    what = " class" if found.kind == "classes" else f": {number(found.mean if found.mean is not None else found.low)}"
    return [
        Candidate(
            "targets",
            None,
            found.largest_share if found.largest_share is not None else 1.0,
            1.0,
            "share of the commonest target",
            0.95,
            f"All {found.count:,} targets are the same{what}. There is nothing to learn from the input.",
            "Look at how the targets are loaded, and whether the data is sorted by class.",
        )
    ]


def _range(found: TargetReading) -> list[Candidate]:
    top = {"binary": 1.0, "classes": (found.classes or 0) - 1.0}.get(found.kind)
    if top is None or found.low is None or found.high is None or (found.kind == "classes" and not found.classes):
        return []
    if found.low >= 0 and found.high <= top:
        return []
    wrong = found.low if found.low < 0 else found.high
    return [
        Candidate(
            "targets",
            None,
            wrong,
            0.0 if found.low < 0 else top,
            "target farthest out of range",
            0.95,
            f"Targets run from {number(found.low)} to {number(found.high)}; this loss takes 0 to {top:g}.",
            f"Recode the targets to 0 to {top:g}, or use the loss that is made for them.",
        )
    ]


def _shuffled(check: Check, found: TargetReading) -> list[Candidate]:
    closeness = found.neighbours_closeness
    if found.neighbours_z is None or found.neighbours_z >= UNLIKE or closeness is None or check.problem.synthetic:
        return []
    sure = 0.75 if closeness < NEAR else 0.45 if closeness < RATHER_NEAR else 0.0
    if found.inputs_are_noise:  # of noise any targets are as good as these: perhaps both are made up
        sure = NOISE if check.trains is False else 0.0
    if check.trains and check.problem.batches > 1:  # what is learnt is not by heart
        sure *= 0.5
    return [
        Candidate(
            "targets",
            None,
            found.neighbours_z,
            UNLIKE,
            "agreement of neighbours' targets, in standard deviations above chance",
            sure,
            f"The targets look shuffled: samples with similar inputs agree in their targets no more than by chance "
            f"({found.neighbours_z:+.1f} standard deviations).",
            "Look at whether inputs and targets are shuffled together; some tasks look like this by nature.",
        )
    ]
