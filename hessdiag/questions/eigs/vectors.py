"""What eigenvectors say: where they lie in the network, and how to its gradient."""

import torch
from torch import Tensor

from hessdiag.linalg.eigenpairs import Eigenpairs
from hessdiag.linalg.spread import Alone, Spread, summed
from hessdiag.linalg.tridiagonal import inner, row_norms
from hessdiag.problem.problem import Problem
from hessdiag.questions.eigs.result import Eigenpair


def eigenpairs(
    pairs: Eigenpairs,
    direction: Tensor | None,
    places: Tensor | None,
    problem: Problem,
    spread: Spread | None = None,
) -> tuple[Eigenpair, ...]:
    """Each pair with how it lies to the gradient's direction, and in which layers.

    Args:
        pairs: Ascending.
        direction: Of the gradient, of the vectors' length; `None` where it vanishes.
        places: Of the vectors' entries among all parameters; `None` for all.
        problem: Whose layers are meant.
        spread: Of all vectors over processes, each with its pieces. Default: not at all.
    """
    weights = torch.stack([_layer_weights(vector, places, problem, spread) for vector in pairs.vectors.T])
    cosines = None if direction is None else [min(abs(inner(direction, v, spread)), 1.0) for v in pairs.vectors.T]
    return tuple(
        Eigenpair(
            eigenvalue=float(pairs.values[index]),
            residual=float(pairs.residuals[index]),
            converged=bool(pairs.converged[index]),
            bound=pairs.bound(index),
            gradient_overlap=None if cosines is None else float(cosines[index]),
            layer_weights=tuple(weights[index].tolist()),
        )
        for index in range(len(pairs.values))
    )


def _layer_weights(vector: Tensor, places: Tensor | None, problem: Problem, spread: Spread | None) -> Tensor:
    """Share of a vector's squared norm in each layer; its entries are all parameters, or those at some places."""
    layers = problem.layer_slices
    if places is None:
        all_here = spread or Alone(len(vector))
        own = [all_here.within(layer.start, layer.stop)[0] for layer in layers]
        squares = summed(torch.stack([row_norms(vector[here]).square() for here in own]), spread)
    else:
        owner = torch.searchsorted(torch.tensor([layer.stop for layer in layers]), places, right=True)
        squares = torch.zeros(len(layers), dtype=torch.float64).index_add_(0, owner, vector.double().square().cpu())
    return squares / squares.sum()


def columns(pairs: Eigenpairs, places: Tensor | None, parameters: int) -> Tensor:
    """Vectors of all parameters in the order of the result: lowest, then highest; where they overlap, some twice."""
    total = pairs.vectors.shape[1]
    columns = torch.cat([pairs.vectors[:, : pairs.lowest], pairs.vectors[:, total - pairs.highest :]], dim=1)
    if places is None or len(places) == parameters:
        return columns
    wide = columns.new_zeros(parameters, columns.shape[1])
    wide[places.to(wide.device)] = columns
    return wide
