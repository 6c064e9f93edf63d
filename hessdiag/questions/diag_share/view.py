"""The view of `diag-share`: how diagonal is the Hessian, against its baselines?"""

import math
from collections.abc import Sequence
from itertools import islice

from hessdiag.questions.common.metric import here, noun
from hessdiag.questions.common.view import metric_facts, subject
from hessdiag.questions.diag_share.result import DiagShare
from hessdiag.questions.diag_share.trajectory_view import NOT_MEASURED, along
from hessdiag.report.names import shortened
from hessdiag.report.numbers import MISSING, counted, interval, number, percent, ratio, with_interval
from hessdiag.report.view import Dots, Fact, Heat, Series, Table, View

FULL_MATRIX = 12  # layers up to which the block matrix is printed whole; beyond, its largest entries
LARGEST = 20
STRATA = 4  # of several tensors, that are named
FEW = 2  # tensors of one of them that are all named


def view(result: DiagShare) -> View:
    """Lay out a result of `diag-share`."""
    charts = (_comparison(result), _layers(result), _blocks(result))
    page = View(
        question=f"How diagonal is the {noun('Hessian', result.metric)}?",
        subject=subject(result.problem),
        headline=_headline(result),
        facts=_facts(result),
        blocks=tuple(chart for chart in charts if chart is not None),
    )
    return along(page, result.trajectory, result.change, result.metric) if result.trajectory else page


def _headline(result: DiagShare) -> tuple[str, str]:
    share, wigner = result.diag_share, result.baselines.wigner
    if share is None:
        return NOT_MEASURED, "before the interrupt: some rows stand for nothing yet"
    if math.isnan(share):
        return MISSING, "the Hessian is zero, and so has no share on its diagonal"
    bounds = result.diag_share_interval
    nothing = bounds is not None and tuple(bounds) == (0.0, 1.0)
    doubt = "; how far off is unknown: the sampled rows say too little of the rest" if nothing else ""
    return (
        with_interval(share, bounds, 3),
        f"of Σ|H_ij| is on the diagonal{here(result.metric)}: {ratio(share, wigner)} the Wigner value 1/d{doubt}",
    )


def _strata(merged: Sequence[Sequence[str]]) -> str:
    """The strata of several tensors: the first and the last of many, and of long ones their ends."""
    names = iter(shortened([name for stratum in merged for name in stratum]))
    short = [list(islice(names, len(stratum))) for stratum in merged]
    said = [" + ".join(one) if len(one) <= FEW else f"{one[0]} to {one[-1]}" for one in short]
    if len(said) > STRATA:
        said[STRATA - 1 : -1] = [f"{len(said) - STRATA} more, in the JSON"]
    return "; ".join(said)


