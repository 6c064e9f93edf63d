"""How diagonal is the Hessian? The share of its absolute mass that lies on the diagonal, against random baselines."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.differences import movable
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.neuron_space import TANGENT_NUMBERS, NeuronSpace
from hessdiag.curvature.support import Support, support
from hessdiag.errors import ComputeError, SpecError
from hessdiag.linalg.tridiagonal import LONG
from hessdiag.machine import capacity, processes
from hessdiag.numbers import number
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.certificate import Certificate, Witness, certificate, share_witness
from hessdiag.questions.common.described import described, examined
from hessdiag.questions.common.in_metric import InMetric, MetricSpec, metric_of
from hessdiag.questions.common.metric import here
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Provenance
from hessdiag.questions.common.row_sizes import SKETCHES
from hessdiag.questions.common.runs.outlay import Outlay, outlay
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.runs.resume import kept_pieces
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.diag_share import rows as rows_of
from hessdiag.questions.diag_share.baselines import baselines
from hessdiag.questions.diag_share.result import DiagShare, ShareTheory
from hessdiag.questions.diag_share.rows import Computed, Rows
from hessdiag.questions.diag_share.totals import Totals, summarize
from hessdiag.questions.diag_share.verdict import NOISE, findings
from hessdiag.statistics.sampling import Draw
from hessdiag.theory import wigner_ols

EXACT_UP_TO = 10_000  # rows by products; beyond, rows are sampled unless asked otherwise
EXACT_WORK = 2e12  # floating-point operations in neuron space, likewise; more on a GPU (`capacity`)
SAMPLED_ROWS = 1_000


@dataclass(frozen=True)
class _Plan:
    """What is going to be computed.

    Attributes:
        part: The problem, without parameters that the batches do not touch.
        taken: The metric that it is taken in.
        operator: Its Hessian, in the metric.
        checks: What the check of products found.
        space: The neuron space that rows come from; `None` where they come from products.
        against: What speaks against one.
        exact: Whether all rows are computed.
        rows: How many are.
        pieces: Where they are kept.
    """

    part: Support
    taken: InMetric
    operator: HessianOperator
    checks: Examination
    space: NeuronSpace | None
    against: str | None
    exact: bool
    rows: int
    pieces: Pieces


@recorded
@measurement(less="--rows 100")
def diag_share(
    problem: Problem | HessianOperator,
    *,
    rows: int | Literal["all"] | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    metric: MetricSpec = None,
) -> DiagShare:
    """Measure how diagonal the Hessian of a problem is.

    The share is that of Kohler, Adolphs and Lucchi (Adaptive norms for deep learning with regularized Newton methods).
    Rows are computed exactly: those of linear layers in neuron space, others by a product with a unit vector each. A
    sample of rows is drawn without replacement, in strata by parameter tensor and by a first guess of the rows'
    absolute sums (a Cauchy sketch, Indyk 2006).

    Args:
        problem: What is differentiated, or its Hessian as an operator.
        rows: How many rows to compute; "all" for an exact answer. Default: all where that takes seconds to minutes,
            which linear layers hardly limit and others do at about 10,000 parameters; else 1,000.
        seed: Of the sample.
        resume: A folder for what is finished. A run of the same problem with the same settings takes up what it holds.
        progress: Called with (done, total, what).
        metric: The optimizer in whose metric P^(-1/2) H P^(-1/2) it is taken: "adam(lr=1e-4)", the state in a
            checkpoint, a live optimizer, or the diagonal of P, (N,). Default: the Hessian itself.

    Returns:
        The measurement with baselines, self-checks and verdict; after a keyboard interrupt, of what was computed.

    Raises:
        SpecError: if `rows` is not positive, or the folder holds another run.
        ComputeError: if the Hessian cannot be computed.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> share = diag_share(Problem(model, data=data, loss="mse"))  # H = 2 [[1, 2], [2, 4]]
    >>> round(share.diag_share, 6), share.method, share.baselines.wigner
    (0.555556, 'exact', 0.5)
    """
    if rows is not None and rows != "all" and rows < 1:
        raise SpecError(f"--rows must be a positive number or all, not {rows}.", "--rows 1000")
    problem = problem_of(problem, "hessdiag.linalg.diagonal(operator, products=100)")
    plan = _planned(problem, rows, seed, resume, metric_of(problem, metric))
    computed = _computed(plan, seed, progress or silent)
    return _assembled(plan, computed)


def _planned(
    problem: Problem, rows: int | Literal["all"] | None, seed: int, resume: str | Path | None, taken: InMetric
) -> _Plan:
    part = support(problem, EXACT_UP_TO, seed=seed, numeric=False)
    n = part.size
    operator = taken.operator(HessianOperator(part.problem, check=False), part)
    spent = outlay(operator)
    checks = examine(operator, seed)  # first: a model that cannot be differentiated twice needs no neuron space
    whole = rows == "all" or rows is None or rows >= n
    space, against = rows_of.neuron_space(operator) if whole else (None, None)
    exact = whole and (rows is not None or _affordable(part.problem, space))
    wanted = n if exact else min(n, rows if isinstance(rows, int) else SAMPLED_ROWS)
    space = space if exact else None
    _enter(spent, operator, space, wanted, exact=exact)
    settings = {"rows": rows, "seed": seed, "metric": taken.key}
    pieces = kept_pieces(problem, "diag-share", settings, resume, operator)
    return _Plan(part, taken, operator, checks, space, against, exact, wanted, pieces)


def _computed(plan: _Plan, seed: int, report: Progress) -> Computed:
    """The rows; after an interrupt, those that are done."""
    operator, pieces = plan.operator, plan.pieces
    try:
        if plan.space is not None:
            return rows_of.by_neurons(operator, plan.space, seed, pieces, report)
        if plan.exact:
            return rows_of.by_products(operator, seed, pieces, report, plan.against)
        return rows_of.sampled(operator, plan.rows, seed, pieces, report)
    except KeyboardInterrupt:  # before the first row
        if processes.together():
            raise
        return rows_of.nothing(plan.part.problem, operator.engine)


def _enter(spent: Outlay, operator: HessianOperator, space: NeuronSpace | None, rows: int, *, exact: bool) -> None:
    """Enter in the ledger what is planned: products, and what is held beside them, in vectors."""
    item, sums = operator.dtype.itemsize, len(operator.problem.layer_slices) + 1
    double = 8 / item  # a vector in float64
    n, long = operator.shape[0], operator.shape[0] > LONG  # then the sketch takes one vector at a time
    sketch = {"sketch": 2 * (1 + double) * (1 if long else SKETCHES // 2)}
    larger: dict[str, float] = {"rows of a pass": 4 * operator.chunk}
    guessed = space is not None or not exact or rows_of.is_guessed(n)
    if guessed and sketch["sketch"] > larger["rows of a pass"]:
        larger = sketch
    draw = {"sizes of rows": (7 if guessed else 3) * double}
    if space is not None:
        numbers = 2 * (TANGENT_NUMBERS + capacity.of(operator.device).panel_numbers)
        held = {"sums of rows": sums * double, "neurons": numbers / n}
        spent.plan(len(space.others) + len(space.layers) + SKETCHES, {**larger, **draw, **held})
        return
    kept = {"sums of rows": rows * sums * double / n}
    spent.plan(rows + SKETCHES * guessed, {**larger, **draw, **kept})


def _assembled(plan: _Plan, computed: Computed) -> DiagShare:
    """From rows to the measurement with its verdict."""
    part, checks = plan.part, plan.checks
    problem = part.whole
    entry = _negative_entry(plan.operator, computed.rows, checks)
    zero_rows = (computed.zero_rows * part.size + part.untouched) / problem.n_parameters
    complete = plan.exact and len(computed.rows.indices) == part.size
    rows, strata, draw = _among_all(part, computed)
    found = summarize(problem, rows, strata, zero_rows, complete, draw)
    diagonal = rows.diagonal if complete and rows.diagonal.max(initial=0.0) > 0 and rows.diagonal.min() >= 0 else None
    share = DiagShare(
        status="interrupted" if computed.interrupted else "inexact" if checks.failed else "ok",
        problem=described(problem),
        theory=ShareTheory(
            psd_floor=wigner_ols.psd_floor(problem.n_parameters),
            psd_floor_diagonal=None if diagonal is None else wigner_ols.psd_floor_diagonal(diagonal),
        ),
        diag_share=found.diag_share.value,
        diag_share_stderr=found.diag_share.stderr,
        diag_share_interval=found.diag_share.interval,
        method="exact" if complete else "rows",
        rows=len(rows.indices),
        parameters=problem.n_parameters,
        abs_diag_sum=found.abs_diag_sum,
        abs_sum=found.abs_sum,
        trace=found.trace,
        negative_diagonal_fraction=found.negative_diagonal_fraction,
        negative_entry=None if entry is None else entry.of_row,
        negative_certificate=_certificate(entry, found, part.size, here(plan.taken.named), trusted=not checks.failed),
        untouched=part.untouched,
        merged_strata=computed.merged,
        zero_rows=found.zero_rows,
        layer_block_share=found.layer_block_share.value,
        layer_block_share_stderr=found.layer_block_share.stderr,
        layer_block_share_interval=found.layer_block_share.interval,
        layer_block_matrix=found.layer_block_matrix,
        layers=found.layers,
        baselines=baselines(problem),
        hvps=computed.products,
        engine=computed.engine,
        metric=plan.taken.named,
        trajectory=None,
        provenance=Provenance(resumed_pieces=plan.pieces.taken or None),
    )
    share = examined(share, checks)
    return replace(share, findings=tuple(findings(share)))


def _among_all(part: Support, computed: Computed) -> tuple[Rows, list[NDArray[np.int64]], Draw | None]:
    """Rows, strata and how they were drawn, by their places among all parameters, and columns among all layers."""
    rows, draw = computed.rows, computed.draw
    if not part.zeros:
        return rows, computed.strata, draw
    places, n = part.kept.numpy(), part.whole.n_parameters
    names = [layer.name for layer in part.whole.layer_slices]
    sums = np.zeros((len(rows.indices), len(names)))
    sums[:, [names.index(layer.name) for layer in part.problem.layer_slices]] = rows.sums
    units = None if rows.units is None else places[rows.units]
    strata = [places[stratum] for stratum in computed.strata]
    return Rows(places[rows.indices], rows.diagonal, sums, units), strata, draw and draw.among(places, n)


@dataclass(frozen=True)
class _Entry:
    """An entry of the diagonal, and what part of its row's absolute sum it is."""

    value: float
    of_row: float


