"""How diagonal is the Hessian? The share of its absolute mass that lies on the diagonal, against random baselines."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.curvature import exact as exact_rows
from hessdiag.curvature import parallel, sampling
from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.differences import movable
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.memory import free_bytes
from hessdiag.curvature.neuron_space import NeuronSpace, NotInNeuronSpaceError
from hessdiag.curvature.sampling import Ratio, Stratum
from hessdiag.curvature.support import Support, support
from hessdiag.diagnostics import operators
from hessdiag.diagnostics.baselines import Baselines, baselines
from hessdiag.diagnostics.certificate import Certificate, Witness, certificate, share_witness
from hessdiag.diagnostics.diag_share_verdict import NOISE, findings
from hessdiag.diagnostics.measured import Measured
from hessdiag.diagnostics.verdict import Status
from hessdiag.errors import ComputeError, SpecError
from hessdiag.numbers import number
from hessdiag.problem.problem import Layer, Problem
from hessdiag.theory import wigner_ols

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

EXACT_UP_TO = 10_000  # rows by products; beyond, rows are sampled unless asked otherwise
EXACT_WORK = 2e12  # floating-point operations in neuron space, likewise
SAMPLED_ROWS = 1_000
SKETCHES = 8  # Cauchy probes for the first guess of the rows' sizes


@dataclass(frozen=True)
class LayerShare:
    """Diagonal share of one layer's own block, beside the baselines of a matrix of its size.

    What was not measured is `None`: of a layer of which an interrupt left rows out that nothing stands for. A block
    that vanishes has the share NaN.
    """

    name: str
    kind: str
    parameters: int
    rows: int
    diag_share: float | None
    diag_share_stderr: float | None
    diag_share_interval: tuple[float, float] | None
    wigner: float
    ols_gaussian: float
    abs_sum: float | None


@dataclass(frozen=True)
class DiagShare(Measured):
    """How diagonal a Hessian is. What an interrupt left unmeasured is `None`.

    Attributes:
        diag_share: sum_i |H_ii| / sum_ij |H_ij|, in [0, 1]; NaN where H vanishes.
        diag_share_stderr: Its standard error; `None` when every row was computed.
        diag_share_interval: 95 % interval; `None` likewise.
        method: "exact" or "rows" (a sample of rows, each exact).
        rows: Rows computed.
        parameters: N.
        abs_diag_sum: sum_i |H_ii|, estimated if sampled.
        abs_sum: sum_ij |H_ij|, likewise.
        trace: sum_i H_ii; `None` if sampled.
        negative_diagonal_fraction: Fraction of negative entries on the diagonal, those of rounding included.
        negative_entry: The most negative H_ii over its row's absolute sum, computed anew in float64 (or the widest
            dtype that the model takes); `None` where no entry is negative.
        negative_certificate: Whether negative curvature is proven: by that entry, or by a share below 1/N of all rows.
        untouched: Parameters that the batches do not touch, whose rows are zero and were left out; 0 unless they are a
            tenth of more than 10,000.
        zero_rows: Fraction of rows that vanish entirely: dead units, constant inputs, parameters out of reach.
        layer_block_share: Share of the absolute mass inside the layer-diagonal blocks.
        layer_block_share_stderr: Its standard error; `None` when exact.
        layer_block_share_interval: 95 % interval; `None` likewise.
        layer_block_matrix: Share of each pair of layers, (L, L); sums to 1.
        layers: One entry per layer, in the order in which they are executed.
        baselines: What random matrices have.
        hvps: Hessian-vector products spent, self-checks not counted.
        engine: How the products were computed.
        status: "ok", "inexact" (a self-check failed) or "interrupted".
    """

    diag_share: float | None
    diag_share_stderr: float | None
    diag_share_interval: tuple[float, float] | None
    method: Literal["exact", "rows"]
    rows: int
    parameters: int
    abs_diag_sum: float | None
    abs_sum: float | None
    trace: float | None
    negative_diagonal_fraction: float | None
    negative_entry: float | None
    negative_certificate: Certificate
    untouched: int
    zero_rows: float | None
    layer_block_share: float | None
    layer_block_share_stderr: float | None
    layer_block_share_interval: tuple[float, float] | None
    layer_block_matrix: list[list[float]] | None
    layers: tuple[LayerShare, ...]
    baselines: Baselines
    hvps: int
    engine: str

    @property
    def theory(self) -> dict[str, Any]:
        """What closed forms predict, whatever the network: the floor below which H must be indefinite."""
        return {"psd_floor": wigner_ols.psd_floor(self.parameters)}

    def to_result(self) -> dict[str, Any]:
        """The document's "result"."""
        return super().to_result() | {"trajectory": None}


