"""What a decay of norms with depth means: its cause, and what width, gain or optimizer would mend it."""

import math
from typing import TYPE_CHECKING

from hessdiag.diagnostics.vanishing_theory import Theory
from hessdiag.diagnostics.verdict import Finding, Level, agreement_finding, checks_findings, percent, times

if TYPE_CHECKING:
    from hessdiag.diagnostics.vanishing import Vanishing
    from hessdiag.diagnostics.vanishing_norms import DepthNorms

GONE = 1e-2  # relative to the shallowest network, a typical gradient below this has vanished
SUBTLE = 0.5
FLOAT32_FLOOR = 1.2e-38
OVERSTATED = 1.5  # path count over effective width that is worth a word
CRITICAL = 1e-6  # relative distance of rho from 1 that counts as critical


def findings(measured: "Vanishing") -> list[Finding]:
    """The verdict, the most important sentence first."""
    first, last = measured.depths[0], measured.depths[-1]
    theory = measured.predict(last.width)
    found = [*_failed(measured), *_checks(measured)]
    if not measured.trusted:
        return found
    if not last.gradient_norm.networks:
        return [*found, *_dead(last)]
    found += _identical(measured, last)
    found += _uneven(measured)
    found.append(_gradient(measured, first, last, theory))
    found += _hessian(measured, first, last)
    found += _effective_width(last)
    found += _typical_against_mean(last)
    found += _dead(last)
    found += _underflow(last)
    found += _agreement(measured)
    return found


def _failed(measured: "Vanishing") -> list[Finding]:
    if not measured.failed:
        return []
    first = measured.failed[0]
    depths = ", ".join(str(entry.depth) for entry in measured.failed)
    return [
        Finding(
            "bad",
            f"Not every depth could be measured: {depths} {'is' if len(measured.failed) == 1 else 'are'} missing.",
            f"at depth {first.depth}, {first.says.rstrip('.')}; what is shown is complete",
            first.hint or "--init he_uniform, or smaller depths",
        )
    ]


def _checks(measured: "Vanishing") -> list[Finding]:
    if "hessian_norm_z" not in measured.checks:
        return checks_findings(measured.checks, measured.check_tolerance, measured.point)
    if not measured.check_failed:
        return []
    z = measured.checks["hessian_norm_z"]
    says = "The exact Hessian norms disagree with random products: they cannot be trusted."
    return [Finding("bad", says, f"{z:.1f} standard errors apart", "report this with the command line above")]


def _gradient(measured: "Vanishing", first: "DepthNorms", last: "DepthNorms", theory: Theory | None) -> Finding:
    sizes = [_per_layer(entry) for entry in measured.depths]
    peak = measured.depths[sizes.index(max(sizes))]
    falls = _per_layer(peak) / _per_layer(last) if _per_layer(last) else math.inf
    rises = _per_layer(last) / _per_layer(first) if _per_layer(first) else math.nan
    start = peak if falls > 1 / SUBTLE else first
    because = (
        f"median gradient norm of one layer {_per_layer(start):.2e} at depth {start.depth}, "
        f"{_per_layer(last):.2e} at depth {last.depth}{_change(start, last)}"
    )
    if not last.gradient_norm.median:
        says = (
            f"Gradients vanish: a typical network's squared norm is below the range of float64 at depth {last.depth}."
        )
        return Finding("bad", says, because, _cure(measured, last, theory, explodes=False))
    if not math.isfinite(last.gradient_norm.median):
        says = (
            f"Gradients explode: a typical network's squared norm is beyond the range of float64 at depth {last.depth}."
        )
        return Finding("bad", says, because, _cure(measured, last, theory, explodes=True))
    if falls > 1 / GONE:
        says = f"Gradients vanish with depth: a typical network's is {times(falls)} smaller at depth {last.depth} than at its peak."
        return Finding("bad", says, because, _cure(measured, last, theory, explodes=False))
    if falls > 1 / SUBTLE:
        says = f"Gradients shrink with depth: a typical network's is {times(falls)} smaller at depth {last.depth} than at its peak."
        return Finding("warn", says, because, _cure(measured, last, theory, explodes=False))
    if not rises <= 1 / GONE:
        says = f"Gradients explode with depth: by {times(rises)} at depth {last.depth}."
        return Finding("bad", says, because, _cure(measured, last, theory, explodes=True))
    if rises > 1 / SUBTLE:
        says = f"Gradients grow with depth: {times(rises)} by depth {last.depth}."
        return Finding("note", says, because, "gradient clipping or a slightly smaller gain, if training diverges")
    says = f"Gradients hold: depth {last.depth} changes a typical one by a factor of {rises:.2g}."
    return Finding("ok", says, because, "nothing: any optimizer can start here")


