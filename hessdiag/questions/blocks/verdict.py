"""What the norms of layer blocks mean, and what a person can do about it."""

import math

import numpy as np

from hessdiag.numbers import counted, number, percent, times, with_interval
from hessdiag.questions.blocks.result import Blocks
from hessdiag.questions.common import output_verdict
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import (
    CAN_USE_IT,
    checks_findings,
    data_findings,
    faint_findings,
    most_severe_first,
    nothing_there,
    piece_findings,
    underflow_findings,
)

MUCH = 0.5  # share of |H|^2 that decides between "most" and "some"
LITTLE = 0.05
ROUGH = 0.1  # relative standard error of |H| beyond which more probes are advised
STEEP = 100.0  # factor between the first and the last layer's block that is worth a word
# One that needs something done: a step that the sharpest block allows moves the flattest by a factor e along its own
# curvature in 50,000 steps.
UNEVEN = 1e5
# Common initializations differ by factors up to 2.5 in gain (torch's own 0.58, He's 1.41), trained layers by a few.
OUT_OF_SCALE = 10.0
NO_FAULT = "a large block is no fault of its layer: it grows with the weights of the layers before and after it"
REGULAR = 0.6  # share of the variance of log norms that a rate per layer must explain
LEAST_LAYERS = 4


@most_severe_first
def findings(blocks: Blocks) -> list[Finding]:
    """The verdict on measured block norms, the most important sentence first."""
    tolerance = blocks.check_tolerance
    found = checks_findings(blocks.checks, tolerance, blocks.point)
    if blocks.point is None or blocks.point.trusted:  # else there is a cause already
        found += output_verdict.check_findings(blocks.checks, tolerance)
    if not blocks.trusted:
        return [*found, *data_findings(blocks.problem)]
    if blocks.norm is None:
        return [*found, *_stopped(blocks), *data_findings(blocks.problem)]
    if blocks.norm == 0:
        says = "The Hessian is exactly zero: no layer curves, alone or with another."
        because = "every block vanishes; a layer whose units are all dead does this"
        return [*found, nothing_there(says, because, blocks.point)]
    found += faint_findings(blocks.norm, "its norm")
    found += _between(blocks)
    if blocks.residual_share is None:
        found.append(_no_split(blocks))
    elif blocks.loss_in_output == "linear":
        found.append(output_verdict.linear_finding(blocks.problem))
    else:
        found += [_residual(blocks), *_within(blocks)]
    found += output_verdict.elsewhere_findings(blocks.loss_uses_parameters)
    found += _indefinite(blocks)
    found += _out_of_scale(blocks)
    found += _dominant(blocks)
    found += _depth(blocks)
    found += _unreached(blocks)
    found += _precision(blocks)
    found += piece_findings(blocks.point)
    found += data_findings(blocks.problem)
    return found


def _stopped(blocks: Blocks) -> list[Finding]:
    """After an interrupt before every layer was done."""
    done = [name for name, trace in zip(blocks.names, blocks.trace, strict=True) if trace is not None]
    squares = np.square(np.array(blocks.frobenius, dtype=float))
    found = [
        Finding(
            "note",
            f"Interrupted after {len(done)} of {counted(len(blocks.names), 'layer')}: their blocks, with any layer, are exact, and nothing is known of those between the others.",
            f"done: {', '.join(done[:4])}{', ...' if len(done) > 4 else ''}; |H| is at least {number(float(np.sqrt(np.nansum(squares))), 4)}",
            "the same command with more time; --resume DIR keeps the layers that are done",
        )
    ]
    proof = blocks.negative_certificate
    if proof.certain:
        found.append(_proven(blocks, f"the smallest eigenvalue is at or below {number(proof.bound, 4)}"))
    return found


def _error(stderr: float | None) -> str:
    return f" (standard error {percent(stderr)})" if stderr else ""


def _between(blocks: Blocks) -> list[Finding]:
    if len(blocks.names) == 1:
        return [Finding("note", "There is one layer only: its block is the whole Hessian.", "", "")]
    assert blocks.between_layers is not None
    share = percent(blocks.between_layers) + _error(blocks.between_layers_stderr)
    because = f"|H| = {with_interval(blocks.norm, blocks.norm_interval)}; methods that treat each layer by itself (K-FAC, Shampoo, block-diagonal Newton) take this part for zero"
    if blocks.between_layers < MUCH:
        return [
            Finding(
                "note",
                f"Layers curve mostly by themselves: {share} of the Hessian's squared norm lies between layers.",
                because,
                "layer-wise curvature methods have the larger part to work with",
            )
        ]
    return [
        Finding(
            "note",
            f"Most of the curvature couples layers: {share} of the Hessian's squared norm lies between them.",
            because,
            "methods that see across layers: Newton-CG, trust region, L-BFGS",
        )
    ]


