"""What is the spectrum? Density, trace, Frobenius norm and moments, each with its interval; outliers exact."""

from dataclasses import replace
from pathlib import Path

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.gauss_newton import OutputSpaceOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.registry import OperatorName
from hessdiag.curvature.shared import share
from hessdiag.curvature.support import support
from hessdiag.errors import SpecError
from hessdiag.linalg.spread import spread_of
from hessdiag.problem.problem import Problem
from hessdiag.questions.common import operators
from hessdiag.questions.common.described import described
from hessdiag.questions.common.in_metric import MetricSpec, metric_of, named_only
from hessdiag.questions.common.operators import Operator, OutputChecks, Products
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.runs.forecast import Quadratures
from hessdiag.questions.common.runs.outlay import Quadrature, outlay, quadrature
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.runs.resume import kept_pieces
from hessdiag.questions.common.sharding import formed_up_to, refuse, sharding, where
from hessdiag.questions.common.subject import matrix_of
from hessdiag.questions.common.verdict import interrupted_early
from hessdiag.questions.spectrum.exact import exact
from hessdiag.questions.spectrum.found import Found, Setting, spectrum_of
from hessdiag.questions.spectrum.result import Spectrum
from hessdiag.questions.spectrum.sampled import Sampling, sampled
from hessdiag.questions.spectrum.verdict import findings

EXACT_UP_TO = 1_500  # parameters: all eigenvalues by LAPACK; more on a GPU (`capacity`)
ENDS = 5  # eigenpairs at each end that are taken out of the density


@recorded
@measurement(less="--probes 2 --steps 40")
def spectrum(
    problem: Problem | Operator,
    *,
    probes: int = 10,
    steps: int = 80,
    operator: OperatorName = "hessian",
    seed: int = 0,
    progress: Progress | None = None,
    resume: str | Path | None = None,
    metric: MetricSpec = None,
) -> Spectrum:
    """Measure the spectrum of a problem's Hessian, Gauss-Newton or Fisher matrix.

    Up to 1,500 parameters all eigenvalues are computed. Beyond, the extreme eigenpairs are computed first and taken
    out; the rest of the density and the Frobenius norm come from stochastic Lanczos quadrature, the trace from random
    signs (Hutchinson, after a sketch where eigenvalues decay), each with an interval that is measured to cover.

    Args:
        problem: What is differentiated, or the matrix itself as an operator.
        probes: Random vectors, at least 2.
        steps: Lanczos steps from each, at least 2.
        operator: "hessian", "ggn" (Gauss-Newton) or "fisher" (the model's own).
        seed: Of the probes.
        progress: Called with (done, total, what).
        resume: A folder in which finished probes are kept, for a run that goes on where this one stopped.
        metric: The optimizer in whose metric P^(-1/2) A P^(-1/2) it is taken, as for `eigs`. Default: A itself.

    Raises:
        SpecError: if `probes` or `steps` is too small, or the problem has no such matrix.
        ComputeError: if products cannot be computed, or memory does not hold the basis of a single probe.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> found = spectrum(Problem(model, data=data, loss="mse"))  # H = 2 [[1, 2], [2, 4]]
    >>> round(found.highest, 6), round(found.trace, 6), found.inertia.positive
    (10.0, 10.0, 1)
    """
    _refuse_few(probes, steps)
    problem, operator = matrix_of(problem, operator, "hessdiag.linalg.slq(operator)")
    refuse(problem, metric=metric, resume=resume)
    dense, taken = formed_up_to(problem, EXACT_UP_TO), metric_of(problem, metric)
    part = support(problem, dense, seed=seed, numeric=operator == "hessian")
    matrix = taken.operator(operators.operator(part.problem, operator), part)
    plan = None if part.size <= dense else _planned(matrix, part.size, probes, steps)
    checks, output = _checked(matrix, seed)
    products: Products = matrix if plan is None else share(matrix)
    report, resumed = progress or silent, 0
    if plan is None:
        found = exact(part, matrix, ends=ENDS, steps=steps, report=report)
    else:
        settings = {"operator": operator, "probes": probes, "steps": steps, "seed": seed, "metric": taken.key}
        pieces = kept_pieces(problem, "spectrum", settings, resume, matrix)
        asked = Sampling(
            matrix=part.restrict(products, matrix.chunk),
            zeros=part.zeros,
            semidefinite=output is not None and output.loss == "convex",
            plan=plan.again(pieces),
            probes=probes,
            steps=steps,
            seed=seed,
            pieces=pieces,
            report=report,
            where=where(problem),
        )
        found, resumed = sampled(asked), pieces.taken
    setting = Setting(
        problem=described(problem),
        operator=operator,
        metric=taken.named,
        parameters=problem.n_parameters,
        engine=products.engine,
        zero_rows=part.zeros,
        untouched=part.untouched,
        checks=checks,
        output=output,
        resumed_pieces=resumed,
        sharding=sharding(problem),
    )
    return _judged(spectrum_of(found, setting))


def _refuse_few(probes: int, steps: int) -> None:
    """Make sure that there are enough for an error.

    Raises:
        SpecError: if not.
    """
    if probes < 2 or steps < 2:
        raise SpecError(f"--probes and --steps must be at least 2, not {probes} and {steps}.", "--probes 10 --steps 80")


def _judged(measured: Spectrum) -> Spectrum:
    """With its verdict."""
    return replace(measured, findings=tuple(findings(measured)))


def _planned(matrix: Operator, size: int, probes: int, steps: int) -> Quadrature:
    """How vectors are held, and what it takes, entered in the ledger."""
    spent = outlay(matrix)
    plan = quadrature(spent, spread_of(matrix).own, ENDS, probes, steps)
    rest = Quadratures(probes, steps, 2 * plan.pairs).whole
    most = rest + plan.ends.work(probes * steps)
    count = round(rest.products) + 2 * plan.pairs, round(most.products)
    spent.plan(count, plan.held, passes=(rest.vectors, most.vectors))
    return plan


def _checked(matrix: Operator, seed: int) -> tuple[Examination, OutputChecks | None]:
    """The self-checks, of a Gauss-Newton or Fisher matrix with its comparison with the linearized model."""
    checks = examine(matrix, seed, squared=True)
    if not isinstance(matrix, OutputSpaceOperator):
        return checks, None
    output = operators.output_checks(matrix, seed)
    return checks.also(output.checks, output.inside), output


def unmeasured(problem: Problem, operator: OperatorName, metric: MetricSpec = None) -> Spectrum:
    """The result of a run that was interrupted before anything was measured."""
    named = named_only(metric)
    setting = Setting(problem=described(problem), operator=operator, metric=named, parameters=problem.n_parameters)
    return replace(spectrum_of(Found(), setting), findings=(interrupted_early(),))
