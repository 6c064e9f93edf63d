"""From the numbers of all networks to slopes: of the whole, and of each kind of layer."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hessdiag.questions.common.runs.pieces import Arrays
from hessdiag.questions.transfer.layers import Kind, Part, named
from hessdiag.questions.transfer.network import EXPLODED
from hessdiag.questions.transfer.result import LayerPowers, SizeMeans, Slopes
from hessdiag.questions.transfer.slopes import geometric, power, slope

Floats = NDArray[np.float64]
Measured = Mapping[int, Sequence[Arrays]]
Lines = Mapping[int, Mapping[Kind, Sequence[Part]]]
FIRST, LAST = 0, 1  # rows of updates


def _column(measured: Measured, name: str, *place: int) -> Floats:
    """One number of all networks, (seeds, sizes)."""
    found: Floats = np.array([[float(one[name][place]) for one in many] for many in measured.values()]).T
    return found


def _whole(measured: Measured, name: str, row: int, of_lines: Lines) -> Floats:
    """Root mean square over inner layers, of all networks, (seeds, sizes); lines without a number are left out."""
    inner = {size: [kind.role not in ("output", "vector") for kind in lines] for size, lines in of_lines.items()}
    rows = [[one[name][row][inner[size]] for one in many] for size, many in measured.items()]
    found: Floats = np.array([[_rms(line) for line in many] for many in rows]).T
    return found


def _rms(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")


def slopes_of(measured: Measured, of_lines: Lines, base: float, tolerance: float, alike: int) -> Slopes:
    """Of the network as a whole.

    Args:
        measured: Arrays by size, one per seed.
        of_lines: What their columns are.
        base: Learning rate that the weighted curvature is divided by.
        tolerance: Slopes up to this are none.
        alike: How many slopes are judged together.
    """
    sizes = list(measured)
    return Slopes(
        lambda_max=slope(sizes, _column(measured, "lambda_max", 0), tolerance, alike),
        lambda_max_weighted=slope(sizes, _column(measured, "weighted", 0) / base, tolerance, alike),
        update=slope(sizes, _whole(measured, "updates", LAST, of_lines), tolerance, alike),
        activation=slope(sizes, _whole(measured, "changes", -1, of_lines), tolerance, alike),
    )


def sizes_of(measured: Measured, of_lines: Lines, parameters: Mapping[int, int], base: float) -> tuple[SizeMeans, ...]:
    """Means over the networks of each size."""
    found = []
    for size, many in measured.items():
        one = {size: many}
        weighted = _column(one, "weighted", 0)[:, 0] / base
        threshold = geometric(_column(one, "weighted", 2)[:, 0])
        seen = geometric(weighted)
        losses = np.array([array["loss"] for array in many])
        found.append(
            SizeMeans(
                size=size,
                parameters=parameters[size],
                networks=len(many),
                diverged=sum(map(_diverged, losses)),
                lambda_max=geometric(_column(one, "lambda_max", 0)[:, 0]),
                lambda_max_weighted=seen,
                largest_lr=threshold / seen if threshold and seen else None,
                update=geometric(_whole(one, "updates", LAST, of_lines)[:, 0]),
                activation=geometric(_whole(one, "changes", -1, of_lines)[:, 0]),
                loss=tuple(None if np.isnan(value) else float(value) for value in losses.mean(axis=0)),
            )
        )
    return tuple(found)


def _diverged(losses: Floats) -> bool:
    return not bool(np.all(np.isfinite(losses))) or bool(np.max(losses) > EXPLODED * losses[0] > 0)


def lines_of(measured: Measured, of_lines: Lines, tolerance: float) -> tuple[LayerPowers, ...]:
    """One line for each kind of layer that all sizes have."""
    sizes = list(measured)
    orders = {size: list(of_lines[size]) for size in sizes}
    shared = [kind for kind in orders[sizes[-1]] if all(kind in orders[size] for size in sizes)]
    alike = 1 + len(shared)
    found = []
    for kind in shared:

        def column(name: str, row: int | None = None, kind: Kind = kind) -> Floats:
            places = {size: (() if row is None else (row,)) + (orders[size].index(kind),) for size in sizes}
            found: Floats = np.array([[float(one[name][places[size]]) for one in measured[size]] for size in sizes]).T
            return found

        members = of_lines[sizes[-1]][kind]
        found.append(
            LayerPowers(
                name=named(kind, members),
                role=kind.role,
                tensors=len(members),
                rate=power(sizes, column("rates")),
                initial_weight=power(sizes, column("weights")),
                initial_activation=power(sizes, column("initial")),
                first_update=slope(sizes, column("updates", FIRST), tolerance, alike),
                update=slope(sizes, column("updates", LAST), tolerance, alike),
                activation=slope(sizes, column("changes", -1), tolerance, alike),
            )
        )
    return tuple(found)
