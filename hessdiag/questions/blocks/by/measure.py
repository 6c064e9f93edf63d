"""How block-diagonal is the Hessian under a partition, in which norm, and do the blocks' spectra differ?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hessdiag.curvature.checks import examine
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.shared import share
from hessdiag.curvature.support import Support, support
from hessdiag.errors import ComputeError, SpecError
from hessdiag.machine import capacity
from hessdiag.problem.partition import Partition, partition
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.by.asked import Asked, Meter
from hessdiag.questions.blocks.by.block_ends import HIGHEST, STEPS
from hessdiag.questions.blocks.by.block_ends import PROBES as PROBES_OF_A_BLOCK
from hessdiag.questions.blocks.by.exact import exact
from hessdiag.questions.blocks.by.layout import Layout
from hessdiag.questions.blocks.by.norms import colours_of
from hessdiag.questions.blocks.by.predicted import predicted
from hessdiag.questions.blocks.by.result import Block, BlocksBy
from hessdiag.questions.blocks.by.row_shares import wanted
from hessdiag.questions.blocks.by.sampled import MEASURED, planned, sampled
from hessdiag.questions.blocks.by.verdict import findings
from hessdiag.questions.common import operators
from hessdiag.questions.common.block_squares import LARGEST_PORTION
from hessdiag.questions.common.described import described, examined
from hessdiag.questions.common.result import Provenance, Status
from hessdiag.questions.common.runs.outlay import Basis, basis, outlay
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.runs.resume import kept_pieces
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import interrupted_early

EXACT_UP_TO = 5_000  # parameters: the whole matrix; more on a GPU (`capacity`)
PROBES = 16  # random vectors for the norms of blocks beyond


def blocks_by(
    problem: Problem | HessianOperator,
    by: str | Sequence[str],
    *,
    probes: int | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> BlocksBy:
    """What `hessdiag.blocks(problem, by=...)` does, which has the account of it."""
    if probes is not None and probes < 2:
        raise SpecError(f"--probes must be at least 2, not {probes}.", f"--probes {PROBES}")
    problem = problem_of(problem)
    report = progress or silent
    blocks = partition(problem, by)
    dense = EXACT_UP_TO * capacity.of(problem.device).times_dense
    part = support(problem, dense, seed=seed)
    layout = Layout.of(blocks, part)
    result = replace(_named(problem, blocks), zero_rows=part.zeros, theory=predicted(problem, blocks))
    operator = HessianOperator(part.problem, check=False)
    if probes is None and part.size <= dense:
        checks = examine(operator, seed, squared=True)
        found, engine, taken = (
            replace(exact(part, layout, result, operator, report), status="ok"),
            operator.engine,
            0,
        )
    else:
        plan = _planned(operator, part, layout, probes or PROBES)
        checks = examine(operator, seed, squared=True)
        pieces = kept_pieces(problem, "blocks", {"by": blocks.by, "probes": probes, "seed": seed}, resume, operator)
        shared = share(operator)
        asked = Asked(
            part=part,
            layout=layout,
            matrix=part.restrict(shared, operator.chunk),
            width=pieces.choice("vectors together", lambda: operators.together(operator, LARGEST_PORTION)),
            probes=probes or PROBES,
            seed=seed,
            pieces=pieces,
            meter=Meter(report, plan.products),
        )
        report(0, plan.products, plan.said(pieces))
        found = sampled(asked, plan.space.again(pieces), result)
        engine, taken = pieces.choice("engine", lambda: shared.engine), pieces.taken
    status: Status = found.status if found.interrupted else "inexact" if checks.failed else "ok"
    made = Provenance(resumed_pieces=taken or None)
    measured = replace(examined(found, checks), status=status, engine=engine, provenance=made)
    return replace(measured, findings=tuple(findings(measured)))


@dataclass(frozen=True)
class _Plan:
    """What products are going to be taken, at most, and the vectors that the longest search holds."""

    layout: Layout
    parameters: int
    products: int
    rows: int
    probes: int
    space: Basis

    def said(self, pieces: Pieces) -> str:
        """In words, before it is done."""
        count, colours = self.layout.count, colours_of(self.layout.count)
        blocks = min(count, MEASURED)
        disk = pieces.said(16 * self.probes * count + 48 * self.rows + self.space.size * 8 * self.parameters, anew=True)
        return (
            f"{self.parameters:,} parameters in {count:,} blocks: at most {self.products:,} products, for norms "
            f"({self.probes} x {colours}), {self.rows:,} rows, both ends of the Hessian, and spectra of "
            f"{blocks} {'block' if blocks == 1 else 'blocks'}{disk}"
        )


def _planned(operator: HessianOperator, part: Support, layout: Layout, probes: int) -> _Plan:
    """The same, entered in the ledger.

    Raises:
        ComputeError: if memory does not hold the smallest basis.
    """
    spent = outlay(operator)
    try:
        space = basis(spent, part.size, 1, HIGHEST, None)
    except ComputeError as error:
        raise ComputeError(error.what, "--layers 'GLOB' for some of the layers") from None
    products, fewest = planned(layout, part.size, probes), probes * colours_of(layout.count)
    together = operators.together(operator, LARGEST_PORTION)
    double = 8 / operator.dtype.itemsize
    lanczos = 2 * PROBES_OF_A_BLOCK * (STEPS + 1) * max(map(len, layout.rows)) / part.size
    held = max(
        space.held,
        {"vectors of a product": together * (2 + 2 * double)},
        {"Lanczos vectors of a block": lanczos, "vectors of a product": 2.0 * together},
        key=lambda phase: sum(phase.values()),
    )
    spent.plan((fewest, products), held, search=True)
    return _Plan(layout, part.whole.n_parameters, products, wanted(part.size), probes, space)


def unmeasured(problem: Problem, by: str | Sequence[str]) -> BlocksBy:
    """The result of a run that was interrupted before anything was measured."""
    return replace(_named(problem, partition(problem, by)), findings=(interrupted_early(),))


def _named(problem: Problem, blocks: Partition) -> BlocksBy:
    """A result with nothing in it but the names of the blocks."""
    return BlocksBy(
        status="interrupted",
        problem=described(problem),
        partition=blocks.by,
        partition_notes=blocks.notes,
        blocks=tuple(
            Block(name=name, kind=kind, parameters=size)
            for name, kind, size in zip(blocks.names, blocks.kinds, blocks.sizes, strict=True)
        ),
        parameters=problem.n_parameters,
        method="exact",
    )
