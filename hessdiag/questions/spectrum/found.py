"""What a way to the eigenvalues found, and how it becomes a result."""

import math
from dataclasses import dataclass
from typing import Literal

from hessdiag.curvature.checks import Examination
from hessdiag.curvature.registry import OperatorName
from hessdiag.curvature.support import Restricted
from hessdiag.linalg.densities import Density
from hessdiag.linalg.eigenpairs import ROUNDING
from hessdiag.questions.common.certificate import (
    NONE_FOUND,
    NONE_OF_ALL,
    NOTHING_MEASURED,
    Certificate,
    Witness,
    certificate,
)
from hessdiag.questions.common.described import examined
from hessdiag.questions.common.inertia import Inertia
from hessdiag.questions.common.metric import Metric
from hessdiag.questions.common.operators import Operator, OutputChecks, Products
from hessdiag.questions.common.result import ModelSubject, Provenance, Sharding, Status
from hessdiag.questions.spectrum import curves
from hessdiag.questions.spectrum.curves import UNMEASURED
from hessdiag.questions.spectrum.result import Outlier, Semicircle, Spectrum
from hessdiag.statistics.intervals import EstimatedNumber


@dataclass(frozen=True)
class End:
    """The smallest or the largest eigenvalue that was found, and whether the spectrum may reach further."""

    value: float | None
    is_bound: bool


UNKNOWN_END = End(None, is_bound=True)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found by one way or the other; as it is, nothing.

    Attributes:
        witness: Why there may be a negative eigenvalue; `None` where nothing was measured.
        density: The quadratures; `None` where an interrupt left none.
    """

    method: Literal["exact", "slq"] = "slq"
    probes: int = 0
    steps: int = 0
    lowest: End = UNKNOWN_END
    highest: End = UNKNOWN_END
    witness: Witness | None = None
    outliers: tuple[Outlier, ...] = ()
    hvps: int = 0
    status: Status = "interrupted"
    density: Density | None = None
    trace: EstimatedNumber = UNMEASURED
    frobenius: EstimatedNumber = UNMEASURED
    negative_fraction: EstimatedNumber = UNMEASURED
    negative_mass: EstimatedNumber = UNMEASURED
    near_zero_fraction: EstimatedNumber = UNMEASURED
    inertia: Inertia | None = None
    condition: float | None = None
    eigenvalues: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Of which matrix, how it was computed, and what its self-checks found; `None` where they had not ended.

    Attributes:
        output: Of a Gauss-Newton or Fisher matrix, what its comparison with the linearized model found.
    """

    problem: ModelSubject
    operator: OperatorName
    metric: Metric | None = None
    parameters: int
    engine: str = ""
    zero_rows: int = 0
    untouched: int = 0
    checks: Examination | None = None
    output: OutputChecks | None = None
    resumed_pieces: int = 0
    sharding: Sharding | None = None


def zero(matrix: Operator | Products | Restricted, scale: float) -> float:
    """Magnitude below which an eigenvalue cannot be told from zero: the error of products with the largest."""
    return ROUNDING * matrix.precision * scale


def spectrum_of(found: Found, setting: Setting) -> Spectrum:
    """The result, without a verdict."""
    checks, output, density = setting.checks, setting.output, found.density
    trusted = checks is None or not checks.failed
    result = Spectrum(
        status="inexact" if found.status == "ok" and not trusted else found.status,
        problem=setting.problem,
        theory=_theory(found, setting),
        provenance=Provenance(resumed_pieces=setting.resumed_pieces or None, sharding=setting.sharding),
        operator=setting.operator,
        metric=setting.metric,
        loss_in_output=None if output is None else output.loss,
        loss_uses_parameters=None if output is None else output.elsewhere,
        outputs_at_kink=None if output is None else output.at_kink,
        method=found.method,
        parameters=setting.parameters,
        probes=found.probes,
        steps=found.steps,
        trace=found.trace.value,
        trace_stderr=found.trace.stderr,
        trace_interval=found.trace.interval,
        frobenius=found.frobenius.value,
        frobenius_stderr=found.frobenius.stderr,
        frobenius_interval=found.frobenius.interval,
        zero_rows=setting.zero_rows,
        untouched=setting.untouched,
        lowest=found.lowest.value,
        lowest_is_bound=found.lowest.is_bound,
        highest=found.highest.value,
        highest_is_bound=found.highest.is_bound,
        density=None if density is None else curves.curve(density),
        log_density=None if density is None else curves.log_curve(density),
        moments=() if density is None else curves.moments(density),
        negative_fraction=found.negative_fraction.value,
        negative_fraction_stderr=None,
        negative_fraction_interval=found.negative_fraction.interval,
        negative_fraction_bounds=found.negative_fraction.interval,
        negative_mass=found.negative_mass.value,
        negative_mass_stderr=found.negative_mass.stderr,
        negative_mass_interval=found.negative_mass.interval,
        near_zero_fraction=found.near_zero_fraction.value,
        near_zero_fraction_stderr=None,
        near_zero_fraction_interval=found.near_zero_fraction.interval,
        negative_certificate=_certificate(found, trusted),
        inertia=found.inertia,
        condition=found.condition,
        outliers=found.outliers,
        eigenvalues=found.eigenvalues,
        hvps=found.hvps,
        engine=setting.engine,
    )
    return result if checks is None else examined(result, checks)


def _theory(found: Found, setting: Setting) -> Semicircle | None:
    """The semicircle of trace and Frobenius norm: its radius is twice the eigenvalues' standard deviation."""
    trace, frobenius, n = found.trace.value, found.frobenius.value, setting.parameters
    if trace is None or frobenius is None:
        return None
    mean = trace / n
    radius = 2 * math.sqrt(max(frobenius**2 / n - mean**2, 0.0))
    return Semicircle(mean - radius, mean + radius)


def _certificate(found: Found, trusted: bool) -> Certificate:
    if found.witness is None:
        return NOTHING_MEASURED
    otherwise = NONE_OF_ALL if found.method == "exact" else NONE_FOUND
    return certificate([found.witness], trusted=trusted, otherwise=otherwise)