def _residual(blocks: Blocks) -> Finding:
    assert blocks.residual_share is not None
    share = percent(blocks.residual_share) + _error(blocks.residual_share_stderr)
    because = f"the residual's norm is {with_interval(blocks.residual_norm, blocks.residual_norm_interval)}, the Gauss-Newton matrix's {with_interval(blocks.gauss_newton_norm, blocks.gauss_newton_norm_interval)} (shares are of the sum of both squares)"
    if blocks.residual_share >= MUCH:
        nothing_negative = ", and no negative curvature" if blocks.loss_in_output == "convex" else ""
        return Finding(
            "note",
            f"Gauss-Newton is not the Hessian here: the residual holds {share} of the squared norms.",
            because,
            f"methods that use the whole Hessian; Gauss-Newton, Fisher and K-FAC see only the smaller part{nothing_negative}",
        )
    if blocks.residual_share < LITTLE:
        return Finding(
            "note",
            f"The Gauss-Newton matrix is nearly the Hessian: the residual holds {share} of the squared norms.",
            because,
            "Gauss-Newton, Fisher and K-FAC approximations start from the right matrix",
        )
    return Finding(
        "note",
        f"The Gauss-Newton matrix holds the larger part, the residual {share} of the squared norms.",
        because,
        "Gauss-Newton steps with damping of the residual's size; hessdiag spectrum --operator ggn beside --operator hessian",
    )


def _no_split(blocks: Blocks) -> Finding:
    return Finding(
        "note",
        f"Only the Hessian's blocks are given: {blocks.split_missing}.",
        "the split into Gauss-Newton part and residual needs a loss of the model's output that can be differentiated twice in it",
        "--loss ce|mse|bce|nll|FILE.py:f",
    )


def _within(blocks: Blocks) -> list[Finding]:
    if blocks.residual_diagonal is None or blocks.residual_diagonal_vanishes is None:
        return []
    if blocks.residual_diagonal_vanishes and blocks.negative_certificate.bound is None:
        return []  # a self-check failed
    if blocks.residual_diagonal_vanishes:
        alone = len(blocks.names) == 1
        where = (
            "there is no negative curvature beyond rounding"
            if alone
            else "negative curvature can only come from between layers"
        )
        vanish = f"the residual's layer-diagonal blocks are {number(blocks.residual_diagonal, 1)} of |H|, zero to rounding, as where the output is piecewise linear in each layer's parameters"
        if blocks.loss_in_output != "convex":
            return [
                Finding(
                    "note",
                    "Blocks within layers are pure Gauss-Newton, of a loss that is not known to be convex in what it receives.",
                    vanish,
                    "hessdiag spectrum --operator ggn, which says whether Gauss-Newton curves down",
                )
            ]
        return [
            Finding(
                "note",
                f"Blocks within layers are pure Gauss-Newton: with a convex loss, {where}.",
                vanish,
                "layer-wise methods need no safeguard against negative curvature here, and cannot use it either",
            )
        ]
    return [
        Finding(
            "note",
            "Layers curve by themselves beyond Gauss-Newton: an activation or normalization is curved.",
            f"the residual's layer-diagonal blocks are {percent(blocks.residual_diagonal)} of |H|",
            "layer-wise Newton steps may meet negative curvature: damp them",
        )
    ]


def _indefinite(blocks: Blocks) -> list[Finding]:
    proof, pair = blocks.negative_certificate, blocks.indefinite_pair
    assert blocks.eigenvalue_bounds is not None
    low, high = blocks.eigenvalue_bounds
    estimated = " (estimated)" if blocks.method == "probes" else ""
    interval = f"block norms alone keep all eigenvalues within {number(low, 4)} and {number(high, 4)}{estimated}"
    if not proof.certain:
        if len(blocks.names) == 1:  # whose norm says nothing of signs
            return []
        return [
            Finding(
                "note",
                "The block norms alone do not settle whether the Hessian has negative eigenvalues.",
                interval if proof.bound is not None else proof.why,
                "hessdiag eigs, or hessdiag bounds, which see more than norms",
            )
        ]
    because = (
        f"|H_lm|^2 is {times(pair.ratio)} |H_ll| |H_mm|"
        if pair is not None
        else f"the smallest eigenvalue is at or below {number(proof.bound, 4)}"
    )
    return [_proven(blocks, f"{because}; {interval}")]


def _proven(blocks: Blocks, because: str) -> Finding:
    return Finding(
        "note",
        f"Negative curvature is certain: {blocks.negative_certificate.why}.",
        because,
        f"{CAN_USE_IT}; hessdiag eigs for the directions",
    )


def _dominant(blocks: Blocks) -> list[Finding]:
    if len(blocks.names) < 2:
        return []
    assert blocks.norm is not None
    squares = np.square(np.array(blocks.frobenius, dtype=float))
    held = np.triu(squares) + np.triu(squares.T, 1)  # a coupling is there twice, on both sides of the diagonal
    row, column = (int(index) for index in np.unravel_index(np.argmax(held), held.shape))
    what = (
        f"block of layer {blocks.names[row]}"
        if row == column
        else f"coupling of layers {blocks.names[row]} and {blocks.names[column]}"
    )
    touched = squares.sum(1) + squares.sum(0) - squares.diagonal()
    top = int(np.argmax(touched))
    return [
        Finding(
            "note",
            f"Layer {blocks.names[top]} takes part in most: {percent(min(float(touched[top]) / blocks.norm**2, 1.0))} of the Hessian's squared norm.",
            f"it has {percent(blocks.sizes[top] / blocks.parameters)} of the parameters; the largest part is the {what}, with {percent(min(float(held[row, column]) / blocks.norm**2, 1.0))}",
            NO_FAULT,
        )
    ]


