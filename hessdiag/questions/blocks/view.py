"""The view of `blocks`: which layers curve, and how do they couple?"""

from collections.abc import Sequence
from dataclasses import dataclass

from hessdiag.fields import Interval, Matrix, Number, Numbers
from hessdiag.questions.blocks.result import Blocks
from hessdiag.questions.common.view import subject
from hessdiag.report.names import Name, shortened
from hessdiag.report.numbers import MISSING, counted, drawable, interval, number, percent, with_error, with_interval
from hessdiag.report.view import Fact, Heat, Table, View

FULL_MATRIX = 12  # layers up to which a matrix is printed whole; beyond, its largest entries
LARGEST = 20
COUPLINGS = 10  # pairs of layers in the table of the strongest
FAINTEST = 1e-250  # norm below which a colour scale has no place, near the end of what floats hold
DECADES = 1e-6  # what is fainter than this beside the largest block has the darkest colour

OF_HESSIAN = (
    "A bright diagonal means that layers curve by themselves; whatever is bright elsewhere couples two layers, and "
    "a method that treats each layer alone takes it for zero."
)
OF_PART = "The curvature of the loss through the slopes of the output: what Gauss-Newton, Fisher and K-FAC start from."
OF_REST = (
    "The curvature of the output itself. For piecewise-linear networks its diagonal is zero; with a convex loss, "
    "all negative curvature comes from the other cells."
)
OF_GAUSS_NEWTON = {
    "convex": "its positive semidefinite part, where the loss is convex",
    "linear": "the loss is linear in what it receives of the output",
    "unknown": "the loss is not known to be convex in what it receives: it may curve down",
}


@dataclass(frozen=True)
class _Map:
    """The norms of one matrix, with what a chart says of them."""

    title: str
    axis: str
    meaning: str
    norms: Matrix
    errors: Matrix | None


def view(result: Blocks) -> View:
    """Lay out a result of `blocks`."""
    maps, couplings, done = _maps(result), _couplings(result), _done(result)
    scale = _scale(maps)
    return View(
        question="Which layers curve, and how do they couple?",
        subject=subject(result.problem),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(
            *((_heat(result, one, scale) for one in maps) if len(result.names) > 1 and done else ()),
            *((_layers(result),) if done else ()),
            *((couplings,) if couplings else ()),
        ),
    )


def _maps(result: Blocks) -> list[_Map]:
    """One for the Hessian, and two for its parts where there are some."""
    found = [_Map("Hessian", "|H_lm|", OF_HESSIAN, result.frobenius, result.frobenius_stderr)]
    if result.gauss_newton is not None and result.residual is not None:
        part, error = result.gauss_newton, result.gauss_newton_stderr
        found.append(_Map("Gauss-Newton part", "|G_lm|", OF_PART, part, error))
        found.append(_Map("Residual", "|H_lm - G_lm|", OF_REST, result.residual, result.residual_stderr))
    return found


def _done(result: Blocks) -> int:
    """How many layers were measured: all, but for an interrupt."""
    return sum(trace is not None for trace in result.trace)


def _headline(result: Blocks) -> tuple[str, str]:
    if _done(result) < len(result.names):
        layers = counted(len(result.names), "layer")
        return f"{number(_done(result))} of {layers}", "measured before the interrupt: no share of the whole is known"
    share = _share(result.between_layers, result.between_layers_stderr)
    if result.norm == 0:
        return share, "the Hessian is zero: no part of it lies between layers"
    return share, "of the Hessian's squared norm lies between layers, where layer-wise methods do not look"


def _share(share: Number, error: Number) -> str:
    return percent(share) if not error else f"{percent(share)} (± {percent(error)})"


def _norm(norm: Number, error: Number, ends: Interval | None) -> str:
    """A norm with its interval; older documents have the standard error only."""
    return with_interval(norm, ends) if ends else with_error(norm, error)


def _method(result: Blocks) -> Fact:
    exact = result.method == "exact"
    computed = "the Hessian was" if result.gauss_newton_norm is None else "both matrices were"
    if not exact:
        meaning = "random vectors; ± is one standard error over them"
    elif _done(result) < len(result.names):
        meaning = "of the layers that are done"
    elif result.hvps >= result.parameters:
        meaning = f"{computed} computed whole"
    else:
        meaning = "from pairs of samples, without forming a block"
    value = "exact" if exact else f"{number(result.probes)} per layer"
    return Fact("method", value if _done(result) else MISSING, meaning)