def _per_layer(entry: "DepthNorms") -> float:
    """Root mean square over layers of the typical gradient: the whole gradient's norm grows with depth by itself."""
    return entry.gradient_norm.median / math.sqrt(entry.depth)


def _change(start: "DepthNorms", last: "DepthNorms") -> str:
    """The factor per layer between the same two depths, with its standard error."""
    layers, sizes = last.depth - start.depth, (_per_layer(start), _per_layer(last))
    if not layers or not all(0 < size < math.inf for size in sizes):
        return ""
    factor = (sizes[1] / sizes[0]) ** (1 / layers)
    stderr = factor * math.hypot(start.gradient_norm.log_median_stderr, last.gradient_norm.log_median_stderr) / layers
    return f": a factor of {factor:.4f} for each further layer" + (f" (± {stderr:.4f})" if stderr > 0 else "")


def _cure(measured: "Vanishing", last: "DepthNorms", theory: Theory | None, *, explodes: bool) -> str:
    adaptive = "RMSprop or Adam, whose steps do not shrink with the gradient"
    if last.width is None:
        if explodes:
            return "a smaller gain (hessdiag forward MODEL --solve median finds one); or normalization and residual connections together, for each alone explodes"
        return f"more units or channels, a gain that keeps the forward norm (hessdiag forward MODEL --solve median), padding other than zeros where images are small, residual connections with normalization; or {adaptive}"
    if theory is None:
        found = (
            f"the gain of hessdiag forward --depth {last.depth} --width {last.width} --activation {measured.activation} "
            f"--init {measured.init.replace('_', '-') if measured.init else ''} --solve median"
        )
        return found if explodes else f"{found}; width near the depth (--width same); or {adaptive}"
    if not theory.critical_width_per_depth > 0:  # so narrow that the closed form fails
        return f"width near the depth (--width same), a gain that keeps the forward norm, residual connections with normalization; or {adaptive}"
    gain = theory.mean_square_growth**-0.5
    if abs(math.log(theory.mean_square_growth)) > CRITICAL:
        step = f"scale the weights by {gain:.3g}, for a layer multiplies the mean square by {theory.mean_square_growth:.3g}"
        return step if explodes else f"{step}; then width {_width(last, theory)} or more at this depth"
    return f"width {_width(last, theory)} or more at this depth keeps half of the typical norm; or weights scaled by {1 / theory.typical_growth:.4f}; or {adaptive}"


def _width(last: "DepthNorms", theory: Theory) -> str:
    return f"{math.ceil(theory.critical_width_per_depth * last.depth):,}"


def _hessian(measured: "Vanishing", first: "DepthNorms", last: "DepthNorms") -> list[Finding]:
    total, diagonal = last.hessian_norm.median, last.hessian_diagonal_blocks_norm.median
    off = last.hessian_offdiagonal_blocks_norm.median
    if not total > 0 or last.depth == 1:
        return []
    peak = max(measured.depths, key=lambda entry: entry.hessian_norm.median)
    falls, rises = peak.hessian_norm.median / total, total / first.hessian_norm.median
    found = []
    if falls > 1 / GONE:
        found.append(
            Finding(
                "bad",
                f"Curvature vanishes too: a typical Hessian is {times(falls)} smaller at depth {last.depth} than at its peak.",
                f"median Frobenius norm {total:.2e} at depth {last.depth}, {peak.hessian_norm.median:.2e} at depth {peak.depth}: the loss is a plateau, and Newton steps are no better conditioned than gradient steps",
                "mend the gradient's decay first; curvature follows",
            )
        )
    elif rises > 1 / GONE:
        found.append(
            Finding(
                "bad",
                f"Curvature explodes with depth: {times(rises)} by depth {last.depth}.",
                f"median Frobenius norm {total:.2e}; a stable learning rate is below 2 / largest eigenvalue",
                "a smaller gain, or normalization",
            )
        )
    if last.certified_indefinite:
        found.append(
            Finding(
                "note",
                f"{100 * last.certified_indefinite:.3g} % of the Hessians are certainly indefinite: their diagonal blocks are too small for what couples the layers.",
                f"diagonal blocks {diagonal:.2e}, off-diagonal {off:.2e} at depth {last.depth} (medians); a semidefinite matrix has |H_lm|^2 <= |H_ll| |H_mm|",
                "negative curvature is the way out of a plateau: perturbed or adaptive steps find it, layer-wise preconditioners do not see it",
            )
        )
    return found


