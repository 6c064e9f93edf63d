"""Verdicts: what a measurement means, why, and what to do about it."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ParamSpec

from hessdiag.curvature.point import words
from hessdiag.curvature.point.result import Point
from hessdiag.numbers import counted, deviation, number, percent
from hessdiag.questions.common.ensembles.agreement import A, farthest
from hessdiag.questions.common.result import Finding, Level, ModelSubject

P = ParamSpec("P")

SEVERITY: tuple[Level, ...] = ("bad", "warn", "note", "ok")
TRAIN_MODE = "--train-mode, for the curvature that steps of training meet"
CAN_USE_IT = "an optimizer that can use it: perturbed or adaptive gradient steps, trust region, Newton-CG"
REVIVAL = "drop constant inputs; for dead units, wider layers or leaky ReLU"
FAINT = (
    1e-10  # curvature along which gradient steps, even at a learning rate of 1,000, take 10 million to change anything
)
Z_ALLOWED = 4.0  # standard errors from exact theory
# The smallest normal number over the relative rounding error: below, products lose digits to underflow.
UNDERFLOW = {"float64": 2.0**-970, "float32": 2.0**-103, "bfloat16": 2.0**-119, "float16": 2.0**-4}


def most_severe_first(write: Callable[P, list[Finding]]) -> Callable[P, list[Finding]]:
    """Order the findings that a function gives by their level; those of one level stay as they were."""

    @functools.wraps(write)
    def ordered(*args: P.args, **kwargs: P.kwargs) -> list[Finding]:
        return by_severity(write(*args, **kwargs))

    return ordered


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The most severe first, and otherwise in the order given.

    >>> by_severity([Finding("ok", "A", "", ""), Finding("bad", "B", "", "")])[0].says
    'B'
    """
    return sorted(findings, key=lambda finding: SEVERITY.index(finding.level))


def checks_findings(
    checks: Mapping[str, float | None], tolerance: float | None, point: Point | None = None
) -> list[Finding]:
    """Findings of what is special about the point, and of self-checks that failed or that differences stand in for.

    Where a self-check failed, a verdict says no more than these: nothing is proven in such a run.
    """
    tolerance = tolerance or 0.0
    tellers = (words.describe, words.drawn, words.coarse, words.unsearched)
    sentences = [] if point is None else [tell(point) for tell in tellers]
    findings = [Finding(said.level, said.says, said.because, said.remedy) for said in sentences if said is not None]
    if any(finding.level == "bad" for finding in findings):
        return findings
    apart = checks.get("hvp_two_steps")
    if apart is not None and (point is None or point.kind == "once" or not apart <= tolerance):
        findings.append(_differences(apart, tolerance))
    for name, what in (
        ("hvp_symmetry", "symmetric"),
        ("hvp_finite_difference", "the derivative of the gradient"),
        ("metric_symmetry", "symmetric in the metric, whose smallest entries magnify what rounding leaves"),
    ):
        value = checks.get(name)
        if value is not None and not value <= tolerance:
            findings.append(
                Finding(
                    "bad",
                    f"The Hessian products are not {what}: no number below can be trusted.",
                    f"relative error {number(value, 2)}, allowed {number(tolerance, 1)}",
                    "--dtype float64, if the model is in another; else an operation's second derivative is wrong, or something in the model changes between passes",
                )
            )
    return findings


def nothing_there(says: str, because: str, point: Point | None) -> Finding:
    """What a matrix that vanishes means; but at a kink it vanishes on one side only, for all that is known."""
    if point is None or point.beside is None:
        return Finding("bad", says, because, "hessdiag check MODEL, which says where signal or gradient ends, and why")
    return Finding(
        "warn",
        "On this piece beside the kink every product vanishes; on another side it need not.",
        "the parameters are at a kink, where curvature depends on the side",
        "measure at a point beside it: small random values instead of exact zeros",
    )


def faint_findings(size: float | None, what: str) -> list[Finding]:
    """Whether all curvature is so faint that nothing should be concluded from it.

    Args:
        size: Of the largest eigenvalue's magnitude, or something as large.
        what: The name of that.
    """
    if size is None or not 0 < size < FAINT:
        return []
    return [
        Finding(
            "warn",
            f"The Hessian is as good as zero: {what} is {number(size)}.",
            "no learning rate meets such curvature, and no step follows from it; a network whose loss is gone looks like this, and so does one whose signal or gradient is lost",
            "hessdiag check MODEL, which tells the two apart",
        )
    ]


def _differences(apart: float, tolerance: float) -> Finding:
    remedy = "exact products need the model's plain PyTorch form; `engine` names what cannot be differentiated twice"
    if not apart <= tolerance:
        return Finding(
            "bad",
            "The model cannot be differentiated twice, and central differences depend on their step: no number below can be trusted.",
            f"products of two step sizes differ by {number(apart, 2)}, allowed {number(tolerance, 1)}; a kink at the parameters themselves does this",
            remedy,
        )
    return Finding(
        "note",
        "The model cannot be differentiated twice: products are central differences, and not exact.",
        f"products of two step sizes differ by a relative {number(apart, 2)}",
        remedy,
    )


