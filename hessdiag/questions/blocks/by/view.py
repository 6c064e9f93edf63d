"""The view of `blocks --by`: how block-diagonal is the Hessian, in which norm?"""

from collections.abc import Sequence

from hessdiag.fields import Interval, Number
from hessdiag.questions.blocks.by.result import Block, BlocksBy, BlockSpectra, Extreme
from hessdiag.questions.common.view import subject
from hessdiag.report.names import shortened
from hessdiag.report.numbers import MISSING, bounded, counted, drawable, number, percent, with_error
from hessdiag.report.view import Dots, Fact, Heat, Series, Table, View, without_empty

LARGEST = 20  # blocks in the table
CELL = 0.5  # decades, as wide as the smoothing
FAINTEST = 1e-2  # of the highest density: what is below has the darkest colour
FULL_MATRIX = 12  # blocks up to which the matrix of norms is printed whole

COUPLED = (
    "Each cell is the Frobenius norm of what couples two blocks, on a logarithmic scale of colours. A bright diagonal "
    "means that blocks curve by themselves; what is bright elsewhere a method that treats blocks one by one takes for "
    "zero."
)
SPECTRA = (
    "Each row is one block: where its eigenvalues are, as a density smoothed by half a decade. The axis is logarithmic "
    "for both signs and linear around zero. Rows that look alike are spectra that are alike."
)


def view(result: BlocksBy) -> View:
    """Lay out a result of `blocks --by`."""
    drawn = [_couplings(result), _spectra(result.spectra)]
    return View(
        question=f"How block-diagonal is the Hessian, by {result.partition}, in which norm?",
        subject=subject(result.problem),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(*(one for one in drawn if one is not None), _table(result)),
    )


def _headline(result: BlocksBy) -> tuple[str, str]:
    count = counted(len(result.blocks), "block")
    if result.norm == 0:
        return "0", f"is the norm of the Hessian: nothing is inside the {count} or between them"
    if result.frobenius_share is None:
        return count, "and nothing was measured before the interrupt"
    squares = _percent(result.frobenius_share, result.frobenius_share_interval)
    mass = "" if result.absolute_share is None else f", and {percent(result.absolute_share)} of its absolute mass,"
    return squares, f"of the Hessian's squared norm{mass} {'is' if not mass else 'are'} inside the {count}"


def _percent(share: Number, interval: Interval | None = None) -> str:
    ends = "" if interval is None else f" ({percent(interval[0])} to {percent(interval[1])})"
    return percent(share) + ends