@dataclass(frozen=True)
class _Rows:
    """What is kept of each computed row: the diagonal entry, and absolute sums by column layer."""

    indices: NDArray[np.int64]
    diagonal: Floats  # (rows,)
    sums: Floats  # (rows, L)
    whole: bool = True  # or only such that they add up, which is what an interrupt leaves of neuron space


def diag_share(
    problem: Problem,
    *,
    rows: int | Literal["all"] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> DiagShare:
    """Measure how diagonal the Hessian of a problem is.

    The share is that of Kohler, Adolphs and Lucchi (Adaptive norms for deep learning with regularized Newton methods).
    Rows are computed exactly: those of linear layers in neuron space, others by a product with a unit vector each. A
    sample of rows is drawn without replacement, in strata by parameter tensor and by a first guess of the rows'
    absolute sums (a Cauchy sketch, Indyk 2006).

    Args:
        problem: What is differentiated.
        rows: How many rows to compute; "all" for an exact answer. Default: all where that takes seconds to minutes,
            which linear layers hardly limit and others do at about 10,000 parameters; else 1,000.
        seed: Of the sample.
        progress: Called with (done, total, what).

    Returns:
        The measurement with baselines, self-checks and verdict; after a keyboard interrupt, of what was computed.

    Raises:
        SpecError: if `rows` is not positive.
        ComputeError: if the Hessian cannot be computed.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> share = diag_share(Problem(model, data=data, loss="mse"))  # H = 2 [[1, 2], [2, 4]]
    >>> round(share.diag_share, 6), share.method, share.baselines.wigner
    (0.555556, 'exact', 0.5)
    """
    if rows is not None and rows != "all" and rows < 1:
        raise SpecError(f"--rows must be a positive number or all, not {rows}.", "--rows 1000")
    part = support(problem, EXACT_UP_TO, seed=seed, numeric=False)
    n = part.size
    operator = HessianOperator(part.problem, check=False)
    checks = examine(operator, seed)  # first: a model that cannot be differentiated twice needs no neuron space
    whole = rows == "all" or rows is None or rows >= n
    space, reason = _neuron_space(operator) if whole else (None, None)
    exact = whole and (rows is not None or _affordable(part.problem, space))
    wanted = n if exact else min(n, rows if isinstance(rows, int) else SAMPLED_ROWS)
    report = progress or (lambda done, total, what: None)
    what = "all" if exact else f"{wanted:,} of"
    report(0, wanted, f"{n:,} parameters: {what} {n:,} Hessian rows, {operator.chunk} a pass")

    rng = np.random.default_rng(seed)
    groups = _groups(part.problem)
    zero_rows, products = 0.0, SKETCHES if not exact else 0
    if exact and space is not None:
        computed, products, strata = _stream(operator, space, groups, rng, report)
        engine = f"neuron space (linear layers), {operator.engine} (others)"
        stopped = len(computed.indices) < n
        return _finished(
            part, computed, strata, 0.0, checks, engine, products, complete=not stopped, interrupted=stopped
        )
    if exact:
        strata, order = groups, sampling.spread_order(groups, rng, sampling.LEAST_PER_STRATUM)
    else:
        scale = _row_scales(operator, seed)
        zero_rows = float((scale == 0).mean())
        strata = sampling.strata_by_scale(groups, scale, wanted)
        order = _sample(strata, scale, wanted, rng)
    computed, interrupted = _compute(operator, part.problem.layer_slices, order, report)
    complete = exact and not interrupted
    if complete:
        ascending = np.argsort(computed.indices)
        computed = _Rows(computed.indices[ascending], computed.diagonal[ascending], computed.sums[ascending])
    products += len(computed.indices)
    engine = operator.engine if reason is None else f"{operator.engine}; not in neuron space: {reason}"
    return _finished(
        part, computed, strata, zero_rows, checks, engine, products, complete=complete, interrupted=interrupted
    )


def _finished(
    part: Support,
    computed: _Rows,
    strata: list[NDArray[np.int64]],
    zero_rows: float,
    checks: Examination,
    engine: str,
    products: int,
    *,
    complete: bool,
    interrupted: bool,
) -> DiagShare:
    """From rows to the measurement with its verdict."""
    problem = part.whole
    entry = _negative_entry(part.problem, computed, checks)
    zero_rows = (zero_rows * part.size + part.untouched) / problem.n_parameters
    summary = _summarize(problem, *_among_all(part, computed, strata), zero_rows, complete)
    status: Status = "interrupted" if interrupted else "inexact" if checks.failed else "ok"
    measured = DiagShare(
        **summary,
        negative_entry=entry and entry[1],
        negative_certificate=_certificate(entry, summary, part.size, trusted=not checks.failed),
        untouched=part.untouched,
        baselines=baselines(problem),
        hvps=products,
        engine=engine,
        status=status,
        **operators.trust(checks),
    )
    return replace(measured, findings=tuple(findings(measured, problem)))


def _among_all(part: Support, rows: _Rows, strata: list[NDArray[np.int64]]) -> tuple[_Rows, list[NDArray[np.int64]]]:
    """Rows and strata by their places among all parameters, and columns among all layers."""
    if not part.zeros:
        return rows, strata
    places = part.kept.numpy()
    names = [layer.name for layer in part.whole.layer_slices]
    sums = np.zeros((len(rows.indices), len(names)))
    sums[:, [names.index(layer.name) for layer in part.problem.layer_slices]] = rows.sums
    return _Rows(places[rows.indices], rows.diagonal, sums), [places[stratum] for stratum in strata]


def _certificate(
    entry: tuple[float, float] | None, summary: dict[str, Any], size: int, *, trusted: bool
) -> Certificate:
    """From the most negative entry of the diagonal and, where all rows are known, from the share."""
    witnesses = []
    if entry is not None:
        value, ratio = entry
        says = f"the diagonal has the entry {number(value, 4)}, the curvature along one parameter"
        witnesses.append(Witness(value, says, NOISE * abs(value / ratio) if ratio else 0.0))
    if summary["trace"] is not None and size > 1:
        witnesses.append(share_witness(size, summary["trace"], summary["abs_sum"]))
    otherwise = "no entry of the diagonal is negative beyond rounding, which does not exclude negative curvature"
    return certificate(witnesses, trusted=trusted, otherwise=otherwise)


def _negative_entry(problem: Problem, rows: _Rows, checks: Examination) -> tuple[float, float] | None:
    """The most negative entry, and its share of its row, anew in float64: in a coarse dtype rounding makes some too.

    Not the one that is most negative beside its row: where a row vanishes but for rounding, as that of an attention's
    key bias does, such a ratio is noise in any dtype.
    """
    if not len(rows.diagonal) or rows.diagonal.min() >= 0:
        return None
    worst = int(rows.diagonal.argmin())
    known = float(rows.diagonal[worst]), float(rows.diagonal[worst] / rows.sums[worst].sum())
    if rows.whole and (problem.dtype == torch.float64 or checks.moved is not None):  # differences are in float64 anyway
        return known
    index = int(rows.indices[worst])
    try:
        row = HessianOperator(movable(problem).problem, check=False).rows(torch.tensor([index]))[0]
    except ComputeError:
        return known
    return float(row[index]), float(row[index] / row.abs().sum())


def _neuron_space(operator: HessianOperator) -> tuple[NeuronSpace | None, str | None]:
    """The certified neuron space, or the reason why there is none."""
    try:
        return exact_rows.neuron_space(operator), None
    except NotInNeuronSpaceError as reason:
        return None, str(reason)


def _affordable(problem: Problem, space: NeuronSpace | None) -> bool:
    """Whether all rows take seconds to minutes. By counts, not clocks: the same problem is always answered alike."""
    by_products = problem.n_parameters if space is None else len(space.others)
    work = 0.0 if space is None else problem.n_samples * float(problem.n_parameters - by_products) ** 2
    return by_products <= EXACT_UP_TO and work <= EXACT_WORK


def _stream(
    operator: HessianOperator,
    space: NeuronSpace,
    groups: list[NDArray[np.int64]],
    rng: np.random.Generator,
    report: Progress,
) -> tuple[_Rows, int, list[NDArray[np.int64]]]:
    """All rows by way of neuron space, and their strata. After an interrupt, those of linear layers and some others.

    Then an entry between a linear layer and another one is known from the other's row alone, and counts twice there.
    """
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        report(done, operator.shape[0], "")

    others = space.others.numpy()
    by_products = [group for group in groups if np.isin(group[0], others)]
    order = sampling.spread_order(by_products, rng, sampling.LEAST_PER_STRATUM)
    found = exact_rows.row_statistics(operator, space, advance, torch.from_numpy(order))
    computed = np.setdiff1d(np.arange(operator.shape[0]), found.missing.numpy())
    diagonal, sums = found.diagonal.numpy()[computed], found.sums.numpy()[computed]
    if len(found.missing):
        linear = [neuron.layer for neuron in space.layers]
        columns = [index for index, layer in enumerate(operator.problem.layer_slices) if layer in linear]
        sums[np.ix_(np.flatnonzero(np.isin(computed, others)), np.array(columns))] *= 2
    return _Rows(computed, diagonal, sums, not len(found.missing)), found.products, groups


def _groups(problem: Problem) -> list[NDArray[np.int64]]:
    """Row numbers of each parameter tensor: weights and biases of one layer have rows of different sizes."""
    stops = np.cumsum([parameter.numel() for parameter in problem.parameters])
    return [
        np.arange(stop - parameter.numel(), stop) for parameter, stop in zip(problem.parameters, stops, strict=True)
    ]


def _row_scales(operator: HessianOperator, seed: int) -> Floats:
    """A guess of every row's absolute sum, zero for zero rows only: H times a Cauchy vector is Cauchy of that scale."""
    uniform = torch.rand(
        operator.shape[0], SKETCHES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    cauchy = torch.tan(math.pi * (uniform - 0.5)).to(operator.device, operator.dtype)
    sketch = (operator @ cauchy).double().abs().cpu().numpy()
    with np.errstate(divide="ignore"):
        return np.where(sketch.max(1) > 0, np.exp(np.log(np.maximum(sketch, np.finfo(float).tiny)).mean(1)), 0.0)


def _sample(strata: list[NDArray[np.int64]], scale: Floats, rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if not strata:
        return np.array([], dtype=np.int64)
    counts = sampling.allocate(strata, scale, rows)
    drawn = [rng.choice(stratum, count, replace=False) for stratum, count in zip(strata, counts, strict=True)]
    return sampling.spread_order(drawn, rng)


def _compute(
    operator: HessianOperator, layers: tuple[Layer, ...], order: NDArray[np.int64], report: Progress
) -> tuple[_Rows, bool]:
    """Compute rows in order, keeping their sums only; an interrupt from the keyboard ends early."""
    own: dict[int, tuple[Floats, Floats]] = {}
    done, interrupted = 0, False
    passes = list(_passes(operator, order))
    try:
        for index, indices in enumerate(passes):
            if parallel.is_own(index):
                own[index] = _row_sums(operator.rows(indices), indices, layers)
            done += len(indices)
            report(done, len(order), "")
        found = parallel.merged(own, operator.device)
    except KeyboardInterrupt:
        if not own or parallel.ranks()[1] > 1:
            raise
        interrupted, found = True, list(own.values())
    if not found:
        return _Rows(order[:0], np.zeros(0), np.zeros((0, len(layers)))), interrupted
    diagonals, sums = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _Rows(order[: len(diagonals)], diagonals, sums), interrupted


def _row_sums(block: torch.Tensor, indices: torch.Tensor, layers: tuple[Layer, ...]) -> tuple[Floats, Floats]:
    """Of some rows: the diagonal entries, and absolute sums by column layer."""
    diagonal = block.gather(1, indices.to(block.device)[:, None])[:, 0].double().cpu().numpy()
    block = block.abs_()
    by_layer = [block[:, layer.start : layer.stop].sum(1, dtype=torch.float64) for layer in layers]
    return diagonal, torch.stack(by_layer, dim=1).cpu().numpy()


def _passes(operator: HessianOperator, order: NDArray[np.int64]) -> Iterator[torch.Tensor]:
    """Row numbers in portions: one pass each, or many where each portion rebuilds the graphs of several batches."""
    size = operator.chunk
    if len(operator.problem.data) > 1:
        row_bytes = operator.shape[1] * operator.dtype.itemsize
        size = max(size, min(1024, free_bytes(operator.device) // 16 // row_bytes))
    for start in range(0, len(order), size):
        yield torch.from_numpy(order[start : start + size])


def _drawn(strata: list[NDArray[np.int64]], computed: NDArray[np.int64]) -> list[Stratum]:
    """Match computed rows to the strata that they stand for; a stratum that was not reached has none."""
    place = np.full(max((int(stratum.max()) for stratum in strata), default=0) + 1, -1)
    place[computed] = np.arange(len(computed))
    return [Stratum(len(stratum), place[stratum][place[stratum] >= 0]) for stratum in strata]


def _share(numerator: Floats, denominator: Floats, strata: list[Stratum]) -> Ratio | None:
    """As `sampling.ratio`, and `None` where all computed rows vanish but others may not: that is no number either."""
    found = sampling.ratio(numerator, denominator, strata)
    census = all(len(stratum.drawn) == stratum.size for stratum in strata)
    return None if found is None or (math.isnan(found.value) and not census) else found


def _described(name: str, share: Ratio | None, complete: bool) -> dict[str, Any]:
    """A share with its error and interval, which are `None` where it is exact, and all of them where it is unknown."""
    known = complete or (share is not None and share.interval[0] == share.interval[1])  # all of its rows are there
    sampled = None if known else share
    return {
        name: share and share.value,
        f"{name}_stderr": sampled and sampled.stderr,
        f"{name}_interval": sampled and sampled.interval,
    }


def _summarize(
    problem: Problem, rows: _Rows, places: list[NDArray[np.int64]], zero_rows: float, complete: bool
) -> dict[str, Any]:
    """From rows to shares and totals. Nothing is said of a total whose rows are not all stood for."""
    layers, n = problem.layer_slices, problem.n_parameters
    strata = _drawn(places, rows.indices)
    magnitude, whole = np.abs(rows.diagonal), rows.sums.sum(1)
    stops = [layer.stop for layer in layers]
    owner = np.searchsorted(stops, rows.indices, side="right")
    own = np.take_along_axis(rows.sums, owner[:, None], axis=1)[:, 0] if len(rows.indices) else whole
    owners = [int(np.searchsorted(stops, stratum[0], side="right")) for stratum in places]
    by_layer = [[s for s, other in zip(strata, owners, strict=True) if other == index] for index in range(len(layers))]
    reached = all(len(stratum.drawn) for stratum in strata)
    executed = [layers.index(layer) for layer in problem.executed_layers]
    values: dict[str, Any] = dict.fromkeys(
        ("abs_diag_sum", "abs_sum", "negative_diagonal_fraction", "zero_rows", "layer_block_matrix")
    )
    if reached:
        mass = sampling.total(whole, strata)
        matrix = np.array([sampling.totals(rows.sums, mine) if mine else np.zeros(len(layers)) for mine in by_layer])
        matrix = (matrix + matrix.T) / 2
        vanishing = sampling.total((whole == 0).astype(float), strata)
        values = {
            "abs_diag_sum": sampling.total(magnitude, strata),
            "abs_sum": mass,
            "negative_diagonal_fraction": sampling.total((rows.diagonal < 0).astype(float), strata) / n,
            "zero_rows": None if not rows.whole else zero_rows + vanishing / n if strata else 1.0,
            "layer_block_matrix": (matrix / mass if mass > 0 else np.full_like(matrix, np.nan))[
                np.ix_(executed, executed)
            ].tolist(),
        }
    return {
        **_described("diag_share", _share(magnitude, whole, strata), complete),
        **_described("layer_block_share", _share(own, whole, strata), complete),
        **values,
        "method": "exact" if complete else "rows",
        "rows": len(rows.indices),
        "parameters": n,
        "trace": float(rows.diagonal.sum()) if complete else None,
        "layers": tuple(
            LayerShare(
                name=layer.name,
                kind=layer.kind,
                parameters=layer.size,
                rows=int((owner == index).sum()),
                **_described("diag_share", _share(magnitude, own, mine), complete),
                wigner=wigner_ols.wigner_share(layer.size),
                ols_gaussian=wigner_ols.ols_share_gaussian(problem.n_targets, layer.size),
                abs_sum=sampling.total(own, mine) if all(len(stratum.drawn) for stratum in mine) else None,
            )
            for index, layer, mine in ((index, layers[index], by_layer[index]) for index in executed)
        ),
    }