def agreement_findings(
    rows: Sequence[A], of: Callable[[A], str], *, measured: str = "Measurement", quantity: str = " of a log-median"
) -> list[Finding]:
    """Whether what was measured agrees with exact theory, judged by the largest deviation; nothing without a row.

    Args:
        rows: All comparisons.
        of: What one is of, in words.
        measured: What is compared, as the sentence begins.
        quantity: Of what the deviation is.
    """
    worst = farthest(rows)
    if worst is None:
        return []
    agrees = abs(worst.z) <= Z_ALLOWED
    return [
        Finding(
            "ok" if agrees else "warn",
            f"{measured} and exact theory {'agree' if agrees else 'disagree'}.",
            f"largest deviation{quantity} {deviation(worst.z)} standard errors ({of(worst)}), {len(rows)} compared",
            "" if agrees else "more --seeds; if it stays, report it",
        )
    ]


def interrupted_early() -> Finding:
    """That nothing can be said."""
    return Finding(
        "note",
        "Interrupted before anything was measured: nothing can be said.",
        "the products and the point were still being checked, or no result was complete",
        "the same command with more time; --resume DIR, where a command has it, keeps what is finished",
    )


def interrupted_after(done: Sequence[str], remedy: str) -> Finding:
    """That only some of it was measured.

    >>> interrupted_after(["K-FAC", "Shampoo"], "").says
    'Interrupted: there is only this: K-FAC, Shampoo.'
    """
    return Finding("note", f"Interrupted: there is only this: {', '.join(done)}.", "", remedy)


def zero_rows_findings(zero_rows: int, untouched: int, parameters: int) -> list[Finding]:
    """What was left out of all vectors: rows of parameters that no batch touches, and others that are exactly zero."""
    found = []
    if untouched:
        are, rows = ("is", "its row is") if untouched == 1 else ("are", "their rows are")
        found.append(
            Finding(
                "note",
                f"{untouched:,} of {counted(parameters, 'parameter')} {are} not touched by these batches: {rows} zero.",
                "rows of tables that no batch looks up, or parameters that the loss does not reach; they were left out of the computation, and count as zero",
                "more --batches touch more",
            )
        )
    if (still := zero_rows - untouched) > 0:
        are = "is" if still == 1 else "are"
        found.append(
            Finding(
                "note",
                f"{still:,} of the Hessian's {counted(parameters, 'row')} {are} exactly zero here.",
                "their products with random vectors vanish, as those of dead units and of inputs that are always zero do; they were left out of the computation, and count as zero",
                REVIVAL,
            )
        )
    return found


def underflow_findings(typical: float, said: str, dtype: str) -> list[Finding]:
    """Whether entries of the Hessian are near the end of what its numbers hold.

    Args:
        typical: Their typical size.
        said: Which kind of mean that is.
        dtype: Of the parameters.
    """
    floor = UNDERFLOW.get(dtype, 0.0)
    if not 0 < typical < floor:
        return []
    return [
        Finding(
            "warn",
            f"Entries of the Hessian are near the underflow floor of {dtype}.",
            f"{said} is {number(typical, 2)}; below {number(floor, 2)} digits are lost",
            "--dtype float64",
        )
    ]


def piece_findings(point: Point | None) -> list[Finding]:
    """That a Hessian by autograd is that of one piece, where units have kinks: no warning, for most networks have."""
    pieces = None if point is None else point.pieces
    if pieces is None:
        return []
    because = (
        "ReLU, max-pooling and their kin bend the loss where they change side, and no second derivative there knows"
    )
    if pieces.flipped is not None:
        kinks = (
            "" if pieces.missing is None else f", and kinks are {percent(pieces.missing, 2)} of the curvature along it"
        )
        because = f"a step of {percent(pieces.step, 1)} of the weights down the gradient changes the side of {percent(pieces.flipped, 2)} of them{kinks}"
    return [
        Finding(
            "note",
            f"This is the Hessian of one piece: {counted(pieces.gates, 'unit has a kink', 'units have kinks')}, which it does not see.",
            because,
            "hessdiag trust-radius MODEL, for how far from here it tells the truth",
        )
    ]


def running_statistics(problem: ModelSubject) -> bool:
    """Whether layers took running statistics here, where training takes each batch's and so has other curvature."""
    return not problem.train_mode and any("BatchNorm" in layer.kind for layer in problem.layers)


def other_mode_findings(problem: ModelSubject) -> list[Finding]:
    """That steps of training meet other curvature than was measured, so that no limit of theirs follows."""
    if not running_statistics(problem):
        return []
    says = "This is the curvature in evaluation mode, and BatchNorm has another one in training: no limit of its learning rate follows."
    because = "running statistics were taken here; training takes those of each batch"
    return [Finding("note", says, because, TRAIN_MODE)]


def in_this_mode(problem: ModelSubject, said: Finding) -> Finding:
    """The same finding about steps; where those of training meet other curvature, of evaluation mode and no more."""
    if not running_statistics(problem):
        return said
    return Finding("note", f"{said.says.removesuffix('.')}, in evaluation mode.", said.because, TRAIN_MODE)


def mode_words(problem: ModelSubject) -> str:
    """What is to be said beside a limit of steps, where it is not that of training's."""
    return "; in evaluation mode, and training has another" if running_statistics(problem) else ""


def data_findings(problem: ModelSubject) -> list[Finding]:
    """What to keep in mind of the data: no warning, for the head of the report says it already."""
    if not problem.synthetic:
        return []
    return [
        Finding(
            "note",
            "The batch is synthetic: these numbers are of the network on random data, not of your task.",
            "no --data was given",
            "--data batch.pt, a mapping with labels" if problem.loss == "output" else "--data batch.npz --loss ce",
        )
    ]