def _certificate(entry: _Entry | None, found: Totals, size: int, metric: str, *, trusted: bool) -> Certificate:
    """From the most negative entry of the diagonal and, where all rows are known, from the share."""
    witnesses = []
    if entry is not None:
        says = f"the diagonal has the entry {number(entry.value, 4)}, the curvature along one parameter{metric}"
        margin = NOISE * abs(entry.value / entry.of_row) if entry.of_row else 0.0
        witnesses.append(Witness(entry.value, says, margin))
    if found.trace is not None and found.abs_sum is not None and size > 1:
        witnesses.append(share_witness(size, found.trace, found.abs_sum))
    otherwise = "no entry of the diagonal is negative beyond rounding, which does not exclude negative curvature"
    return certificate(witnesses, trusted=trusted, otherwise=otherwise)


def _negative_entry(operator: HessianOperator, rows: Rows, checks: Examination) -> _Entry | None:
    """The most negative entry, anew in float64: in a coarse dtype rounding makes some too.

    Not the one that is most negative beside its row: where a row vanishes but for rounding, as that of an attention's
    key bias does, such a ratio is noise in any dtype.
    """
    if not len(rows.diagonal) or rows.diagonal.min() >= 0:
        return None
    worst = int(rows.diagonal.argmin())
    known = _Entry(float(rows.diagonal[worst]), float(rows.diagonal[worst] / rows.sums[worst].sum()))
    problem = operator.problem
    if rows.whole and (problem.dtype == torch.float64 or checks.moved is not None):  # differences are in float64 anyway
        return known
    index = int(rows.indices[worst])
    try:
        row = operator.on(movable(problem).problem).rows(torch.tensor([index]))[0]
    except ComputeError:
        return known
    return _Entry(float(row[index]), float(row[index] / row.abs().sum()))


def _affordable(problem: Problem, space: NeuronSpace | None) -> bool:
    """Whether all rows take seconds to minutes. By counts, not clocks: the same problem is always answered alike."""
    by_products = problem.n_parameters if space is None else len(space.others)
    work = 0.0 if space is None else problem.n_samples * float(problem.n_parameters - by_products) ** 2
    return by_products <= EXACT_UP_TO and work <= EXACT_WORK * capacity.of(problem.device).times_work
