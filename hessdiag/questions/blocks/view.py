"""The view of a `blocks` document: which layers curve, and how do they couple?"""

from collections.abc import Mapping, Sequence
from typing import Any

from hessdiag.report.names import Name, shortened
from hessdiag.report.numbers import MISSING, counted, drawable, interval, number, percent, with_error, with_interval
from hessdiag.report.subject import subject
from hessdiag.report.view import (
    Fact,
    Heat,
    Table,
    View,
    findings,
    side_tables,
    warnings,
)

FULL_MATRIX = 12  # layers up to which a matrix is printed whole; beyond, its largest entries
LARGEST = 20
COUPLINGS = 10  # pairs of layers in the table of the strongest
FAINTEST = 1e-250  # norm below which a colour scale has no place, near the end of what floats hold
DECADES = 1e-6  # what is fainter than this beside the largest block has the darkest colour

MATRICES = {
    "frobenius": (
        "Hessian",
        "|H_lm|",
        "A bright diagonal means that layers curve by themselves; whatever is bright elsewhere couples two layers, and "
        "a method that treats each layer alone takes it for zero.",
    ),
    "gauss_newton": (
        "Gauss-Newton part",
        "|G_lm|",
        "The curvature of the loss through the slopes of the output: what Gauss-Newton, Fisher and K-FAC start from.",
    ),
    "residual": (
        "Residual",
        "|H_lm - G_lm|",
        "The curvature of the output itself. For piecewise-linear networks its diagonal is zero; with a convex loss, "
        "all negative curvature comes from the other cells.",
    ),
}

OF_GAUSS_NEWTON = {
    "convex": "its positive semidefinite part, where the loss is convex",
    "linear": "the loss is linear in what it receives of the output",
    "unknown": "the loss is not known to be convex in what it receives: it may curve down",
}

Json = Mapping[str, Any]


def view(doc: Json) -> View:
    """Lay out a `blocks` document."""
    result = doc["result"]
    known = [name for name in MATRICES if result[name] is not None]
    scale = _scale(result, known)
    couplings = _couplings(result)
    return View(
        question="Which layers curve, and how do they couple?",
        subject=subject(doc["problem"]),
        warnings=warnings(doc),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(
            *((_heat(result, name, scale) for name in known) if len(result["names"]) > 1 and _done(result) else ()),
            *((_layers(result),) if _done(result) else ()),
            *((couplings,) if couplings else ()),
        ),
        verdict=findings(doc),
        notes=tuple(doc["problem"].get("notes", ())),
        extra=side_tables(doc),
    )


def _done(result: Json) -> int:
    """How many layers were measured: all, but for an interrupt."""
    return sum(trace is not None for trace in result["trace"])


def _headline(result: Json) -> tuple[str, str]:
    if _done(result) < len(result["names"]):
        layers = counted(len(result["names"]), "layer")
        return f"{number(_done(result))} of {layers}", "measured before the interrupt: no share of the whole is known"
    if result["norm"] == 0:
        return _share(result, "between_layers"), "the Hessian is zero: no part of it lies between layers"
    meaning = "of the Hessian's squared norm lies between layers, where layer-wise methods do not look"
    return _share(result, "between_layers"), meaning


def _share(result: Json, name: str) -> str:
    share, error = result[name], result[f"{name}_stderr"]
    return percent(share) if not error else f"{percent(share)} (± {percent(error)})"


def _norm(result: Json, name: str) -> str:
    """A norm with its interval; older documents have the standard error only."""
    bounds = result.get(f"{name}_interval")
    return with_interval(result[name], bounds) if bounds else with_error(result[name], result[f"{name}_stderr"])


