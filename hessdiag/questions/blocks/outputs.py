"""What a model's outputs and weights say of its blocks, apart from the loss: where they bend, and how weights scale."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.differences import NoDoubleBackwardError, refuse_cut
from hessdiag.curvature.pullback import pullback
from hessdiag.curvature.received import evaluated, output_of
from hessdiag.curvature.sharded.vectors import spread_over
from hessdiag.errors import HessdiagError
from hessdiag.fields import Numbers
from hessdiag.linalg.spread import Spread
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.machine.shortage import ran_out
from hessdiag.nets.reinitialize import WeightLayer
from hessdiag.problem.problem import Problem
from hessdiag.shards.placeholder import Placeholder
from hessdiag.shards.problem import ShardedProblem

SEED = 0


def outputs_bend(problem: Problem) -> bool | None:
    """Whether the outputs bend along the parameters of any one layer: the question behind R's layer-diagonal blocks.

    For random signs c, the second derivative of c'z in a layer's own parameters is exactly zero where z is piecewise
    linear in them: none of its terms is ever computed. Neither a difference of two matrices nor the loss is in it, so
    that rounding of either, however large beside a layer that hardly curves, is not taken for curvature.

    Returns:
        `None` where autograd cannot say.

    >>> from torch import nn
    >>> x, y = torch.randn(6, 3), torch.randn(6, 2)
    >>> relu, tanh = (nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 2)) for act in (nn.ReLU(), nn.Tanh()))
    >>> [outputs_bend(Problem(model, data=[(x, y)], loss="mse")) for model in (relu, tanh)]
    [False, True]
    """
    generator = torch.Generator().manual_seed(SEED)
    try:
        if isinstance(problem, ShardedProblem):
            return any(_pieces_bend(problem, batch, generator) for batch in problem.data)
        return any(_bends(problem, batch, generator) for batch in problem.data)
    except (HessdiagError, NoDoubleBackwardError, RuntimeError) as error:
        if ran_out(error):
            raise
        return None


def _bends(problem: Problem, batch: object, generator: torch.Generator) -> bool:
    with evaluated(problem):
        z = output_of(problem, batch).tensors
    slopes = pullback(z, problem.parameters, [_signs(tensor, generator) for tensor in z], create_graph=True)
    refuse_cut(slope for slope in slopes if slope is not None)
    by_parameter = dict(zip(problem.parameters, slopes, strict=True))
    layers = map(problem.parameters_of, problem.executed_layers)
    return any(_bends_along(by_parameter, own, generator) for own in layers)


def _pieces_bend(problem: ShardedProblem, batch: object, generator: torch.Generator) -> bool:
    """The same from each process's samples and pieces: all ask about every layer, and each hears of the others'."""
    own, _ = problem.own_share(batch)

    def outputs() -> tuple[Tensor, ...]:
        with evaluated(problem):
            return output_of(problem, own).tensors

    z = problem.enlarging(outputs)
    slopes = pullback(z, problem.pieces, [_signs(tensor, generator) for tensor in z], create_graph=True)
    refuse_cut(slope for slope in slopes if slope is not None)
    by_parameter = dict(zip(problem.pieces, slopes, strict=True))
    bent = sum(_bends_along(by_parameter, problem.pieces_of(layer), generator) for layer in problem.executed_layers)
    return bool(problem.layout.summed(torch.tensor(float(bent))))


def _bends_along(slopes: Mapping[Any, Tensor | None], own: Sequence[Tensor], generator: torch.Generator) -> bool:
    found = [slope for slope in map(slopes.__getitem__, own) if slope is not None and slope.requires_grad]
    if not found:
        return False
    seconds = pullback(found, own, [_signs(slope, generator) for slope in found])
    return any(second is not None and bool(second.any()) for second in seconds)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8) * 2 - 1
    return signs.to(like.device, like.dtype)


def weight_gains(problem: Problem) -> Numbers:
    """By how much each layer's matrix makes independent entries grow; `None` for a layer that is no such product.

    The root mean square of the weights times the root of the number of inputs: 0.58 of what torch draws by itself, 1.41
    of He's initialization. In order of execution.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(9, 4), nn.LayerNorm(4))
    >>> _ = nn.init.constant_(model[0].weight, 2.0)
    >>> weight_gains(Problem(model, data=[(torch.ones(2, 9), torch.ones(2, 4))], loss="mse"))
    (6.0, None)
    """
    modules = [problem.model.get_submodule(layer.path) for layer in problem.executed_layers]
    weights = [module.weight if isinstance(module, WeightLayer) else None for module in modules]
    spread = spread_over(problem)
    return tuple(None if weight is None else _norm(weight, spread) / math.sqrt(len(weight)) for weight in weights)


def _norm(weight: Tensor, spread: Spread) -> float:
    if isinstance(weight, Placeholder):
        return safe_norm(weight.piece.detach(), spread)
    wide = torch.promote_types(weight.dtype, torch.float32)
    return float(torch.linalg.vector_norm(weight.detach(), dtype=wide))
