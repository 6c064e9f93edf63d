"""What each question takes, announced from the pace of products here and from how its command works.

Counts of products are the commands' own where these know them, and of searches what they took on MLPs, CNNs and small
GPTs. Tests compare both with what is spent: `python -m tests.benchmarks.report_budget` does so on larger networks.
"""

from collections.abc import Callable, Mapping
from types import ModuleType

from hessdiag.questions import registry
from hessdiag.questions.common.row_sizes import SKETCHES
from hessdiag.questions.report.pace import Pace, Sizes
from hessdiag.questions.report.steps import Options, Step

SEARCH = 32.0  # products to both outermost eigenpairs
EACH_PAIR = 4.0  # and for each further one
TWICE = 44.0  # to the outermost eigenpair of the Hessian and of its form in the optimizer's metric
LOSSES = 12.0  # along a step
PARTS = 10.0  # gradients of parts of the data
TRUSTED = 16.0  # products to the steps of all radii in a norm, after
FIRST_TRUSTED = 12.0  # for the first
DRAWN_ROWS = 15  # of a layer, to the mass of its diagonal, at least
ROWS = 1.2  # products' worth of a row with its sums
ALL_ENDS = 0.25  # decompositions' worth of the bounds of a dense matrix
CUBES = 2.5  # for each preconditioner of one
PREPARED = 0.05  # seconds beside
TO_PRODUCT = 1.2  # a product there over one by itself
WHITENED = 500.0  # vectors that a step under a preconditioner reads or writes, beside its product
NETWORK = 2.0  # losses' worth of a network that is drawn anew
AROUND = 4e-4  # seconds of a loss that are not the network's
DRAWN = 6e-8  # seconds for each of its parameters
DRAWN_LAYER = 7e-5  # and for each of its layers
OVERHEAD = 0.02  # seconds of any question: imports, descriptions, digests
RADII = 9.0
VECTORS = 60.0  # that arithmetic reads or writes for each
CONTENDERS = 9.0  # runs' worth of races, the search for learning rates included
CURVED = 3.0  # gradients that a backpropagation takes there, with its looks
INITS = 3.0
WORK = 1e10  # floating-point operations in a second, in neuron space
PULLS = 1.5  # gradients for each layer of the proof that neuron space serves
PANELS = 1.5e-4  # seconds for each two of its layers
MANY = 16  # vectors that share a pass, from which they take what many take

Price = Callable[[Options, Pace, Sizes], float]


def _of(command: str, module: str = "measure") -> ModuleType:
    return registry.question(command).module(module)


def price(step: Step, options: Options, pace: Pace, size: Sizes) -> float:
    """Seconds that a question with these options is announced to take, the check of the point included."""
    shared = 0.0 if step.command in ("forward", "escape") else pace.checked
    return PRICES[step.command](options, pace, size) + shared + OVERHEAD


def _number(options: Options, name: str, usual: int) -> int:
    found: int = options.get(name, usual)
    return found


def _whole(n: int, pace: Pace, size: Sizes) -> float:
    """The dense matrix of n rows."""
    rows = n if size.others is None else size.others
    return rows * pace.together + (n - rows) * n * 4e-10 + _proof(pace, size)


def _proof(pace: Pace, size: Sizes) -> float:
    """That neuron space serves, where it does."""
    if size.others is None:
        return 0.0
    return PULLS * size.layers * pace.gradient + PANELS * size.layers**2


def _sharing(vectors: int, pace: Pace) -> float:
    """A product of so many that share a pass."""
    return pace.few if vectors < MANY else pace.together


def _eigs(options: Options, pace: Pace, size: Sizes) -> float:
    n = size.parameters
    if n <= _of("eigs").DENSE_UP_TO * size.times_dense:
        return _whole(n, pace, size) + pace.cubed * n**3
    pairs = _number(options, "lowest", 5) + _number(options, "highest", 5)
    return pace.search(SEARCH + EACH_PAIR * (pairs - 2) * (1.0 if "tol" in options else 1.5))