def _facts(result: Json) -> tuple[Fact, ...]:
    exact = result["method"] == "exact"
    stopped = _done(result) < len(result["names"])
    whole = result["hvps"] >= result["parameters"]
    computed = "the Hessian was" if result["gauss_newton_norm"] is None else "both matrices were"
    if not exact:
        meaning = "random vectors; ± is one standard error over them"
    elif stopped:
        meaning = "of the layers that are done"
    else:
        meaning = f"{computed} computed whole" if whole else "from pairs of samples, without forming a block"
    pair = result["indefinite_pair"]
    estimated = "" if exact else ", estimated"
    facts = [
        Fact(
            "method",
            MISSING if not _done(result) else "exact" if exact else f"{number(result['probes'])} per layer",
            meaning,
        ),
        Fact("norm of the Hessian", _norm(result, "norm"), "Frobenius"),
        Fact(
            "of Gauss-Newton",
            _norm(result, "gauss_newton_norm"),
            OF_GAUSS_NEWTON[result.get("loss_in_output") or "convex"],
        ),
        Fact(
            "of the residual",
            _norm(result, "residual_norm"),
            "what Gauss-Newton leaves out",
        ),
        Fact(
            "residual share",
            _share(result, "residual_share"),
            "of the sum of both squares",
        ),
        Fact(
            "residual within layers",
            percent(result["residual_diagonal"]) if stopped or not result["residual_diagonal_vanishes"] else "none",
            "of the Hessian's norm; none where the output is piecewise linear in each layer",
        ),
        Fact(
            "negative curvature",
            f"certain: {' and '.join(pair['layers'])}" if pair else MISSING,
            "these layers couple more strongly than a semidefinite matrix allows",
        ),
        Fact(
            "eigenvalues within",
            interval(result["eigenvalue_bounds"]),
            f"from the block norms alone{estimated}; hessdiag bounds and eigs are tighter",
        ),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _scale(result: Json, known: Sequence[str]) -> tuple[float, float] | None:
    """Lower and upper end of the colours, the same for all matrices.

    The lower one is a decade below the faintest block of the Hessian: blocks of the residual may be mere rounding.
    """
    numbers = {
        name: [value for row in result[name] for value in row if drawable(value, log=True) and value > FAINTEST]
        for name in known
    }
    if not numbers["frobenius"]:
        return None
    top = max(value for values in numbers.values() for value in values)
    return max(min(numbers["frobenius"]) / 10, DECADES * top), top


def _heat(result: Json, name: str, scale: tuple[float, float] | None) -> Heat:
    title, axis, meaning = MATRICES[name]
    names, matrix = shortened(result["names"]), result[name]
    return Heat(
        title=title,
        caption=(
            f"{meaning} Each cell is the Frobenius norm of one pair of layers; all maps share one logarithmic scale of "
            "colours."
        ),
        alt=f"Heat map of the {title.lower()}'s norms for {counted(len(names), 'layer')}, on a logarithmic scale.",
        table=_matrix(title, names, matrix, result[f"{name}_stderr"]),
        text="none",
        labels=names,
        matrix=tuple(tuple(row) for row in matrix),
        axis=axis,
        scale=scale,
    )


def _matrix(
    title: str,
    names: Sequence[Name],
    matrix: Sequence[Sequence[float | None]],
    errors: Sequence[Sequence[float | None]] | None,
) -> Table:
    def cell(i: int, j: int) -> str:
        return with_error(matrix[i][j], errors[i][j] if errors else None, 3)

    places = range(len(names))
    if len(names) <= FULL_MATRIX:
        rows = tuple((names[i], *(cell(i, j) for j in places)) for i in places)
        return Table(f"{title}: norm per pair of layers", ("layer", *names), rows)
    pairs = sorted((-(matrix[i][j] or 0.0), i, j) for i in places for j in places if i <= j)[:LARGEST]
    return Table(
        f"{title}: the {len(pairs)} largest of {len(names) * (len(names) + 1) // 2} pairs of layers",
        ("layer", "layer", "norm"),
        tuple((names[i], names[j], cell(i, j)) for _, i, j in pairs),
        text_columns=2,
    )


def _of_whole(result: Json, norms: Sequence[float | None]) -> str:
    """What blocks of these norms hold of the squared norm of the whole."""
    if not result["norm"]:
        return MISSING
    parts = [value / result["norm"] for value in norms if value is not None]
    return percent(sum(part * part for part in parts))


def _layers(result: Json) -> Table:
    masses = result["diagonal_mass"]
    errors = {name: result[f"{name}_stderr"] for name in ("frobenius", "trace", "diagonal_mass")}
    split = result["residual"] is not None
    rows = []
    for index, name in enumerate(shortened(result["names"])):
        block, error = result["frobenius"][index], errors["frobenius"]
        rows.append(
            (
                name,
                result["kinds"][index],
                number(result["sizes"][index]),
                with_error(block[index], error[index][index] if error else None, 3),
                *((number(result["residual"][index][index]),) if split else ()),
                _of_whole(result, block),
                with_error(result["trace"][index], errors["trace"][index] if errors["trace"] else None, 3),
                with_error(
                    masses[index] if masses else None,
                    errors["diagonal_mass"][index] if errors["diagonal_mass"] else None,
                    3,
                ),
            )
        )
    columns = (
        "layer", "kind", "parameters", "own block", *(("residual in it",) if split else ()), "row's share", "trace",
        "Σ|H_ii|",
    )  # fmt: skip
    title = "Per layer: its own block, its share of the squared norm with all layers, and its diagonal"
    return Table(title, columns, tuple(rows), 2, ("kind", "residual in it", "parameters"))


def _couplings(result: Json) -> Table | None:
    """The strongest pairs of different layers."""
    names, norms = shortened(result["names"]), result["frobenius"]
    places = range(len(names))
    known = ((i, j) for i in places for j in places if i < j and norms[i][j] is not None)
    pairs = sorted((-norms[i][j], i, j) for i, j in known)[:COUPLINGS]
    if not pairs:
        return None
    errors, split = result["frobenius_stderr"], result["residual"] is not None
    rows = tuple(
        (
            names[i].and_other(names[j]),
            with_error(norms[i][j], errors[i][j] if errors else None, 3),
            *((number(result[name][i][j]) for name in ("gauss_newton", "residual")) if split else ()),
            _of_whole(result, (norms[i][j], norms[j][i])),
        )
        for _, i, j in pairs
    )
    columns = ("layers", "Hessian", *(("Gauss-Newton", "residual") if split else ()), "share of square")
    return Table("Strongest couplings between layers", columns, rows)