def _facts(result: Blocks) -> tuple[Fact, ...]:
    stopped = _done(result) < len(result.names)
    pair, rest = result.indefinite_pair, result.residual_diagonal
    estimated = "" if result.method == "exact" else ", estimated"
    facts = [
        _method(result),
        Fact("norm of the Hessian", _norm(result.norm, result.norm_stderr, result.norm_interval), "Frobenius"),
        Fact(
            "of Gauss-Newton",
            _norm(result.gauss_newton_norm, result.gauss_newton_norm_stderr, result.gauss_newton_norm_interval),
            OF_GAUSS_NEWTON[result.loss_in_output or "convex"],
        ),
        Fact(
            "of the residual",
            _norm(result.residual_norm, result.residual_norm_stderr, result.residual_norm_interval),
            "what Gauss-Newton leaves out",
        ),
        Fact(
            "residual share",
            _share(result.residual_share, result.residual_share_stderr),
            "of the sum of both squares",
        ),
        Fact(
            "residual within layers",
            percent(rest) if stopped or not result.residual_diagonal_vanishes else "none",
            "of the Hessian's norm; none where the output is piecewise linear in each layer",
        ),
        Fact(
            "negative curvature",
            f"certain: {' and '.join(pair.layers)}" if pair else MISSING,
            "these layers couple more strongly than a semidefinite matrix allows",
        ),
        Fact(
            "eigenvalues within",
            interval(result.eigenvalue_bounds),
            f"from the block norms alone{estimated}; hessdiag bounds and eigs are tighter",
        ),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _scale(maps: Sequence[_Map]) -> tuple[float, float] | None:
    """Lower and upper end of the colours, the same for all matrices.

    The lower one is a decade below the faintest block of the Hessian: blocks of the residual may be mere rounding.
    """
    shown = [
        [value for row in one.norms for value in row if drawable(value, log=True) and value > FAINTEST] for one in maps
    ]
    if not shown[0]:
        return None
    top = max(value for values in shown for value in values)
    return max(min(shown[0]) / 10, DECADES * top), top


def _heat(result: Blocks, one: _Map, scale: tuple[float, float] | None) -> Heat:
    names = shortened(result.names)
    return Heat(
        title=one.title,
        caption=(
            f"{one.meaning} Each cell is the Frobenius norm of one pair of layers; "
            "all maps share one logarithmic scale of colours."
        ),
        alt=f"Heat map of the {one.title.lower()}'s norms for {counted(len(names), 'layer')}, on a logarithmic scale.",
        table=_matrix(one, names),
        text="none",
        labels=names,
        matrix=one.norms,
        axis=one.axis,
        scale=scale,
    )


def _matrix(one: _Map, names: Sequence[Name]) -> Table:
    def cell(i: int, j: int) -> str:
        return with_error(one.norms[i][j], one.errors[i][j] if one.errors else None, 3)

    places = range(len(names))
    if len(names) <= FULL_MATRIX:
        rows = tuple((names[i], *(cell(i, j) for j in places)) for i in places)
        return Table(f"{one.title}: norm per pair of layers", ("layer", *names), rows)
    pairs = sorted((-(one.norms[i][j] or 0.0), i, j) for i in places for j in places if i <= j)[:LARGEST]
    return Table(
        f"{one.title}: the {len(pairs)} largest of {len(names) * (len(names) + 1) // 2} pairs of layers",
        ("layer", "layer", "norm"),
        tuple((names[i], names[j], cell(i, j)) for _, i, j in pairs),
        text_columns=2,
    )


def _of_whole(result: Blocks, norms: Sequence[Number]) -> str:
    """What blocks of these norms hold of the squared norm of the whole."""
    if not result.norm:
        return MISSING
    parts = [value / result.norm for value in norms if value is not None]
    return percent(sum(part * part for part in parts))


def _layers(result: Blocks) -> Table:
    def at(numbers: Numbers | None, index: int) -> Number:
        return numbers[index] if numbers else None

    split, own_errors = result.residual is not None, result.frobenius_stderr
    rows = []
    for index, name in enumerate(shortened(result.names)):
        block = result.frobenius[index]
        rows.append(
            (
                name,
                result.kinds[index],
                number(result.sizes[index]),
                with_error(block[index], own_errors[index][index] if own_errors else None, 3),
                *((number(result.residual[index][index]),) if result.residual is not None else ()),
                _of_whole(result, block),
                with_error(result.trace[index], at(result.trace_stderr, index), 3),
                with_error(at(result.diagonal_mass, index), at(result.diagonal_mass_stderr, index), 3),
            )
        )
    columns = (
        "layer", "kind", "parameters", "own block", *(("residual in it",) if split else ()), "row's share", "trace",
        "Σ|H_ii|",
    )  # fmt: skip
    title = "Per layer: its own block, its share of the squared norm with all layers, and its diagonal"
    return Table(title, columns, tuple(rows), 2, ("kind", "residual in it", "parameters"))


def _couplings(result: Blocks) -> Table | None:
    """The strongest pairs of different layers."""
    names, (hessian, *split) = shortened(result.names), _maps(result)
    places = range(len(names))
    known = ((hessian.norms[i][j], i, j) for i in places for j in places if i < j)
    pairs = sorted((-norm, i, j) for norm, i, j in known if norm is not None)[:COUPLINGS]
    if not pairs:
        return None
    errors = hessian.errors
    rows = tuple(
        (
            names[i].and_other(names[j]),
            with_error(-norm, errors[i][j] if errors else None, 3),
            *(number(one.norms[i][j]) for one in split),
            _of_whole(result, (-norm, hessian.norms[j][i])),
        )
        for norm, i, j in pairs
    )
    columns = ("layers", "Hessian", *(("Gauss-Newton", "residual") if split else ()), "share of square")
    return Table("Strongest couplings between layers", columns, rows)
