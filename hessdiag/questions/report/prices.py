"""What each question takes, announced from the pace of products here and from how its command works.

Counts of products are the commands' own where these know them, and of searches what they took on networks of 1,700 to
1,900,000 parameters; tests compare both with what is spent.
"""

from collections.abc import Callable, Mapping
from types import ModuleType

from hessdiag.questions import registry
from hessdiag.questions.common.row_sizes import SKETCHES
from hessdiag.questions.report.pace import Pace, Sizes
from hessdiag.questions.report.steps import Options, Step

SEARCH = 32.0  # products to the outermost eigenpair, about
EACH_PAIR = 8.0  # and for each further one
LOSSES = 12.0  # along a step
PARTS = 10.0  # gradients of parts of the data
STEPS_OF_CHECK = 120.0  # steps of optimizers, most of which end earlier
SECONDS_OF_CHECK = 0.6  # for them
PASSES_OF_CHECK = 20.0  # gradients beside
ROWS = 1.3  # products' worth of a row with its sums
KINDS = 12.0  # of preconditioners
CUBES = 4.0  # decompositions' worth of arithmetic for each, of a dense matrix
SOLVED = 60.0  # products of conjugate gradients for each, of a large one
TO_PRODUCT = 3.0  # a step under a preconditioner over a product
NETWORK = 2.0  # losses' worth of a network that is drawn anew
OVERHEAD = 0.1  # seconds of any question: imports, descriptions, digests
RADII = 9.0
CONTENDERS = 9.0  # runs' worth of races, the search for learning rates included
CURVED = 3.0  # gradients that a backpropagation takes there, with its looks
INITS = 3.0
WORK = 1e10  # floating-point operations in a second, in neuron space

Price = Callable[[Options, Pace, Sizes], float]


def _of(command: str, module: str = "measure") -> ModuleType:
    return registry.question(command).module(module)


def price(step: Step, options: Options, pace: Pace, size: Sizes) -> float:
    """Seconds that a question with these options is announced to take, the check of the point included."""
    shared = 0.0 if step.command in ("check", "forward", "escape") else pace.checked
    return PRICES[step.command](options, pace, size) + shared + OVERHEAD


def _number(options: Options, name: str, usual: int) -> int:
    found: int = options.get(name, usual)
    return found


def _whole(n: int, pace: Pace, size: Sizes) -> float:
    """The dense matrix of n rows."""
    rows = n if size.others is None else size.others
    return rows * pace.together + (n - rows) * n * 4e-10


def _check(options: Options, pace: Pace, size: Sizes) -> float:
    steps = min(STEPS_OF_CHECK * pace.gradient, 2 * SECONDS_OF_CHECK)
    return PASSES_OF_CHECK * pace.gradient + steps


def _eigs(options: Options, pace: Pace, size: Sizes) -> float:
    n = size.parameters
    if n <= _of("eigs").DENSE_UP_TO * size.times_dense:
        return _whole(n, pace, size) + pace.cubed * n**3
    pairs = _number(options, "lowest", 5) + _number(options, "highest", 5)
    return pace.search(SEARCH + EACH_PAIR * (pairs - 2) * (1.0 if "tol" in options else 1.5))


def _sharpness(options: Options, pace: Pace, size: Sizes) -> float:
    return pace.search(2 * SEARCH) + LOSSES * pace.loss + PARTS * pace.gradient


def _trust(options: Options, pace: Pace, size: Sizes) -> float:
    norms = len(options.get("norms", (1, 2, 3)))
    products = 20 * norms
    return products * pace.product + 2 * norms * RADII * pace.loss + PARTS * pace.gradient


def _share(options: Options, pace: Pace, size: Sizes) -> float:
    measuring = _of("diag-share")
    n = size.parameters
    rows: int | None = options.get("rows")
    if rows is None:
        by_products = n if size.others is None else size.others
        work = size.samples * float(n - by_products) ** 2
        if by_products <= measuring.EXACT_UP_TO and work <= measuring.EXACT_WORK * size.times_work:
            return (by_products + SKETCHES) * pace.together + 2 * work / WORK
        rows = measuring.SAMPLED_ROWS
    return ROWS * (min(rows, n) + SKETCHES) * pace.together


def _blocks(options: Options, pace: Pace, size: Sizes) -> float:
    measuring = _of("blocks")
    n = size.parameters
    probes: int | None = options.get("probes")
    if probes is None and n <= measuring.EXACT_UP_TO:
        return _whole(n, pace, size) + n * pace.together
    each: int = size.layers * (probes or measuring.PROBES)
    return (3 * each + SKETCHES) * pace.together


def _spectrum(options: Options, pace: Pace, size: Sizes) -> float:
    n, measuring = size.parameters, _of("spectrum")
    if n <= measuring.EXACT_UP_TO * size.times_dense:
        return _whole(n, pace, size) + pace.cubed * n**3
    probes, steps = _number(options, "probes", 10), _number(options, "steps", 80)
    arithmetic: float = pace.vector * probes * sum(2.0 * step + 2.0 * measuring.ENDS for step in range(steps))
    return probes * (steps + 4) * pace.together + arithmetic + pace.search(2 * SEARCH)


def _bounds(options: Options, pace: Pace, size: Sizes) -> float:
    measuring, rows = _of("bounds"), _of("bounds", "rows")
    n = size.parameters
    if n <= measuring.DENSE_UP_TO:
        return _whole(n, pace, size) + 0.5 * pace.cubed * n**3
    count: int = n if n <= measuring.EXACT_UP_TO else rows.SKETCHES + rows.REFINED
    return count * pace.together + pace.search(SEARCH)


def _precondition(options: Options, pace: Pace, size: Sizes) -> float:
    n, measuring = size.parameters, _of("precondition")
    if n <= measuring.EXACT_UP_TO * size.times_dense:
        return _whole(n, pace, size) + KINDS * CUBES * pace.cubed * n**3
    steps, probes = _number(options, "steps", 200), _number(options, "probes", 4)
    products = TO_PRODUCT * (steps / 4 * probes / 4 + SOLVED)
    return pace.search(steps) + KINDS * (products * pace.product + pace.vector * steps**2)


def _forward(options: Options, pace: Pace, size: Sizes) -> float:
    return INITS * _number(options, "seeds", 200) * NETWORK * pace.loss


def _escape(options: Options, pace: Pace, size: Sizes) -> float:
    return CONTENDERS * _number(options, "budget", 1000) * CURVED * pace.gradient


PRICES: Mapping[str, Price] = {
    "check": _check,
    "eigs": _eigs,
    "sharpness": _sharpness,
    "trust-radius": _trust,
    "diag-share": _share,
    "blocks": _blocks,
    "spectrum": _spectrum,
    "bounds": _bounds,
    "precondition": _precondition,
    "forward": _forward,
    "escape": _escape,
}


def prices(steps: Mapping[str, Step], pace: Pace, size: Sizes, drift: float = 1.0) -> dict[str, tuple[float, ...]]:
    """By question, what each of its rungs takes.

    Args:
        steps: Those that may be asked.
        pace: As measured.
        size: Of the problem.
        drift: What earlier questions took over what was announced.
    """
    return {
        command: tuple(drift * price(step, options, pace, size) for options in step.rungs)
        for command, step in steps.items()
    }
