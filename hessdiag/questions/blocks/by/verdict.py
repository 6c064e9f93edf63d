"""What it means that a Hessian is block-diagonal so far, for optimizers that see blocks, single weights or neither.

Of what the literature disputes nothing is stated as a rule: whether blockwise curvature suffices, and whether blocks
whose spectra differ are why Adam beats SGD on transformers (docs/concepts/block-diagonal.md has the claims).
"""

from hessdiag.numbers import counted, number, percent, times, with_error
from hessdiag.questions.blocks.by.result import Block, BlocksBy, Extreme
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import (
    CAN_USE_IT,
    checks_findings,
    data_findings,
    faint_findings,
    most_severe_first,
    nothing_there,
    piece_findings,
)

APART = 0.2  # between the shares in two norms, from which the answer hangs on the norm
MOST = 0.5  # share that decides between "most" and "some"
NEARLY = 0.1  # relative Frobenius error of a block diagonal that is nearly the matrix
SEEN = 0.9  # of an extreme eigenvalue that blocks show, from which nothing is missing
ONE_WAY, OTHER_WAY = 0.9, 0.5  # cosines of directions that are about the same, and that are not
ROUGH = 0.05  # standard error of a share beyond which more probes are advised
OF_LAYERS = ("layer", "tensor")  # blocks that K-FAC and Shampoo have


@most_severe_first
def findings(blocks: BlocksBy) -> list[Finding]:
    """The verdict on a partition, the most important sentence first."""
    found = checks_findings(blocks.checks, blocks.check_tolerance, blocks.point)
    if not blocks.trusted:
        return [*found, *data_findings(blocks.problem)]
    if blocks.interrupted:
        found.append(_stopped(blocks))
    if blocks.norm == 0:
        says = "The Hessian is exactly zero: there is nothing to be block-diagonal."
        return [
            *found,
            nothing_there(says, "its norm vanishes; a network whose units are all dead does this", blocks.point),
        ]
    found += faint_findings(blocks.norm, "its norm")
    found += _inside(blocks)
    found += _sharpest(blocks)
    found += _negative(blocks)
    found += _direction(blocks)
    found += _differences(blocks)
    found += _diagonal(blocks)
    found += _precision(blocks)
    found += [Finding("note", f"{note[0].upper()}{note[1:]}.", "", "") for note in blocks.partition_notes]
    found += piece_findings(blocks.point)
    return [*found, *data_findings(blocks.problem)]


def _stopped(blocks: BlocksBy) -> Finding:
    """What there is after an interrupt."""
    known = [
        name
        for name, value in (
            ("shares of squares", blocks.frobenius_share),
            ("shares of absolute mass", blocks.absolute_share),
            ("extreme eigenvalues of the Hessian", blocks.lambda_max.hessian),
            (
                f"eigenvalues of {_looked_at(blocks)} of {counted(len(blocks.blocks), 'block')}",
                blocks.lambda_max.blocks,
            ),
        )
        if value is not None
    ]
    return Finding(
        "note",
        f"Interrupted: {', '.join(known)} are here, from what was measured by then, and nothing of the rest.",
        f"{counted(blocks.probes, 'random vector')} and {counted(blocks.rows, 'row')} were done",
        "the same command with more time; --resume DIR keeps what is finished",
    )


def _looked_at(blocks: BlocksBy) -> int:
    return sum(block.lambda_max is not None for block in blocks.blocks)


