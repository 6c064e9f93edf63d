"""Verdicts: what a measurement means, why, and what to do about it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hessdiag.curvature.point import words
from hessdiag.curvature.point.result import Point

if TYPE_CHECKING:
    from hessdiag.problem.problem import Problem

Level = Literal["ok", "note", "warn", "bad"]
Status = Literal["ok", "inexact", "interrupted"]

Z_ALLOWED = 4.0  # standard errors from exact theory


@dataclass(frozen=True)
class Finding:
    """One sentence of a verdict with the number behind it and what a person can do."""

    level: Level
    says: str
    because: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        """The form that result documents hold."""
        return {"level": self.level, "says": self.says, "because": self.because, "try": self.remedy}


def percent(value: float) -> str:
    """A share for people: three significant digits.

    >>> percent(0.004429), percent(0.5), percent(1.2e-6)
    ('0.443 %', '50 %', '0.00012 %')
    """
    digits = f"{100 * value:.3g}"
    return f"{float(digits):.5f}".rstrip("0").rstrip(".") + " %" if 0 < 100 * value < 1e-3 else f"{digits} %"


def times(value: float) -> str:
    """A factor for people.

    >>> times(6.5641), times(0.031), times(1234.4), times(2.35e14)
    ('6.6 times', '0.031 times', '1,234 times', '2.4e+14 times')
    """
    if value >= 1e5:
        return f"{value:.1e} times"
    return f"{value:,.0f} times" if value >= 100 else f"{value:.2g} times"


def checks_findings(checks: dict[str, float | None], tolerance: float, point: Point | None = None) -> list[Finding]:
    """Findings of what is special about the point, and of self-checks that failed or that differences stand in for.

    Where a self-check failed, a verdict says no more than these: nothing is proven in such a run.
    """
    sentences = [] if point is None else [words.describe(point), words.drawn(point), words.coarse(point)]
    findings = [Finding(said.level, said.says, said.because, said.remedy) for said in sentences if said is not None]
    if any(finding.level == "bad" for finding in findings):
        return findings
    apart = checks.get("hvp_two_steps")
    if apart is not None and (point is None or point.kind == "once" or not apart <= tolerance):
        findings.append(_differences(apart, tolerance))
    for name, what in (
        ("hvp_symmetry", "symmetric"),
        ("hvp_finite_difference", "the derivative of the gradient"),
    ):
        value = checks.get(name)
        if value is not None and not value <= tolerance:
            findings.append(
                Finding(
                    "bad",
                    f"The Hessian products are not {what}: no number below can be trusted.",
                    f"relative error {value:.1e}, allowed {tolerance:.0e}",
                    "--dtype float64, if the model is in another; else an operation's second derivative is wrong, or something in the model changes between passes",
                )
            )
    return findings


def nothing_there(usual: Finding, point: Point | None) -> Finding:
    """What a Hessian that vanishes means: the usual, but at a kink it vanishes on one side only, for all that is known."""
    if point is None or point.beside is None:
        return usual
    return Finding(
        "warn",
        "On this piece beside the kink every product vanishes; on another side it need not.",
        "the parameters are at a kink, where curvature depends on the side",
        "measure at a point beside it: small random values instead of exact zeros",
    )


def _differences(apart: float, tolerance: float) -> Finding:
    remedy = "exact products need the model's plain PyTorch form; `engine` names what cannot be differentiated twice"
    if not apart <= tolerance:
        return Finding(
            "bad",
            "The model cannot be differentiated twice, and central differences depend on their step: no number below can be trusted.",
            f"products of two step sizes differ by {apart:.1e}, allowed {tolerance:.0e}; a kink at the parameters themselves does this",
            remedy,
        )
    return Finding(
        "note",
        "The model cannot be differentiated twice: products are central differences, and not exact.",
        f"products of two step sizes differ by a relative {apart:.1e}",
        remedy,
    )


def agreement_finding(
    z: float, where: str, compared: int, *, measured: str = "Measurement", quantity: str = " of a log-median"
) -> Finding:
    """Whether what was measured agrees with exact theory, judged by the largest deviation z in standard errors."""
    agrees = abs(z) <= Z_ALLOWED
    return Finding(
        "ok" if agrees else "warn",
        f"{measured} and exact theory {'agree' if agrees else 'disagree'}.",
        f"largest deviation{quantity} {z:+.1f} standard errors ({where}), {compared} compared",
        "nothing" if agrees else "more --seeds; if it stays, report it",
    )


def zero_rows_findings(zero_rows: int, untouched: int, parameters: int) -> list[Finding]:
    """What was left out of all vectors: rows of parameters that no batch touches, and others that are exactly zero."""
    found = []
    if untouched:
        found.append(
            Finding(
                "note",
                f"{untouched:,} of {parameters:,} parameters are not touched by these batches: their rows are zero.",
                "rows of tables that no batch looks up, or parameters that the loss does not reach; they were left out of the computation, and count as zero",
                "nothing; more --batches touch more",
            )
        )
    if zero_rows > untouched:
        found.append(
            Finding(
                "note",
                f"{zero_rows - untouched:,} of the Hessian's {parameters:,} rows are exactly zero here.",
                "their products with random vectors vanish, as those of dead units and of inputs that are always zero do; they were left out of the computation, and count as zero",
                "drop constant inputs; for dead units, wider layers or leaky ReLU",
            )
        )
    return found


def data_findings(problem: "Problem") -> list[Finding]:
    """What to keep in mind of the data."""
    if not problem.source.get("synthetic"):
        return []
    return [
        Finding(
            "warn",
            "The batch is synthetic: these numbers are of the network on random data, not of your task.",
            "no --data was given",
            "--data batch.npz --loss ce",
        )
    ]