def _sharpness(options: Options, pace: Pace, size: Sizes) -> float:
    return pace.search(TWICE) + LOSSES * pace.loss + PARTS * pace.gradient


def _trust(options: Options, pace: Pace, size: Sizes) -> float:
    norms = len(options.get("norms", (1, 2, 3)))
    products = FIRST_TRUSTED + TRUSTED * norms
    return products * pace.product + norms * RADII * (2 * pace.loss + VECTORS * pace.vector) + PARTS * pace.gradient


def _share(options: Options, pace: Pace, size: Sizes) -> float:
    measuring = _of("diag-share")
    n = size.parameters
    rows: int | None = options.get("rows")
    if rows is None or rows >= n:
        by_products = n if size.others is None else size.others
        work = size.samples * float(n - by_products) ** 2
        if by_products <= measuring.EXACT_UP_TO and work <= measuring.EXACT_WORK * size.times_work:
            return (by_products + SKETCHES) * pace.together + 2 * work / WORK + _proof(pace, size)
        rows = measuring.SAMPLED_ROWS
    return ROWS * (min(rows, n) + SKETCHES) * pace.together


def _blocks(options: Options, pace: Pace, size: Sizes) -> float:
    measuring = _of("blocks")
    n = size.parameters
    probes: int | None = options.get("probes")
    if probes is None and n <= measuring.EXACT_UP_TO:
        return _whole(n, pace, size) + n * pace.together
    if probes is None and size.pairs is not None:
        return size.pairs / WORK + _proof(pace, size)
    probes = probes or int(measuring.PROBES)
    rows = 0 if size.others is not None else max(probes, DRAWN_ROWS)  # where the residual's own blocks vanish: none
    return size.layers * (2 * probes + rows) * _sharing(probes, pace)


def _spectrum(options: Options, pace: Pace, size: Sizes) -> float:
    n, measuring = size.parameters, _of("spectrum")
    if n <= measuring.EXACT_UP_TO * size.times_dense:
        return _whole(n, pace, size) + pace.cubed * n**3
    probes, steps = _number(options, "probes", 10), _number(options, "steps", 80)
    arithmetic: float = pace.vector * probes * sum(2.0 * step + 2.0 * measuring.ENDS for step in range(steps))
    return probes * (steps + 4) * _sharing(probes, pace) + arithmetic + pace.search(2 * SEARCH)


def _bounds(options: Options, pace: Pace, size: Sizes) -> float:
    measuring, rows = _of("bounds"), _of("bounds", "rows")
    n = size.parameters
    if n <= measuring.DENSE_UP_TO:
        return _whole(n, pace, size) + ALL_ENDS * pace.cubed * n**3
    count: int = n if n <= measuring.EXACT_UP_TO else rows.SKETCHES + rows.REFINED
    return count * pace.together + pace.search(SEARCH)


def _precondition(options: Options, pace: Pace, size: Sizes) -> float:
    n, measuring = size.parameters, _of("precondition")
    reading, kinds = _of("precondition", "readings"), len(_of("precondition", "kinds").WORDS)
    if n <= measuring.EXACT_UP_TO * size.times_dense:
        return _whole(n, pace, size) + kinds * (PREPARED + CUBES * pace.cubed * n**3)
    steps, probes = min(_number(options, "steps", 200), n), _number(options, "probes", 4)
    products: float = kinds * (probes * reading.QUADRATURE_STEPS + 2 * reading.ENDS)  # and iterations, where told
    return pace.search(steps) + products * (TO_PRODUCT * pace.product + WHITENED * pace.vector)


def _forward(options: Options, pace: Pace, size: Sizes) -> float:
    passing = max(pace.loss - AROUND, pace.loss / 3)
    drawing = DRAWN * size.parameters + DRAWN_LAYER * size.layers
    return INITS * _number(options, "seeds", 200) * (NETWORK * passing + drawing)


def _escape(options: Options, pace: Pace, size: Sizes) -> float:
    return CONTENDERS * _number(options, "budget", 1000) * CURVED * pace.gradient


PRICES: Mapping[str, Price] = {
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