def _inside(blocks: BlocksBy) -> list[Finding]:
    """What is inside the blocks, in one norm and in the other."""
    squares, mass = blocks.frobenius_share, blocks.absolute_share
    count = counted(len(blocks.blocks), "block")
    if squares is None:
        return []
    if len(blocks.blocks) == 1:
        return [Finding("note", "There is one block only: it is the whole Hessian.", "", "--by tensor, or neuron")]
    error = f"the block diagonal is off by {percent(blocks.relative_error)} of |H| in the Frobenius norm"
    between = percent(1 - squares)
    remedy = (
        f"K-FAC, Shampoo and other methods of blocks such as these take what is between them ({between} of the squares) for zero, and approximate inside, too"
        if blocks.partition in OF_LAYERS
        else f"methods with these blocks (block-diagonal Newton, one step size a block) take what is between them ({between} of the squares) for zero"
    )
    if mass is not None and abs(squares - mass) >= APART:
        larger = "squares weigh the few large entries, absolute mass the many small ones"
        return [
            Finding(
                "note",
                f"How block-diagonal it is depends on the norm: {percent(squares)} of the squared norm is inside the {count}, and {percent(mass)} of the absolute mass.",
                f"{error}; {larger}",
                f"say which norm is meant; {remedy}",
            )
        ]
    both = f"{percent(squares)} of the squared norm" + (
        "" if mass is None else f" and {percent(mass)} of the absolute mass"
    )
    if blocks.relative_error is not None and blocks.relative_error <= NEARLY:
        says = f"The Hessian is nearly block-diagonal: {both} is inside the {count}."
    elif squares >= MOST:
        says = f"Most of the Hessian is inside the {count}: {both}."
    else:
        says = f"Most of the Hessian couples the {count}: {both} is inside them."
        remedy = f"methods that see across blocks: Newton-CG, trust region, L-BFGS; {remedy}"
    return [Finding("note", says, error, remedy)]


def _at_least(extreme: Extreme) -> str:
    return "at least " if extreme.blocks_is_bound else ""


def _sharpest(blocks: BlocksBy) -> list[Finding]:
    """What the blocks show of the largest eigenvalue, and of the learning rate that it allows."""
    top = blocks.lambda_max
    if top.hessian is None or top.blocks is None or len(blocks.blocks) == 1 or top.hessian <= blocks.rounding:
        return []
    part = top.blocks / top.hessian
    numbers = f"lambda_max is {number(top.hessian, 4)} of the Hessian and {_at_least(top)}{number(top.blocks, 4)} of the block diagonal ({top.block})"
    if part >= SEEN:
        return [
            Finding(
                "note",
                f"The blocks by themselves show {percent(part)} of the largest eigenvalue.",
                numbers,
                "for SGD, curvature block by block gives about the right largest learning rate",
            )
        ]
    if top.blocks_is_bound:
        return [
            Finding(
                "note",
                f"The blocks that were looked at show {percent(part)} of the largest eigenvalue; others may show more.",
                f"{numbers}; {_looked_at(blocks)} of {len(blocks.blocks)} blocks were looked at",
                "fewer, larger blocks, of which all are looked at",
            )
        ]
    allowed = f"; SGD is stable below 2/lambda_max = {number(2 / top.hessian)}" + (
        f", and the blocks by themselves would allow {number(2 / top.blocks)}" if top.blocks > blocks.rounding else ""
    )
    return [
        Finding(
            "note",
            f"The blocks by themselves show only {percent(part)} of the largest eigenvalue: couplings between them make the rest.",
            numbers + allowed,
            "take the largest learning rate from hessdiag eigs; what is preconditioned block by block needs damping or a smaller step",
        )
    ]


def _negative(blocks: BlocksBy) -> list[Finding]:
    """Whether negative curvature is seen by blocks."""
    low, zero = blocks.lambda_min, blocks.rounding
    if low.hessian is None or low.blocks is None or not low.hessian < -zero or len(blocks.blocks) == 1:
        return []
    numbers = f"lambda_min is {number(low.hessian, 4)} of the Hessian and {number(low.blocks, 4)} of the block diagonal"
    if low.blocks < -zero and low.blocks / low.hessian >= MOST:
        return [
            Finding(
                "note",
                f"Blocks by themselves curve down: they show {percent(low.blocks / low.hessian)} of the most negative eigenvalue.",
                f"{numbers} ({low.block})",
                "methods that take blocks for positive (K-FAC, Shampoo) need damping there, and cannot follow it",
            )
        ]
    unseen = ", among those that were looked at" if low.blocks_is_bound else ""
    seen = (
        "no block curves down"
        if not low.blocks < -zero
        else f"blocks show {percent(low.blocks / low.hessian)} of the most negative eigenvalue"
    )
    return [
        Finding(
            "note",
            f"{'Most negative curvature' if low.blocks < -zero else 'Negative curvature'} is between blocks: {seen}{unseen}.",
            numbers,
            f"{CAN_USE_IT}; no method that works block by block sees it",
        )
    ]