def _identical(measured: "Vanishing", last: "DepthNorms") -> list[Finding]:
    if not measured.same_weights:
        return []
    return [
        Finding(
            "warn",
            "All networks have the same weights: this is one network, not what is typical.",
            f"{last.seeds} networks at depth {last.depth}; what builds them does not draw from torch's global generator",
            "--init NAME, or a function without a seed of its own",
        )
    ]


def _uneven(measured: "Vanishing") -> list[Finding]:
    """Where layers differ, as biases make them do, the norm of the whole gradient speaks of the largest alone.

    Of layers on the way from the data to the loss: a scalar of the loss has a gradient of another kind.
    """
    typical = [
        (layer.gradient_norm.median / math.sqrt(layer.parameters), layer)
        for layer in measured.layers
        if layer.parameters and layer.depth is not None and layer.gradient_norm.median > 0
    ]
    if not typical:
        return []
    low, weakest = min(typical, key=lambda pair: pair[0])
    high, strongest = max(typical, key=lambda pair: pair[0])
    if not high > low / GONE:
        return []
    return [
        Finding(
            "bad",
            f"Layers are not reached alike: a typical parameter of {weakest.name} gets a gradient {times(high / low)} smaller than one of {strongest.name}.",
            f"{low:.2e} against {high:.2e} in layers {weakest.layer} and {strongest.layer} of {len(measured.layers)}, root mean squares over their parameters in a median network of depth {measured.depths[-1].depth}",
            "an optimizer that scales each parameter by itself (RMSprop, Adam); the norm of the whole gradient hides this",
        )
    ]


def _effective_width(last: "DepthNorms") -> list[Finding]:
    if last.effective_width is None or last.path_width is None or last.path_width < OVERSTATED * last.effective_width:
        return []
    error = f" ± {last.effective_width_stderr:.2g}" if last.effective_width_stderr else ""
    return [
        Finding(
            "note",
            f"The layers average like fully connected ones of {last.effective_width:.3g} units, not of {last.path_width:.4g}.",
            f"effective width {last.effective_width:.3g}{error} by the stable rank of their inputs, {last.path_width:.4g} by counting paths (k^2 c), harmonic means over the layers at depth {last.depth}",
            "judge depth by the former: weights that are shared over an image are fewer independent terms than its paths",
        )
    ]


def _typical_against_mean(last: "DepthNorms") -> list[Finding]:
    norm = last.gradient_norm
    if not norm.median > 0 or not 2 * norm.median <= norm.mean < math.inf:
        return []
    return [
        Finding(
            "note",
            f"Averages mislead here: a typical network's gradient is {times(norm.mean / norm.median)} smaller than the average says.",
            f"at depth {last.depth} median {norm.median:.2e}, mean {norm.mean:.2e}, 90 % of networks between {norm.q05:.1e} and {norm.q95:.1e}",
            "judge an initialization by its median; try several seeds",
        )
    ]


def _dead(last: "DepthNorms") -> list[Finding]:
    if not last.dead_fraction:
        return []
    level: Level = "bad" if last.dead_fraction > 0.05 else "warn"
    return [
        Finding(
            level,
            f"{percent(last.dead_fraction)} of networks are born dead: their gradient is exactly zero.",
            f"{round(last.dead_fraction * last.seeds)} of {last.seeds} at depth {last.depth}; no optimizer can move them",
            "leaky ReLU, a wider narrowest layer, or another seed",
        )
    ]


def _underflow(last: "DepthNorms") -> list[Finding]:
    per_weight = last.gradient_norm.median / math.sqrt(last.parameters)
    if not 0 < per_weight < FLOAT32_FLOOR:
        return []
    return [
        Finding(
            "bad",
            "In float32 these gradients are zero: no optimizer would move at all.",
            f"a typical entry is {per_weight:.1e}, float32 ends at {FLOAT32_FLOOR:.1e} (this measurement is in float64)",
            "mend the scale before anything else",
        )
    ]


def _agreement(measured: "Vanishing") -> list[Finding]:
    if not measured.agreement:
        return []
    worst = max(measured.agreement, key=lambda entry: abs(entry.z))
    return [agreement_finding(worst.z, f"{worst.quantity}, depth {worst.depth}", len(measured.agreement))]
