"""What a diagonal share means, and what a person can do about it."""

import math
from dataclasses import replace

from hessdiag.numbers import counted, number, percent, times
from hessdiag.questions.common.metric import Metric, here, noun
from hessdiag.questions.common.metric_verdict import metric_findings
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import (
    CAN_USE_IT,
    REVIVAL,
    checks_findings,
    data_findings,
    faint_findings,
    most_severe_first,
    nothing_there,
    piece_findings,
    underflow_findings,
    zero_rows_findings,
)
from hessdiag.questions.diag_share.result import DiagShare

ALIKE = 0.1  # shares closer than this, relatively, are called alike
WIDE_INTERVAL = 0.25  # relative half-width beyond which more rows are advised
OFF_CENTRE = 0.8  # share of X'X of non-centred columns, relative to centred ones, that is worth a word
MANY_ZERO_ROWS = 0.05
NAMED = 3  # layers that a sentence names
NOISE = 1e-9  # of a row's absolute sum: what an entry in float64 can be off


@most_severe_first
def findings(share: DiagShare) -> list[Finding]:
    """The verdict on a measured share, the most important sentence first."""
    found = checks_findings(share.checks, share.check_tolerance, share.point)
    if not share.trusted:
        return [*found, *data_findings(share.problem)]
    found += metric_findings(share.metric)
    if share.diag_share is None:
        return [*found, _too_early(share), *_negative_curvature(share), *data_findings(share.problem)]
    if share.abs_sum == 0 or math.isnan(share.diag_share):
        says = "The Hessian is exactly zero: second-order information is gone, and so is the gradient's way out."
        because = "every computed row vanishes; a layer whose units are all dead does this"
        return [*found, nothing_there(says, because, share.point)]
    found += [] if share.metric else faint_findings(share.abs_sum, "the sum of all |H_ij|")
    found += _still_layers(share)
    found.append(_headline(share, share.diag_share))
    found += _negative_curvature(share)
    found.append(_blocks(share))
    found += _precision(share)
    found += _zero_rows(share)
    found += _inputs(share)
    found += piece_findings(share.point)
    found += data_findings(share.problem)
    return found


def _too_early(share: DiagShare) -> Finding:
    missing = sum(layer.diag_share is None for layer in share.layers)
    return Finding(
        "warn",
        "The run ended before the share of the whole could be told.",
        f"{share.rows:,} rows were computed; {missing} of {counted(len(share.layers), 'layer')} are not measured",
        "let it run longer, or ask for fewer rows: --rows",
    )


def _still_layers(share: DiagShare) -> list[Finding]:
    if share.layer_block_matrix is None:  # of some layer no row was drawn
        return []
    still = [
        layer.name
        for layer, row in zip(share.layers, share.layer_block_matrix, strict=True)
        if layer.diag_share is not None and math.isnan(layer.diag_share) and not any(row)
    ]
    if not still:
        return []
    which = ", ".join(still[:NAMED]) + (", ..." if len(still) > NAMED else "")
    have = "have" if len(still) > 1 else "has"
    return [
        Finding(
            "bad",
            f"{len(still)} of {counted(len(share.layers), 'layer')} {have} no curvature at all: the share is that of the rest.",
            f"every Hessian row is zero in {which}; a layer whose units are all dead also stills those before it; or the loss does not use its output",
            "hessdiag check MODEL, which names the layer where the signal ends, and why",
        )
    ]


def _bounds(share: DiagShare, value: float) -> tuple[float, float]:
    return share.diag_share_interval or (value, value)


def _headline(share: DiagShare, value: float) -> Finding:
    low, high = _bounds(share, value)
    base = share.baselines
    if high < base.wigner:
        has = "has" if share.negative_certificate.certain else "very likely has"  # rows may be a sample
        return Finding(
            "note",
            f"The {noun('Hessian', share.metric)} is hollow: its diagonal holds {percent(value)} of its absolute mass, less than a random symmetric matrix.",
            f"1/d = {percent(base.wigner)}; no positive semidefinite matrix falls below it, so this Hessian {has} negative eigenvalues",
            "methods that use negative curvature (trust region, Newton-CG); diagonal preconditioners see almost nothing here",
        )
    if share.metric is not None:
        return _in_metric(share.metric, value, base.wigner)
    against_wigner = f"{times(value / base.wigner)} Wigner's 1/d = {percent(base.wigner)}"
    against_ols = f"{times(value / base.ols_gaussian)} a Gaussian least-squares Hessian's {percent(base.ols_gaussian)} (n = {base.n:,}, d = {base.d:,})"
    if low > (1 + ALIKE) * base.ols_gaussian:
        return Finding(
            "note",
            f"The Hessian is more diagonal than random baselines: {percent(value)} of its absolute mass is on the diagonal.",
            f"{against_wigner}; {against_ols}",
            "diagonal preconditioning (Adam, RMSprop, ellipsoidal trust regions) has something to work with here",
        )
    if high < base.ols_gaussian / (1 + ALIKE):
        return Finding(
            "note",
            f"The Hessian is less diagonal than least squares on Gaussian data: {percent(value)} of its absolute mass is on the diagonal.",
            f"{against_ols}; {against_wigner}, which any positive semidefinite matrix reaches by itself",
            "expect little from diagonal preconditioning alone; block or Kronecker-factored methods see the correlations",
        )
    return Finding(
        "note",
        f"The Hessian is about as diagonal as least squares on Gaussian data: {percent(value)} of its absolute mass is on the diagonal.",
        f"{against_ols}; {against_wigner}, which any positive semidefinite matrix reaches by itself",
        "diagonal preconditioning does here what it does for least squares; block or Kronecker-factored methods see more",
    )