def _facts(result: DiagShare) -> tuple[Fact, ...]:
    exact = result.method == "exact"
    rows = f"all {number(result.rows)}" if exact else f"{number(result.rows)} of {number(result.parameters)}"
    every = "every row was computed" + (", but for those of untouched parameters" if result.untouched else "")
    how = every if exact else "rows drawn layer by layer, those guessed to be heavy more often"
    merged = result.merged_strata
    facts = [
        *metric_facts(result.metric),
        Fact("Hessian rows", rows, how),
        Fact(
            "strata merged",
            f"{sum(map(len, merged))} tensors in {len(merged)}" if merged else MISSING,
            f"too few rows for a stratum of each: {_strata(merged)}",
        ),
        Fact(
            "inside layer blocks",
            MISSING
            if math.isnan(result.layer_block_share or 0.0)
            else with_interval(result.layer_block_share, result.layer_block_share_interval, 3),
            "share of Σ|H_ij| where both parameters belong to one layer",
        ),
        Fact("trace", number(result.trace, 4), "sum of the diagonal, and of the eigenvalues"),
        Fact(
            "negative diagonal",
            percent(result.negative_diagonal_fraction),
            "of the diagonal entries; none in a PSD matrix",
        ),
        Fact(
            "PSD floor",
            percent(result.theory.psd_floor_diagonal) if result.theory else MISSING,
            "least share of a positive semidefinite matrix with this diagonal; below it, some eigenvalue is negative",
        ),
        Fact(
            "rows of zeros",
            percent(result.zero_rows),
            "parameters that the loss does not feel to second order",
        ),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _baselines(result: DiagShare) -> list[tuple[str, float, str]]:
    base = result.baselines
    if result.metric is not None:  # least squares on even data is no measure of what a scaling leaves
        says = f"symmetric, independent entries, d = {number(base.d)}: 1/d"
        return [("Wigner", base.wigner, says)]
    n, d, n_outputs, d_data = map(number, (base.n, base.d, base.n_outputs, base.ols_data_d))
    spread = "" if base.wigner_stdev is None else f"; one matrix ± {number(base.wigner_stdev, 2)}"
    of_outputs = [
        (f"OLS, n = {n_outputs}", base.ols_gaussian_outputs, "least squares, n = targets × outputs"),
        (f"OLS, n = {n_outputs}, CLT", base.ols_clt_outputs, "the same with Gaussian sums"),
    ]
    named = [
        ("Wigner", base.wigner, f"symmetric, independent entries, d = {d}: 1/d{spread}"),
        (f"OLS, n = {n}", base.ols_gaussian, f"least squares on Gaussian data, n = targets, d = {d}"),
        (f"OLS, n = {n}, CLT", base.ols_clt, "the same with Gaussian sums, as for large n"),
        *(of_outputs if base.n_outputs != base.n else ()),  # of one output: the same numbers again
        ("OLS on the inputs", base.ols_data, f"XᵀX of the actual inputs, d = {d_data}"),
        ("OLS, inputs' size", base.ols_data_gaussian, f"centred Gaussian data of the same size, d = {d_data}"),
        ("OLS, inputs' moments", base.ols_columns, "Gaussian data with the inputs' means and variances"),
    ]
    return [(name, value, meaning) for name, value, meaning in named if value is not None]


def _comparison(result: DiagShare) -> Dots:
    baselines = _baselines(result)
    share, bounds = result.diag_share, result.diag_share_interval
    low, high = bounds or (None, None)
    ols = result.metric is None
    entries = [("this Hessian", share, "what was measured"), *baselines]
    nothing = (None,) * len(baselines)
    rows = tuple((name, meaning, number(value), ratio(share, value)) for name, value, meaning in entries)
    return Dots(
        title="Against the random baselines",
        caption=(
            "A share further right is more diagonal; the axis is logarithmic. Wigner is a matrix with no "
            f"structure at all{', OLS the Hessian of linear least squares on random data' * ols}. A positive "
            "semi-definite matrix can never fall below 1/d, so being above Wigner says little by itself"
            f"{'; OLS is the harder comparison' * ols}."
        ),
        alt=f"Diagonal share {number(share)} on a logarithmic axis beside {counted(len(baselines), 'baseline')}.",
        table=Table(
            "Diagonal share and baselines",
            ("what", "which is", "share", "measured / it"),
            rows,
            text_columns=2,
        ),
        text="chart",
        labels=tuple(name for name, _, _ in entries),
        series=(
            Series(
                "this Hessian",
                (share, *nothing),
                (low, *nothing) if bounds else (),
                (high, *nothing) if bounds else (),
            ),
            Series("baseline", (None, *(value for _, value, _ in baselines)), role="reference"),
        ),
        axis="diagonal share",
    )


def _layers(result: DiagShare) -> Dots:
    layers, sampled, ols = result.layers, result.method != "exact", result.metric is None
    columns = (
        "layer",
        "kind",
        "parameters",
        *(("rows",) if sampled else ()),
        "share",
        *(("95 % interval",) if sampled else ()),
    )
    names = shortened([layer.name for layer in layers])
    bounds = [layer.diag_share_interval for layer in layers]
    rows = tuple(
        (
            name,
            layer.kind,
            number(layer.parameters),
            *((number(layer.rows),) if sampled else ()),
            NOT_MEASURED if layer.diag_share is None else number(layer.diag_share),
            *((interval(ends, 3),) if sampled else ()),
            number(layer.wigner),
            *((number(layer.ols_gaussian),) if ols else ()),
            ratio(layer.diag_share, layer.wigner),
        )
        for name, layer, ends in zip(names, layers, bounds, strict=True)
    )
    shares = [layer.diag_share for layer in layers]
    return Dots(
        title="Per layer",
        caption=(
            "Each layer's own block of the Hessian, with the baselines at that block's size. Layers far "
            f"above their {'OLS' if ols else 'Wigner'} mark are where a diagonal preconditioner sees most of the "
            "curvature; layers near Wigner are where it sees least."
        ),
        alt=f"Diagonal share of each of {counted(len(layers), 'layer')} with the Wigner "
        f"{'and OLS values' if ols else 'value'} of its size.",
        table=Table(
            "Diagonal share per layer",
            (*columns, "Wigner", *(("OLS",) if ols else ()), "/ Wigner"),
            rows,
            2,
            ("kind", "rows", "95 % interval"),
        ),
        text="table",
        labels=names,
        series=(
            Series(
                "this layer",
                tuple(shares),
                tuple(ends[0] if ends else None for ends in bounds) if sampled else (),
                tuple(ends[1] if ends else None for ends in bounds) if sampled else (),
            ),
            Series("Wigner, 1/d", tuple(layer.wigner for layer in layers), role="reference", group=1),
            *(
                (Series("OLS, Gaussian data", tuple(layer.ols_gaussian for layer in layers), role="theory", group=2),)
                if ols
                else ()
            ),
        ),
        axis="diagonal share of the layer's block",
    )


def _blocks(result: DiagShare) -> Heat | None:
    matrix, names = result.layer_block_matrix, shortened([layer.name for layer in result.layers])
    if not matrix or len(names) < 2:
        return None
    if len(names) <= FULL_MATRIX:
        table = Table(
            "Share of Σ|H_ij| per pair of layers",
            ("layer", *names),
            tuple((name, *(number(value) for value in row)) for name, row in zip(names, matrix, strict=True)),
        )
    else:
        pairs = (
            (value, i, j) for i, row in enumerate(matrix) for j, value in enumerate(row) if value is not None and i <= j
        )
        largest = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:LARGEST]
        table = Table(
            f"The {len(largest)} largest of {len(names) * (len(names) + 1) // 2} pairs of layers",
            ("layer", "layer", "share"),
            tuple((names[i], names[j], number(value)) for value, i, j in largest),
            text_columns=2,
        )
    return Heat(
        title="Where the mass lies",
        caption=(
            "Each cell is the share of Σ|H_ij| that one pair of layers holds; all cells sum to 1. A bright "
            "diagonal means that layers hardly interact, and that a layer-block approximation (such as "
            "K-FAC's) loses little."
        ),
        alt=f"Heat map of {counted(len(names), 'layer')}; {number(result.layer_block_share)} lies on its diagonal.",
        table=table,
        text="none",
        labels=names,
        matrix=tuple(tuple(row) for row in matrix),
        axis="share of Σ|H_ij|",
    )
