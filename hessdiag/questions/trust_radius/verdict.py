"""What the ratios of actual to predicted decrease mean, and what a person can do about it."""

from hessdiag.numbers import counted, number, percent, times
from hessdiag.questions.common.result import Finding, Level
from hessdiag.questions.common.verdict import checks_findings, data_findings, most_severe_first
from hessdiag.questions.trust_radius.result import Radius, TrustRadius

FAR = 1e-2  # of the weights' rms: as far as steps of common learning rates go in one step, or a few
KINKED = 2.0  # times as far with gates held, from where kinks are what ends the trust
BETTER = 1.5  # times as far in another metric, from where that is worth a word
NAMES = {"rmsprop": "RMSprop", "adagrad": "Adagrad"}


@most_severe_first
def findings(found: TrustRadius) -> list[Finding]:
    """The verdict, the most important sentence first."""
    said = checks_findings(found.checks, found.check_tolerance, found.point)
    if not found.trusted:
        return [*said, *data_findings(found.problem)]
    if all(row.decrease == 0 for row in found.radii):
        return [*said, _no_slope(), *data_findings(found.problem)]
    trust = _trust(found)
    said += [trust, *_kinks(found, trust.level), *_metrics(found), *_rounding(found)]
    return [*said, *data_findings(found.problem)]


def _no_slope() -> Finding:
    return Finding(
        "bad",
        "The gradient is exactly zero: the quadratic model has no step to try.",
        "every partial derivative vanishes",
        "hessdiag check MODEL, which says where the gradient ends, and why",
    )


def _trust(found: TrustRadius) -> Finding:
    """Up to which length of steps the model is true, in the first metric."""
    norm = found.norms[0]
    rows, trusted = found.of(norm), found.trusted_radius.get(norm)
    if trusted is None:
        return Finding(
            "note",
            "How far the Hessian tells the truth cannot be seen: what every step changes is below rounding.",
            f"the loss is {number(found.loss)}, and the largest decrease that is predicted {number(rows[-1].decrease)}",
            "--dtype float64; where the copy that is tried is in that already, hessdiag escape MODEL for plateaus so flat",
        )
    known = [row for row in rows if row.rho is not None]
    because = f"actual over predicted decrease leaves {_band(found)}: {_beside(known, trusted)}"
    if trusted == 0:
        return Finding(
            "warn",
            f"The Hessian tells the truth nowhere that was tried: not even at steps of rms {_of_weights(found, known[0].reach)}.",
            because,
            "read no step size and no minimum off it; hessdiag trust-radius on a network with smooth activations shows the difference",
        )
    if known and trusted == known[-1].reach:
        inside = known[-1].exit == "interior"
        return Finding(
            "ok",
            f"The Hessian tells the truth as far as steps were tried: up to rms {_of_weights(found, trusted)}.",
            f"actual over predicted decrease stays in {_band(found)}"
            + ("; longer steps lead beyond the minimum of the quadratic model" if inside else ""),
            "",
        )
    return Finding(
        "ok" if found.weight_rms and trusted >= FAR * found.weight_rms else "note",
        f"The Hessian tells the truth up to steps of rms {_of_weights(found, trusted)}.",
        because,
        "keep steps of Newton's method and of trust regions shorter than that, and read eigenvalues as those of so small a neighbourhood",
    )


def _of_weights(found: TrustRadius, length: float | None) -> str:
    share = f" ({percent(length / found.weight_rms, 2)} of the weights')" if length and found.weight_rms else ""
    return f"{number(length, 2)}{share}"


def _band(found: TrustRadius) -> str:
    return f"{found.band[0]:g} to {found.band[1]:g}"


def _beside(rows: list[Radius], trusted: float) -> str:
    """Rho on either side of the trusted radius."""
    inside = [row for row in rows if row.reach is not None and row.reach <= trusted][-1:]
    beyond = [row for row in rows if row.reach is not None and row.reach > trusted][:1]
    return ", ".join(f"{number(row.rho, 2)} at {number(row.reach, 2)}" for row in inside + beyond)


