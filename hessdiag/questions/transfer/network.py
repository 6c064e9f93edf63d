"""One network: its curvature, and what a few steps of the optimizer change in it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.curvature.differences import loss_and_gradient
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.metric import Scaled
from hessdiag.linalg.eigensolver import extreme_eigenpairs
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import tridiagonalize
from hessdiag.optimizers.preconditioning import Preconditioning, of_optimizer
from hessdiag.optimizers.recipe import Recipe
from hessdiag.optimizers.update import forget_gradients, give_gradients, take_step
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.runs.pieces import Arrays
from hessdiag.questions.transfer import rates
from hessdiag.questions.transfer.layers import Kind, Part

TOLERANCE = 0.02  # relative residual of an eigenvalue, whose own error is smaller
MOST_PRODUCTS = 60
LANCZOS = 16  # steps for the spectral norm of an update, whose rank is small
EXPLODED = 10.0  # times the loss at the start


@dataclass(frozen=True)
class Square:
    """A'A of a matrix, for its largest singular value."""

    matrix: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Of A'A."""
        return self.matrix.shape[1], self.matrix.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """As of A."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """As of A."""
        return self.matrix.device

    def __matmul__(self, vectors: Tensor) -> Tensor:
        return self.matrix.T @ (self.matrix @ vectors)


def largest(matrix: SymmetricOperator, seed: int) -> tuple[float, float, int]:
    """The largest eigenvalue, the residual of its vector, and the products that it took."""
    found = extreme_eigenpairs(
        matrix, lowest=0, highest=1, tol=TOLERANCE, max_products=MOST_PRODUCTS, block=1, seed=seed
    )
    return float(found.values[-1]), float(found.residuals[-1]), int(found.products)


def size_of(change: Tensor, part: Part) -> float:
    """How large a change of a tensor is, so that it moves what the layer puts out by as much at any width.

    Of a matrix the spectral norm times sqrt(inputs / outputs) (Yang, Simon and Bernstein, arXiv 2310.17813): how far
    outputs move, entry by entry, for inputs of size one; of a table the same of its row that moves most; of a vector
    the root mean square.

    >>> round(size_of(torch.ones(4, 2), Part("weight", (4, 2), False, 0)), 6)  # sqrt(8) sqrt(2 / 4)
    2.0
    """
    if part.embedding:
        return float(change.square().mean(1).amax().sqrt())
    if change.ndim < 2:
        return float(change.square().mean().sqrt())
    matrix = change.flatten(1)
    ratio = math.sqrt(matrix.shape[1] / matrix.shape[0])
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    if not bool(torch.isfinite(tall).all()):
        return math.nan
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(tall.shape[1], generator=generator, dtype=torch.float64).to(tall)
    found = tridiagonalize(Square(tall), start, min(LANCZOS, tall.shape[1]))
    top = float(torch.linalg.eigvalsh(found.matrix())[-1]) if int(found.steps[0]) else 0.0
    return ratio * math.sqrt(max(top, 0.0))


def rms(values: Sequence[float]) -> float:
    """Root of the mean square."""
    return math.sqrt(sum(value * value for value in values) / len(values)) if values else math.nan


@dataclass(frozen=True)
class Setting:
    """What is measured of each network.

    Attributes:
        steps: Of the optimizer.
        base: Tensors of the smallest network, where muP's table multiplies the learning rates.
        parts: Tensors of networks of this size, in the order of the parameter vector.
        lines: The same by line.
        seed: Of the Lanczos start.
    """

    steps: int
    base: Sequence[Part] | None
    parts: Sequence[Part]
    lines: Mapping[Kind, Sequence[Part]]
    seed: int


def measured(problem: Problem, recipe: Recipe, setting: Setting) -> Arrays:
    """All numbers of one network, whose weights are moved.

    Args:
        problem: Of a copy of the model.
        recipe: How the optimizer is made.
        setting: What is measured.
    """
    optimizer = rates.made(problem, recipe, setting.base, setting.parts)
    own = rates.by_name(problem, optimizer)
    matrix = HessianOperator(problem, check=False)
    raw, residual, products = largest(matrix, setting.seed)
    weights = {name: parameter.detach().clone() for name, parameter in problem.named_parameters}
    made = of_optimizer(problem, optimizer)
    weighted, apart = math.nan, math.nan
    if made.plain:
        weighted, apart, more = seen(matrix, made, (raw, residual), setting.seed)
        products += more
    matrix.forget()
    walk = _walked(problem, optimizer, setting, weights)
    unit = walk.pull if rates.family(optimizer) == "sgd" and walk.pull > 0 else 1.0
    if not made.plain and walk.sound:
        made = of_optimizer(problem, optimizer)
        if made.diagonal is not None:
            weighted, apart, more = seen(HessianOperator(problem, check=False), made, None, setting.seed)
            products += more
    return {
        "lambda_max": np.array([raw, residual]),
        "weighted": np.array([weighted, apart, made.threshold or math.nan]),
        "products": np.array(products),
        "loss": np.array(walk.losses),
        "rates": np.array([rms([own[part.name] for part in members]) for members in setting.lines.values()]),
        "weights": np.array(
            [rms([float(weights[part.name].square().mean().sqrt()) for part in m]) for m in setting.lines.values()]
        ),
        "initial": walk.initial,
        "changes": walk.changes / unit,
        "updates": walk.updates / unit,
    }


def seen(
    matrix: SymmetricOperator, made: Preconditioning, raw: tuple[float, float] | None, seed: int
) -> tuple[float, float, int]:
    """Largest eigenvalue of (rates / P)^{1/2} H (rates / P)^{1/2}, its residual, and the products that it took.

    Args:
        matrix: H.
        made: Learning rates and P.
        raw: That of H itself and its residual, where they are known.
        seed: Of the start.
    """
    if raw is not None and not isinstance(made.rates, Tensor) and made.diagonal is None:
        return raw[0] * made.rates, raw[1] * made.rates, 0
    step = torch.as_tensor(made.rates, dtype=torch.float64)
    scale = (step if made.diagonal is None else step.to(made.diagonal) / made.diagonal).sqrt()
    scale = scale.to(matrix.device, matrix.dtype).expand(matrix.shape[0])
    return largest(Scaled(matrix, scale), seed)


@dataclass(frozen=True)
class Walk:
    """What steps of the optimizer changed.

    Attributes:
        losses: Before each step and after the last.
        initial: Sizes of outputs before the first step, line by line.
        changes: Of outputs after each step, (steps, lines).
        updates: Sizes of the change of weights after the first step and after the last, (2, lines).
        sound: Whether all of it is finite.
        pull: Norm of the loss's derivative by the outputs before the first step.
    """

    losses: list[float]
    initial: np.ndarray[Any, Any]
    changes: np.ndarray[Any, Any]
    updates: np.ndarray[Any, Any]
    sound: bool
    pull: float


def _walked(
    problem: Problem, optimizer: torch.optim.Optimizer, setting: Setting, weights: Mapping[str, Tensor]
) -> Walk:
    count = len(setting.lines)
    changes, updates = np.full((setting.steps, count), np.nan), np.full((2, count), np.nan)
    first = outputs(problem, setting)
    initial = np.array([_joined(members, first, None) for members in setting.lines.values()])
    losses: list[float] = []
    pulls: list[float] = []
    for step in range(setting.steps):
        with _felt(problem, setting, pulls) if not step else nullcontext():
            loss, gradient = loss_and_gradient(problem)
        losses.append(loss)
        if not math.isfinite(loss) or loss > EXPLODED * max(losses[0], 0.0) > 0:
            break
        _step(problem, optimizer, gradient)
        now = outputs(problem, setting)
        changes[step] = [_joined(members, now, first) for members in setting.lines.values()]
        if step in (0, setting.steps - 1):
            moved = _updates(problem, setting, weights)
            updates[1] = moved
            if not step:
                updates[0] = moved
    else:
        losses.append(float(loss_and_gradient(problem)[0]))
    sound = len(losses) == setting.steps + 1 and all(map(math.isfinite, losses))
    return Walk(
        losses + [math.nan] * (setting.steps + 1 - len(losses)), initial, changes, updates, sound, math.hypot(*pulls)
    )


@contextmanager
def _felt(problem: Problem, setting: Setting, pulls: list[float]) -> Iterator[None]:
    """Take down how strongly the loss pulls at the outputs, batch by batch.

    Gradient descent moves everything in proportion to it; it hangs on how near the first outputs happen to be to the
    targets, and says nothing of how the network is parametrized.
    """
    ends = [members[-1].module for kind, members in setting.lines.items() if kind.role == "output"]

    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            taken: Any = output
            taken.register_hook(lambda slope: pulls.append(float(slope.double().norm())))

    hooks = [module.register_forward_hook(hook) for name, module in problem.model.named_modules() if name in ends[-1:]]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def _updates(problem: Problem, setting: Setting, weights: Mapping[str, Tensor]) -> list[float]:
    now = dict(problem.named_parameters)
    return [
        rms([size_of(now[part.name].detach() - weights[part.name], part) for part in members])
        for members in setting.lines.values()
    ]


def _step(problem: Problem, optimizer: torch.optim.Optimizer, gradient: Tensor) -> None:
    forget_gradients(optimizer)
    give_gradients(problem, gradient)

    def again() -> Any:
        loss, slope = loss_and_gradient(problem)
        give_gradients(problem, slope)
        return torch.tensor(loss)

    take_step(optimizer, again)


def outputs(problem: Problem, setting: Setting) -> dict[str, Tensor]:
    """What layers with matrices put out for the first batch, by name."""
    wanted = {part.module for part in setting.parts if len(part.shape) > 1}
    found: dict[str, Tensor] = {}
    with _watched(problem, wanted, found), problem.evaluation(), torch.no_grad():
        problem.evaluate(problem.data[0])
    return found


@contextmanager
def _watched(problem: Problem, wanted: set[str], found: dict[str, Tensor]) -> Iterator[None]:
    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[name] = output.detach().clone()

        return hook

    hooks = [
        module.register_forward_hook(keep(name)) for name, module in problem.model.named_modules() if name in wanted
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _joined(members: Sequence[Part], now: Mapping[str, Tensor], first: Mapping[str, Tensor] | None) -> float:
    """Root mean square of the outputs of a line's layers, or of what they differ by from those before; NaN of none."""
    sizes = []
    for part in members:
        value = now.get(part.module)
        if value is not None and len(part.shape) > 1:
            change = value if first is None else value - first[part.module]
            sizes.append(float(change.double().square().mean().sqrt()))
    return rms(sizes)