def _in_metric(metric: Metric, value: float, wigner: float) -> Finding:
    """What the optimizer's own scaling leaves; least squares on even data is no measure of that."""
    return Finding(
        "note",
        f"{percent(value)} of the absolute mass is on the diagonal{here(metric)}: that much it sees, entry by entry.",
        f"{times(value / wigner)} Wigner's 1/d = {percent(wigner)}, which any positive semidefinite matrix reaches by itself",
        "the same command without --metric, to see what the scaling changes; block or Kronecker-factored methods for the rest",
    )


def _negative_curvature(share: DiagShare) -> list[Finding]:
    proof = share.negative_certificate
    if share.negative_entry is None or (not proof.certain and share.negative_entry <= -NOISE):
        return []  # of what the share itself proves, the headline tells
    fraction = share.negative_diagonal_fraction
    some = "some" if fraction is None else percent(fraction)
    if share.negative_entry > -NOISE:
        return [
            Finding(
                "note",
                f"{some[0].upper()}{some[1:]} of the diagonal is negative by rounding: no proof of negative curvature.",
                f"computed anew in float64, the entry that seemed most negative is {number(share.negative_entry, 2)} of its row's absolute sum",
                "hessdiag eigs, which measures the lowest eigenvalue",
            )
        ]
    return [
        Finding(
            "note",
            f"Negative curvature is certain: {some} of the diagonal is negative.",
            f"a negative H_ii is the curvature along one parameter: down to {number(share.negative_entry, 2)} of its row's absolute sum",
            CAN_USE_IT,
        )
    ]


def _blocks(share: DiagShare) -> Finding:
    inside, bounds = share.layer_block_share or 0.0, share.layer_block_share_interval
    error = f" (95 %: {percent(bounds[0])} to {percent(bounds[1])})" if bounds else ""
    if len(share.layers) == 1:
        return Finding("note", "There is one layer only: layer blocks are the whole Hessian.", "", "")
    return Finding(
        "note",
        f"Blocks within layers hold {percent(inside)} of the absolute mass{error}.",
        f"the rest, {percent(1 - inside)}, couples different layers and is invisible to K-FAC, Shampoo and layer-wise methods",
        "layer-wise curvature methods are well founded here"
        if inside >= 0.5
        else "methods that see across layers: Newton-CG, trust region, L-BFGS",
    )


def _precision(share: DiagShare) -> list[Finding]:
    found = []
    low, high = _bounds(share, share.diag_share or 0.0)
    if share.diag_share and (high - low) / 2 > WIDE_INTERVAL * share.diag_share:
        found.append(
            Finding(
                "warn",
                f"The share is known roughly: {percent(low)} to {percent(high)} at 95 %.",
                f"{share.rows:,} of {share.parameters:,} rows were computed",
                f"--rows {min(4 * share.rows, share.parameters)}",
            )
        )
    typical = (share.abs_sum or 0.0) / share.parameters**2
    return found + underflow_findings(typical, "mean |H_ij|", share.problem.dtype)


def _zero_rows(share: DiagShare) -> list[Finding]:
    if share.untouched:
        found = zero_rows_findings(share.untouched, share.untouched, share.parameters)
        left = share.parameters - share.untouched
        because = (
            f"{found[0].because}; d = {share.parameters:,} counts them, and without them 1/d is {percent(1 / left)}"
        )
        return [replace(found[0], because=because)]
    if share.zero_rows is None or share.zero_rows < MANY_ZERO_ROWS:
        return []
    return [
        Finding(
            "note",
            f"{percent(share.zero_rows)} of the Hessian's rows are entirely zero.",
            "dead units, inputs that are always zero, tokens that the batch lacks, or parameters that the loss does not reach; d counts them, so 1/d is lower than it seems",
            REVIVAL,
        )
    ]


def _inputs(share: DiagShare) -> list[Finding]:
    base = share.baselines
    if share.metric is not None or base.ols_columns is None or base.ols_data is None or base.ols_data_gaussian is None:
        return []
    if base.ols_columns >= OFF_CENTRE * base.ols_data_gaussian:
        return []
    return [
        Finding(
            "note",
            "The inputs are not centred, and this alone makes a Hessian less diagonal.",
            f"least squares on them has {percent(base.ols_data)} on the diagonal; centred inputs of equal variance {percent(base.ols_data_gaussian)}",
            "standardize the inputs, feature by feature",
        )
    ]