def _facts(result: BlocksBy) -> tuple[Fact, ...]:
    exact = result.method == "exact"
    sampled = f"{number(result.probes)} vectors a block, {number(result.rows)} rows"
    facts = [
        Fact(
            "method", "exact" if exact else sampled, "the whole matrix" if exact else "random vectors, rows and Lanczos"
        ),
        Fact(
            "inside, of squares",
            _percent(result.frobenius_share, result.frobenius_share_interval),
            "of the sum of H_ij²; few large entries decide",
        ),
        Fact(
            "inside, of absolute mass",
            _percent(result.absolute_share, result.absolute_share_interval),
            "of the sum of |H_ij|; many small entries count",
        ),
        Fact(
            "relative error",
            with_error(result.relative_error, result.relative_error_stderr, 3),
            "of the block diagonal, in the Frobenius norm",
        ),
        *_theory(result),
        Fact("on the diagonal", _diagonal(result), "of squares, and of absolute mass"),
        Fact("largest eigenvalue", *_extreme(result.lambda_max, "lower", result.rounding)),
        Fact("smallest eigenvalue", *_extreme(result.lambda_min, "upper", result.rounding)),
        Fact("cosine on top", number(result.top_cosine), "between the top eigenvectors of both"),
        Fact(
            "heterogeneity",
            with_error(result.heterogeneity, result.heterogeneity_stderr, 3),
            "mean Jensen-Shannon distance of the blocks' spectra: 0 alike, 1 nothing shared",
        ),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _theory(result: BlocksBy) -> tuple[Fact, ...]:
    """What closed forms say of the three numbers before."""
    law = result.theory
    if law is None:
        return ()
    shares = f"{percent(law.frobenius_share)}, {percent(law.absolute_share)}, {number(law.relative_error, 3)}"
    return (Fact("theory of all three", shares, "softmax regression at W = 0 has these, whatever its data"),)


def _diagonal(result: BlocksBy) -> str:
    shares = result.diagonal_frobenius_share, result.diagonal_absolute_share
    return MISSING if None in shares else " and ".join(map(percent, shares))


def _eigenvalue(value: Number, is_bound: bool, bound: str, rounding: float, digits: int = 3) -> str:
    """An eigenvalue, as a bound where it has not converged; what is rounding is zero."""
    known = 0.0 if value is not None and abs(value) <= rounding else value
    return bounded(known, bound if is_bound else None, digits)


def _extreme(extreme: Extreme, bound: str, rounding: float) -> tuple[str, str]:
    """Of the Hessian; and what its block diagonal makes of it."""
    value = _eigenvalue(extreme.hessian, extreme.hessian_is_bound, bound, rounding, 4)
    if extreme.blocks is None:
        return value, "of the Hessian"
    blocks = _eigenvalue(extreme.blocks, extreme.blocks_is_bound, bound, rounding, 4)
    return value, f"of the Hessian; {blocks} of the block diagonal, in {extreme.block}"


def _couplings(result: BlocksBy) -> Heat | Dots | None:
    """The norms of all pairs of blocks; where these are not known, those of the largest blocks."""
    if len(result.blocks) < 2:
        return None
    if result.coupling is None:
        return _bars(result)
    names = shortened(result.coupled)
    some = "" if len(names) == len(result.blocks) else f" of the {len(names)} largest"
    return Heat(
        title=f"Norms between blocks{some}",
        caption=COUPLED,
        alt=f"Heat map of the norms between {counted(len(names), 'block')}, on a logarithmic scale.",
        table=_matrix(result, names),
        text="none",
        labels=names,
        matrix=result.coupling,
        axis="|H_bc|",
    )


def _matrix(result: BlocksBy, names: Sequence[str]) -> Table:
    assert result.coupling is not None
    places = range(len(names))
    if len(names) <= FULL_MATRIX:
        rows = tuple((names[i], *(number(result.coupling[i][j]) for j in places)) for i in places)
        return Table("Norm between blocks", ("block", *names), rows)
    pairs = sorted((-(result.coupling[i][j] or 0.0), i, j) for i in places for j in places if i < j)[:LARGEST]
    return Table(
        f"Strongest couplings of {len(names) * (len(names) - 1) // 2} pairs of blocks",
        ("block", "block", "norm"),
        tuple((names[i], names[j], number(-norm)) for norm, i, j in pairs),
        text_columns=2,
    )


def _largest(result: BlocksBy) -> list[Block]:
    """The blocks that hold most, in the order of the partition."""
    ranked = sorted(range(len(result.blocks)), key=lambda place: -(result.blocks[place].frobenius or 0.0))
    return [result.blocks[place] for place in sorted(ranked[:LARGEST])]


def _bars(result: BlocksBy) -> Dots | None:
    blocks = [block for block in _largest(result) if block.frobenius]
    if not blocks:
        return None
    names = shortened([block.name for block in blocks])
    norms = tuple(block.frobenius for block in blocks)
    return Dots(
        title=f"Norms of the {len(names)} largest blocks",
        caption="The Frobenius norm of each block itself, on a logarithmic axis.",
        alt=f"Frobenius norms of {counted(len(names), 'block')}.",
        table=Table("Norms of blocks", ("block", "norm"), tuple(zip(names, map(number, norms), strict=True))),
        text="none",
        labels=names,
        series=(Series("|H_bb|", norms),),
        axis="|H_bb|",
    )


def _spectra(spectra: BlockSpectra | None) -> Heat | None:
    """The densities as a strip for each block."""
    if spectra is None or None in spectra.grid:
        return None
    names = shortened(spectra.names)
    top = max((value for row in spectra.densities for value in row if drawable(value, log=True)), default=1.0)
    columns = _columns(spectra, FAINTEST * top)
    rows = tuple((name, *_quantiles(spectra, row)) for name, row in zip(names, spectra.densities, strict=True))
    return Heat(
        title=f"Spectra of {counted(len(names), 'block')}",
        caption=SPECTRA,
        alt=f"Spectral densities of {counted(len(names), 'block')}, a row each, on one axis.",
        table=Table("Quantiles of the smoothed spectra", ("block", "5 %", "median", "95 %"), rows),
        text="none",
        labels=names,
        matrix=tuple(tuple(row[column] for column in columns) for row in spectra.densities),
        axis="density",
        columns=tuple(number(spectra.eigenvalues[column], 1) for column in columns),
        scale=(FAINTEST * top, top),
        x_axis="eigenvalue",
    )


def _columns(spectra: BlockSpectra, faintest: float) -> list[int]:
    """Places on the axis for a cell each, half a decade apart and one at zero, as far as anything is seen."""
    middle = len(spectra.grid) // 2
    apart = max(round(CELL / (spectra.grid[1] - spectra.grid[0])), 1)
    every = range(middle % apart, len(spectra.grid), apart)
    seen = [
        place
        for place in every
        if any(drawable(value := row[place], log=True) and value >= faintest for row in spectra.densities)
    ]
    return [place for place in every if seen and seen[0] <= place <= seen[-1]]


def _quantiles(spectra: BlockSpectra, density: Sequence[Number]) -> list[str]:
    """Eigenvalues below which 5, 50 and 95 % of a smoothed density are."""
    total, below, found = sum(value or 0.0 for value in density), 0.0, []
    wanted = [0.05, 0.5, 0.95]
    for eigenvalue, value in zip(spectra.eigenvalues, density, strict=True):
        below += value or 0.0
        while wanted and below >= wanted[0] * total:
            found.append(number(eigenvalue, 2))
            wanted.pop(0)
    return [*found, *[MISSING] * len(wanted)]


def _table(result: BlocksBy) -> Table:
    shown = _largest(result)
    rows = tuple(
        (
            name,
            block.kind,
            number(block.parameters),
            with_error(block.frobenius, block.frobenius_stderr, 3),
            percent(block.share),
            percent(block.row_share),
            percent(block.row_absolute_share),
            _eigenvalue(block.lambda_max, block.lambda_max_is_bound, "lower", result.rounding),
            _eigenvalue(block.lambda_min, block.lambda_min_is_bound, "upper", result.rounding),
            number(block.distance),
        )
        for name, block in zip(shortened([block.name for block in shown]), shown, strict=True)
    )
    columns = (
        "block", "kind", "parameters", "norm", "of |H|²", "inside, squares", "inside, absolute", "λ max", "λ min",
        "distance",
    )  # fmt: skip
    some = "" if len(shown) == len(result.blocks) else f" (the {len(shown)} largest of {len(result.blocks)})"
    title = f"Per block{some}: its norm, what of its rows is inside, its eigenvalues, its spectrum's distance to others"
    optional = ("kind", "parameters", "inside, absolute", "distance")
    return without_empty(Table(title, columns, rows, 2, optional), kept=("norm",))
