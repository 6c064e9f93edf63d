"""What explains how an optimizer does on a plateau: sentences with their numbers and, where there is one, a way out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hessdiag.numbers import number, percent
from hessdiag.questions.escape.foretold.predict import WEIGHT_DECAY
from hessdiag.questions.escape.result import Plateau, Run
from hessdiag.questions.escape.unstable import unstable
from hessdiag.theory.optimizer_floors import Floor, floor_of, squares_underflow

FREE = 10.0  # of the gradient over a floor, from which on it does not matter
ROOM = 1e-3  # of the gradient: an epsilon that leaves it alone
HIDDEN = 1e-15  # what `pytorch_optimizer` adds to the squares of Adam's relatives, inside the root
HIDING = (
    "adabelief", "adanorm", "diffgrad", "laprop", "mars", "schedulefreeadamw", "schedulefreeradam", "swats", "yogi",
)  # fmt: skip
UNTRUSTED = 0.5  # of all steps with rho below a quarter, from which on it is said
COLLAPSED = 1e-3  # of the largest radius that there was
SHRUNK = 0.5  # of the gradient, that decay takes within a run of so many steps
A_RUN = 1000
LEARNT = 1e-6  # of the reference loss: what is below is at the end of its way, where rounding rules rho
HARDLY = 0.01  # of the reference loss, that a stuck run took
EPSILON = {"adafactor": "eps1", "shampoo": "matrix_eps"}


def contender_notes(
    optimizer: str, settings: Mapping[str, Any], plateaus: Sequence[Plateau], dtype: str
) -> tuple[str, ...]:
    """What is known of an optimizer on these plateaus before it runs: floors above all.

    Args:
        optimizer: Its name, with or without settings in parentheses.
        settings: lr, eps, weight_decay, ...
        plateaus: Of all networks; the sentences are of the flattest.
        dtype: Of the parameters, as "float32".

    Returns:
        Sentences; none where nothing stands in its way.
    """
    name = _name(optimizer)
    living = [plateau for plateau in plateaus if plateau.gradient_median]
    if not living:
        return ()
    flattest = min(living, key=lambda plateau: plateau.gradient_median or math.inf)
    return (
        *_floors(name, optimizer, settings, flattest, dtype),
        *_underflow(name, flattest, dtype),
        *_decay(name, settings, flattest),
        *_too_long(name, settings, living),
    )


def run_notes(run: Run, plateau: Plateau) -> tuple[str, ...]:
    """What explains the outcome of a run.

    Args:
        run: As it ended.
        plateau: Where it started.

    Returns:
        Sentences, the most telling first.
    """
    learnt = run.best_loss is not None and run.best_loss - plateau.floor < LEARNT * (plateau.reference - plateau.floor)
    return (*_ended(run, plateau), *(() if learnt else _trusted(run)), *_against_prediction(run))


def _name(optimizer: str) -> str:
    plain = optimizer.partition("(")[0].rpartition(".")[2].lower()
    return {"momentum": "sgd"}.get(plain, plain.replace("_", ""))


def _title(optimizer: str) -> str:
    """As a sentence starts with it."""
    known = {"rmsprop": "RMSprop", "adamw": "AdamW", "soap": "SOAP", "sophiah": "SophiaH"}
    plain = optimizer.partition("(")[0].rpartition(".")[2]
    return known.get(plain.lower(), plain[:1].upper() + plain[1:])


def _floors(name: str, optimizer: str, settings: Mapping[str, Any], plateau: Plateau, dtype: str) -> Iterator[str]:
    rate = settings.get("lr")
    if name in HIDING:
        floor: Floor | None = Floor(math.sqrt(HIDDEN), 1.0, 1 / math.sqrt(HIDDEN))
    else:
        floor = floor_of(name, epsilon=_epsilon(settings), dtype=dtype)
    if floor is None or not floor.floor or math.isinf(floor.floor):
        return
    size = plateau.matrix_median if floor.of == "matrix" else plateau.gradient_median
    if size is None or size >= FREE * floor.floor:
        return
    what = (
        f"the median |G|_F of a matrix, {number(size)}" if floor.of == "matrix" else f"the median |g_i|, {number(size)}"
    )
    step = f"with step {number(floor.kappa, 3)} lr" + (
        f" = {number(floor.kappa * rate)}" if isinstance(rate, int | float) else ""
    )
    where, acts = "above", f"acts as SGD {step}"
    if size >= floor.floor / FREE:
        where, acts = (
            "near",
            f"its steps are {percent(size / (size + floor.floor), 2)} of lr, and shrink as gradients do",
        )
    if name in HIDING:
        yield (
            f"pytorch_optimizer adds 1e-15 to the squares of {_title(optimizer)}'s gradients, a floor of 3.2e-8 that "
            f"no option lowers, {where} {what}: {acts}. Take another, as adam(eps={ROOM * size:.0e})."
        )
        return
    key = EPSILON.get(name, "eps")
    yield (
        f"{_title(optimizer)}'s {key} {_given(name, settings, floor)} is {where} {what}"
        f"{_times(floor, name)}: {acts}. {_instead(name, optimizer, size, wide=_underflows(name, size, dtype))}"
    )


def _epsilon(settings: Mapping[str, Any]) -> float | None:
    for key in ("matrix_eps", "eps"):
        value = settings.get(key)
        if isinstance(value, int | float):
            return float(value)
    return None


def _given(name: str, settings: Mapping[str, Any], floor: Floor) -> str:
    """The epsilon, as people write it."""
    given = _epsilon(settings)
    if given is None:
        given = {"muon": 1e-7, "shampoo": 1e-6, "sophiah": 1e-12, "sophia": 1e-12}.get(name, floor.floor)
    return f"{given:.3g}"


def _times(floor: Floor, name: str) -> str:
    """Where the floor is another number than the epsilon."""
    if name == "muon":
        return f" (its five steps multiply small gradients by 485, so that the floor is {number(floor.floor)})"
    if name == "shampoo":
        return f" (it is added to squares: the floor is {number(floor.floor)})"
    return ""


def _instead(name: str, optimizer: str, size: float, *, wide: bool) -> str:
    if name == "shampoo":
        return f'Try --optimizer "{_spec(optimizer)}(matrix_eps={(ROOM * size) ** 2:.0e})" in float64, or adam.'
    if name == "soap":
        return "Smaller ones of SOAP end in NaN, where its basis turns: take adam with a small eps instead."
    small = 1e-30 if size > 1e-27 else ROOM * size
    return f'Try {"--dtype float64 " if wide else ""}--optimizer "{_spec(optimizer)}(eps={small:.0e})".'


def _spec(optimizer: str) -> str:
    return optimizer.partition("(")[0]


def _underflows(name: str, size: float, dtype: str) -> bool:
    squares = name in ("adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "soap", "adafactor", *HIDING)
    return squares and dtype == "float32" and 0 < size < squares_underflow(dtype)


def _underflow(name: str, plateau: Plateau, dtype: str) -> Iterator[str]:
    size = plateau.gradient_median
    if size and _underflows(name, size, dtype):
        yield (
            f"squares of gradients below {number(squares_underflow(dtype))} underflow in float32, and the median |g_i| "
            f"is {number(size)}: no eps helps without --dtype float64."
        )


def _decay(name: str, settings: Mapping[str, Any], plateau: Plateau) -> Iterator[str]:
    """Decay shrinks every matrix a little, and a product of many by a lot."""
    strength, rate = settings.get("weight_decay", WEIGHT_DECAY.get(name, 0.0)), settings.get("lr")
    matrices = plateau.matrices
    if not plateau.present or not isinstance(rate, int | float) or not isinstance(strength, int | float):
        return
    if name not in ("adamw", "muon", "lion", "adafactor", "soap", "sophiah") or matrices < 3:
        return
    each = matrices * float(strength) * float(rate)
    if each > 0 and -math.expm1(-each * A_RUN) > SHRUNK:
        yield (
            f"weight_decay {strength:g} shrinks {matrices} matrices at once, and the gradient e-fold in "
            f"{number(1 / each, 2)} steps while the plateau lasts: use weight_decay=0."
        )


def _too_long(name: str, settings: Mapping[str, Any], plateaus: Sequence[Plateau]) -> Iterator[str]:
    """Gradient descent above the edge of stability, where it starts."""
    rate, momentum = settings.get("lr"), settings.get("momentum", 0.0)
    if name != "sgd" or not isinstance(rate, int | float) or not isinstance(momentum, int | float):
        return
    sharpest = max((plateau.highest for plateau in plateaus if plateau.highest is not None), default=0.0)
    if sharpest > 0 and rate * sharpest > 2 * (1 + momentum):
        most = 2 * (1 + momentum) / sharpest
        yield (
            f"lr {rate:g} is above {number(most)}, where gradient descent turns unstable at the largest curvature "
            f"{number(sharpest)}: its steps throw it about from the start."
        )


def _ended(run: Run, plateau: Plateau) -> Iterator[str]:
    steps = run.spent.steps
    over = unstable(run, plateau)
    if plateau.dead:
        yield "the network is dead where it starts: no gradient reaches its first layers, and no optimizer mends that."
    elif over is not None:
        how = {
            "diverged": f"diverged at step {steps:,}",
            "dead": f"all gradients became exactly zero by step {steps:,}",
        }
        went = how.get(run.outcome, "its loss goes up and down, which is no plateau")
        yield f"unstable: {over.says}; {went}: try {over.instead(plateau)}."
    elif run.outcome == "dead":
        yield (
            f"all gradients became exactly zero by step {steps:,}: its units died, which is no plateau. "
            f"The learning rate{_rate(run)} is too large: try a tenth of it."
        )
    elif run.outcome == "diverged":
        was = (
            "" if run.predicted is None else " Gradient descent leaves a plateau with a leap where curvature has grown."
        )
        yield f"diverged at step {steps:,}{_rate(run, ' with the learning rate')}: try a tenth of it.{was}"
    elif run.outcome == "stuck" and run.best_loss is not None and plateau.reference > plateau.floor:
        yield from _hardly(run, plateau, run.best_loss)


def _hardly(run: Run, plateau: Plateau, best: float) -> Iterator[str]:
    """How little it took: of the loss that it began with, or beside a constant's where that was far above it."""
    steps = f"{run.spent.steps:,} steps"
    first = next((loss for loss in run.loss if loss is not None), plateau.loss)
    reference = plateau.reference * (first / plateau.loss if plateau.loss else 1.0)  # on the samples that are watched
    if (reference - best) / (reference - plateau.floor) >= HARDLY:
        return
    if first - reference > HARDLY * (reference - plateau.floor):
        how = "still above" if best > reference else "hardly below"
        yield (
            f"{steps} brought the loss from {number(first)} to {number(best)}, which is {how} the {number(reference)} "
            f"of the best constant output{_expected(run)}."
        )
        return
    took = max((first - best) / (first - plateau.floor), 0.0) if first > plateau.floor else 0.0
    there = ": it is still on the plateau" if plateau.present else ""
    yield f"{steps} took {percent(took, 2)} of the loss{_expected(run)}{there}."