def _kinks(found: TrustRadius, level: Level) -> list[Finding]:
    """Whether kinks are what ends the trust, and what they hide; next to the sentence that says where it ends."""
    if found.unfrozen is not None:
        return [Finding("note", "Kinks were not told from the rest: gates could not be held.", found.unfrozen, "")]
    if not found.gates:
        return [
            Finding(
                "ok",
                "No unit has a kink: autograd's Hessian is the whole second derivative, here and around.",
                "no ReLU, max-pooling, absolute value or clamp was met in the forward pass",
                "",
            )
        ]
    norm = found.norms[0]
    trusted, frozen = found.trusted_radius.get(norm), found.trusted_radius_frozen_gates.get(norm)
    if trusted is None or not frozen:
        return []
    true = [row for row in found.of(norm) if row.rho_frozen_gates is not None and (row.reach or 0.0) <= frozen]
    farther = f"{times(frozen / trusted)} as far" if trusted else "where it is not with gates free"
    if frozen < KINKED * trusted or not true or true[-1].missing_share is None:
        return [
            Finding(
                level,
                f"Kinks are not what limits it: with all {counted(found.gates, 'gate')} held it is true up to rms {number(frozen, 2)}.",
                f"the loss on one piece leaves its quadratic model on its own{_left_out(true)}",
                "",
            )
        ]
    last = true[-1]
    return [
        Finding(
            "note",
            f"Beyond, kinks take over: at rms {number(last.reach, 2)} autograd's Hessian leaves out {percent(last.missing_share, 2)} of the curvature along the step.",
            f"{percent(last.gates_flipped, 2)} of {found.gates:,} gates change side there; with all held, the model is true up to {number(frozen, 2)}, {farther}",
            "a smooth activation for second-order methods (nn.GELU(), nn.Softplus(beta=10)); with this one, trust eigenvalues only as those of one piece, and steps only as short as above",
        )
    ]


def _left_out(true: list[Radius]) -> str:
    """What kinks are all the same, along the longest step at which the model of the held gates is true."""
    share = true[-1].missing_share if true else None
    return f"; kinks are {percent(share, 2)} of the curvature along the longest step of it" if share else ""


def _metrics(found: TrustRadius) -> list[Finding]:
    """Whether the model is true farther in the metric of an adaptive method."""
    trusted = found.trusted_radius.get("uniform")
    others = {norm: radius for norm, radius in found.trusted_radius.items() if norm in NAMES and radius}
    if not trusted or not others:
        return []
    best = max(others, key=lambda norm: others[norm] or 0.0)
    gain = (others[best] or 0.0) / trusted
    if gain < BETTER:
        return []
    one = " (Adagrad's is the same, of one batch)" if found.gradients == 1 and "adagrad" in others else ""
    return [
        Finding(
            "note",
            f"Measured as {NAMES[best]} scales steps, the Hessian is true {times(gain)} as far: up to rms {number(others[best], 2)}.",
            f"in the metric of the batches' gradients, of mean 1{one}",
            f"an adaptive method, or a trust region in its metric (hessdiag escape MODEL --optimizer tr-{best}), rather than plain gradient or Newton steps",
        )
    ]


def _rounding(found: TrustRadius) -> list[Finding]:
    """At which radii nothing was seen."""
    rows = found.of(found.norms[0])
    lost = [row for row in rows if row.rho is None]
    if not lost or len(lost) == len(rows):
        return []
    return [
        Finding(
            "note",
            f"At {len(lost)} of {counted(len(rows), 'radius', 'radii')}, up to {number(lost[-1].radius, 2)}, nothing is known: the predicted decrease is below rounding of the loss.",
            f"it is {number(lost[-1].decrease, 2)} there, of a loss of {number(found.loss)}",
            "",
        )
    ]