def _out_of_scale(blocks: Blocks) -> list[Finding]:
    """The one layer whose weights are much larger than all others', if its own block is the smallest.

    A network of ReLUs is linear in the scale of each layer: what a layer multiplies by k enters the blocks of all others
    squared, and its own not at all. So the layer at fault is the one that does not stand out by its block.
    """
    norms = np.diagonal(np.array(blocks.frobenius, dtype=float))
    scaled = sorted(
        (gain, place) for place, gain in enumerate(blocks.weight_gains or ()) if gain is not None and norms[place] > 0
    )
    if len(scaled) < 2:
        return []
    (next_gain, _), (gain, place) = scaled[-2:]
    others = [float(norms[other]) for _, other in scaled[:-1]]
    if not gain >= OUT_OF_SCALE * next_gain > 0 or norms[place] > min(others):
        return []
    span = number(others[0]) if len(others) == 1 else f"{number(min(others))} to {number(max(others))}"
    return [
        Finding(
            "warn",
            f"The weights of layer {blocks.names[place]} are {times(gain / next_gain)} as large as any other layer's: that is why the others' blocks are larger than its own.",
            f"its gain (root mean square of the weights times the root of the inputs) is {number(gain)}, the next {number(next_gain)}; |H_ll| is {number(float(norms[place]))} there and {span} elsewhere",
            f"divide its weights by {number(gain / next_gain, 2)}, or initialize it as the others; hessdiag check MODEL --try does so on a copy and trains both",
        )
    ]


def _depth(blocks: Blocks) -> list[Finding]:
    """A rate per layer of the diagonal blocks, where they follow one.

    Of layers that follow each other on the way from the data to the loss, in the order of execution. Norms, scalars of
    the loss and shortcuts are of other kinds.
    """
    norms = sorted(
        (depth, name, float(block))
        for name, depth, block in zip(
            blocks.names, blocks.depths, np.diagonal(np.array(blocks.frobenius, dtype=float)), strict=True
        )
        if depth is not None and block > 0
    )
    places = np.array([depth for depth, _, _ in norms])
    if len(set(places)) < LEAST_LAYERS:
        return []
    logs = np.log([block for _, _, block in norms])
    rate, start = np.polyfit(places, logs, 1)
    left = float(np.square(logs - start - rate * places).sum())
    spread = float(np.square(logs - logs.mean()).sum())
    if abs(rate) * (places[-1] - places[0]) < math.log(STEEP) or left > (1 - REGULAR) * spread:
        return []
    (_, first, early), (_, last, late) = norms[0], norms[-1]
    word = "grow" if rate > 0 else "shrink"
    uneven = max(early, late) >= UNEVEN * min(early, late)
    return [
        Finding(
            "warn" if uneven else "note",
            f"Blocks within layers {word} with depth, by a factor of {number(math.exp(abs(rate)))} per layer.",
            f"|H_ll| is {number(early)} at layer {first} and {number(late)} at layer {last}"
            + ("; a step that the one allows hardly moves the other along its own curvature" if uneven else ""),
            "an initialization or normalization that keeps signal and gradient alike in all layers; hessdiag check MODEL for which of them is lost, and where"
            if uneven
            else "step sizes per layer, or an optimizer that adapts them (Adam); hessdiag vanishing for what the initialization does with depth",
        )
    ]


def _unreached(blocks: Blocks) -> list[Finding]:
    silent = [name for name, row in zip(blocks.names, blocks.frobenius, strict=True) if not any(row)]
    if not silent:
        return []
    return [
        Finding(
            "warn",
            f"{len(silent)} of {counted(len(blocks.names), 'layer')} {'has' if len(silent) == 1 else 'have'} no curvature at all: {', '.join(silent[:4])}{', ...' if len(silent) > 4 else ''}.",
            "all their blocks vanish: the loss does not reach them, or every unit after them is dead",
            "check that the model uses them; for dead units smaller biases or another initialization: hessdiag check MODEL names the layer that died",
        )
    ]


def _precision(blocks: Blocks) -> list[Finding]:
    assert blocks.norm is not None
    found = []
    if blocks.norm_stderr is not None and blocks.norm_interval and blocks.norm_stderr > ROUGH * blocks.norm:
        found.append(
            Finding(
                "note",
                f"The norms are rough: |H| is {with_interval(blocks.norm, blocks.norm_interval)}.",
                f"{blocks.probes} random vectors per layer were used",
                f"--probes {4 * blocks.probes}",
            )
        )
    typical = blocks.norm / blocks.parameters
    return found + underflow_findings(typical, "their root mean square", blocks.problem.dtype)