def _expected(run: Run) -> str:
    """What a law says of it, where it has not come so far."""
    found = run.predicted
    if found is None or found.low is None or found.low <= run.spent.steps:
        return ""
    if math.isinf(found.low):
        return ", as its law says that it never leaves"
    return f", where its law ({found.law}) lets it out after {_two_digits(found.low)} at the earliest"


def _two_digits(steps: float) -> str:
    return number(round(steps, 1 - math.floor(math.log10(steps))), 2)


def _rate(run: Run, before: str = "") -> str:
    rate = run.settings.get("lr")
    return f"{before} {rate:g}" if isinstance(rate, int | float) else ""


def _trusted(run: Run) -> Iterator[str]:
    region = run.region
    if region is None:
        return
    if region.untrusted is not None and region.untrusted >= UNTRUSTED:
        yield (
            f"rho was below 0.25 in {percent(region.untrusted, 2)} of the steps: the quadratic model cannot be trusted "
            "so far from the weights, as at the kinks of ReLU; `hessdiag trust-radius` says how far it can."
        )
    radii = [radius for radius in region.radius if radius is not None and radius > 0]
    if "damping" not in run.settings and radii and radii[-1] < COLLAPSED * max(radii):
        yield (
            f"its radius collapsed from {number(max(radii))} to {number(radii[-1])}, after {region.rejected:,} steps "
            "that were not taken."
        )


def _against_prediction(run: Run) -> Iterator[str]:
    """Where the run took longer than its law says."""
    found = run.predicted
    if found is None or found.high is None or run.steps is None or run.steps <= found.high:
        return
    yield f"it took {run.steps:,} steps, more than the {number(round(found.high))} that were predicted at most."