def _direction(blocks: BlocksBy) -> list[Finding]:
    """Whether the sharpest direction is that of a block."""
    cosine = blocks.top_cosine
    if cosine is None or len(blocks.blocks) == 1:
        return []
    because = f"the cosine between the top eigenvectors of the Hessian and of its block diagonal ({blocks.lambda_max.block}) is {number(cosine)}"
    if cosine >= ONE_WAY:
        return [Finding("note", "The sharpest direction of the Hessian is that of the blocks.", because, "")]
    if cosine <= OTHER_WAY:
        says = "The sharpest direction of the Hessian is not that of any block: it moves several together."
        return [Finding("note", says, because, "hessdiag eigs, which shows where the top eigenvectors live")]
    return []


def _differences(blocks: BlocksBy) -> list[Finding]:
    """How much the blocks' spectra differ, and what that is to SGD and to methods with a step size for each block."""
    if blocks.heterogeneity is None or blocks.spectra is None:
        return []
    known = [block for block in blocks.blocks if block.lambda_max is not None and block.distance is not None]
    sharp = max(known, key=_top, default=None)
    flat = min((block for block in known if _top(block) > blocks.rounding), key=_top, default=None)
    compared = f"{blocks.spectra.compared} blocks were compared" + (
        "" if blocks.spectra.compared == len(blocks.blocks) else f" of {len(blocks.blocks)}, the largest among them"
    )
    because = f"mean Jensen-Shannon distance {with_error(blocks.heterogeneity, blocks.heterogeneity_stderr, 3)}, 0 for spectra that are all alike and 1 for spectra that share nothing; {compared}"
    if sharp is None or flat is None or sharp == flat or not _top(sharp) > 2 * _top(flat):
        says = "The blocks' largest eigenvalues are about alike."
        return [Finding("note", says, because, "one learning rate suits all blocks as far as these show")]
    return [
        Finding(
            "note",
            f"The blocks' spectra differ: the sharpest block's largest eigenvalue is {times(_top(sharp) / _top(flat))} the flattest's.",
            f"{because}; {number(_top(sharp))} in {sharp.name}, {number(_top(flat))} in {flat.name}",
            "SGD has one learning rate for all, which the sharpest sets; Adam, or a learning rate for each block, can give each its own. Whether that is why Adam does better on transformers is disputed",
        )
    ]


def _top(block: Block) -> float:
    return block.lambda_max or 0.0


def _diagonal(blocks: BlocksBy) -> list[Finding]:
    """What Adam's diagonal can see."""
    squares, mass = blocks.diagonal_frobenius_share, blocks.diagonal_absolute_share
    if squares is None or mass is None:
        return []
    return [
        Finding(
            "note",
            f"A diagonal, such as Adam's, can hold {percent(squares)} of the squared norm and {percent(mass)} of the absolute mass.",
            f"blocks hold {percent(blocks.frobenius_share)} and {percent(blocks.absolute_share)}; Adam's own diagonal is of gradients, and need not be the Hessian's",
            "hessdiag diag-share for the diagonal layer by layer",
        )
    ]


def _precision(blocks: BlocksBy) -> list[Finding]:
    error = blocks.frobenius_share_stderr
    if error is None or error <= ROUGH:
        return []
    return [
        Finding(
            "note",
            f"The share of squares is rough: {with_error(blocks.frobenius_share, error, 3)}.",
            f"{counted(blocks.probes, 'random vector')} for each block",
            f"--probes {4 * blocks.probes}",
        )
    ]
