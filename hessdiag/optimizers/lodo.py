"""LODO: gradient descent with a matrix in the place of the learning rate, and that matrix is learned on the way.

I. Liao, R. R. Dangovski, J. N. Foerster, M. Soljačić, *Learning to Optimize Quasi-Newton Methods* (2023), Algorithm 1.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hessdiag.curvature.local import gradient
from hessdiag.errors import SpecError
from hessdiag.machine.sizes import gib
from hessdiag.optimizers.closure import Closure, ClosureOptimizer
from hessdiag.optimizers.learned_matrix import VARIANTS, LearnedMatrix, Shape, Variant, numbers, shape_of
from hessdiag.optimizers.settings import Range, at_least_one, check_name, check_ranges, not_negative, positive, share
from hessdiag.optimizers.step import Step

Meta = Literal["adam", "sgd"]
MOST = 100_000  # parameters: beyond, a step takes a second, and the matrix gigabytes
RANGES: Mapping[str, Range] = {
    "alpha": positive(0.03),
    "meta_lr": not_negative(3e-4),
    "beta": share(0.9),
    "depth": at_least_one(16),
    "block": at_least_one(4),
    "eps": not_negative(1e-7),
    "max_step": (lambda value: value > 0, "positive, or None", 0.01),
}
FIRST, SECOND = 0.9, 0.999  # rates of the meta-optimizer's averages


class LODO(ClosureOptimizer):
    """Steps -G m: m averages gradients, and G is learned by descent on what the loss became by the last step.

    G is alpha times a symmetric matrix that begins as the identity: a product of sparse layers with 128 numbers for
    each parameter. The gradient that a step is made of also says how the last step should have been, -g'G m of that
    step's m, which is differentiated in the numbers of G (a hypergradient). Each step takes one gradient.

    It is made to track a noisy minimum, and no good way off a flat plateau: there the hypergradient, about
    alpha |g|^2, is below `eps`, and with a smaller eps it needs `max_step`.

    Args:
        params: Tensors that are moved, in one group; float32 or wider.
        alpha: The learning rate that G starts with: G = alpha I.
        meta_lr: Learning rate of the numbers of G.
        beta: Rate at which m forgets, without correction of its start: m <- beta m + (1 - beta) g. 0 for no momentum.
        depth: Layers of G.
        block: Rows of each block of a layer.
        eps: Of the meta-optimizer Adam, added to the root of its second moment. In the paper that is Keras' 1e-7.
        max_step: Length of a step over that of all parameters, above which the step is cut; `None` for never, and
            parameters that are all zero have no length. What G learns does not depend on it.
        variant: "lodo"; "diagonal", a step size for each parameter; "global", one for all; "residual", 64 weighted
            permutations, each added to the identity, and a diagonal in the middle. Of these only "lodo" is positive
            semidefinite by construction, whatever it learns.
        meta: "adam" or "sgd", what moves the numbers of G.
        seed: Of the random permutations and blocks; `None` for the one that torch's random numbers started from, so
            that runs under different `torch.manual_seed` differ. None of those numbers is drawn.
        at_most: Parameters for which G may be made.

    Raises:
        SpecError: if a setting is out of range, or there are too many parameters.

    >>> from hessdiag.optimizers import LODO
    >>> w = torch.nn.Parameter(torch.tensor([3.0, 1.0], dtype=torch.float64))
    >>> optimizer = LODO([w], alpha=0.1, meta_lr=1e-2, beta=0.5, seed=0)
    >>> optimizer.matrix().diagonal()
    tensor([0.1000, 0.1000], dtype=torch.float64)
    >>> losses = [optimizer.step(lambda: (w[0] ** 2 + 10 * w[1] ** 2) / 2) for _ in range(50)]
    >>> losses[0], losses[-1] < 1e-3, optimizer.last.gradients
    (9.5, True, 1)
    """

    def __init__(
        self,
        params: Iterable[Any],
        alpha: float = 0.03,
        meta_lr: float = 3e-4,
        beta: float = 0.9,
        depth: int = 16,
        block: int = 4,
        eps: float = 1e-7,
        max_step: float | None = None,
        variant: Variant = "lodo",
        meta: Meta = "adam",
        seed: int | None = None,
        at_most: int = MOST,
    ) -> None:
        seed = torch.initial_seed() if seed is None else seed
        settings: dict[str, Any] = {
            "alpha": alpha,
            "meta_lr": meta_lr,
            "beta": beta,
            "depth": depth,
            "block": block,
            "eps": eps,
        }
        settings |= {"max_step": max_step, "variant": variant, "meta": meta, "seed": seed}
        check_name("variant", variant, VARIANTS)
        check_name("meta", meta, get_args(Meta))
        check_ranges(settings, RANGES)
        super().__init__(params, settings)
        if not self.parameters:
            raise SpecError("LODO was given no parameter that wants a gradient.")
        self._check_size(at_most)
        self._made: tuple[Any, Shape] | None = None
        point = self.point()
        phi = self._shape().initial(torch.Generator().manual_seed(seed), point)
        self.state[self.anchor] = {"step": 0, "phi": phi, "momentum": torch.zeros_like(point)}
        if meta == "adam":
            self.state[self.anchor] |= {"first": torch.zeros_like(phi), "second": torch.zeros_like(phi)}

    @property
    def _n(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters)

    def _check_size(self, at_most: int) -> None:
        group, n, dtype = self.param_groups[0], self._n, self.anchor.dtype
        if not dtype.is_floating_point or dtype.itemsize < 4:
            name = str(dtype).removeprefix("torch.")
            raise SpecError(f"LODO learns in steps that {name} rounds away.", "parameters in float32")
        if n > at_most and group["variant"] in ("lodo", "residual"):
            size = (3 if group["meta"] == "adam" else 1) * numbers(group["variant"], n, group["depth"], group["block"])
            raise SpecError(
                f"LODO's matrix for {n:,} parameters takes {gib(size * dtype.itemsize, 1)}, and every step goes through"
                f" all of it: up to {at_most:,} are taken.",
                f"at_most={n}, or variant='diagonal'",
            )

    def _shape(self) -> Shape:
        """How G is made of its numbers; again where settings were loaded."""
        group = self.param_groups[0]
        key = (group["variant"], self._n, group["depth"], group["block"], group["seed"])
        if self._made is None or self._made[0] != key:
            self._made = (key, shape_of(*key, device=self.anchor.device))
        return self._made[1]

    def matrix(self) -> LearnedMatrix:
        """G as it is now, (n, n): a copy, which stays as it is when the optimizer goes on.

        It multiplies vectors of all parameters, flattened and in order: `G @ v` for v (n,), `G @ V` for V (n, k).

        >>> from hessdiag.optimizers import LODO
        >>> G = LODO([torch.nn.Parameter(torch.zeros(5, 2))], alpha=0.5).matrix()
        >>> G @ torch.ones(10), G.shape
        (tensor([0.5000, 0.5000, ...]), (10, 10))
        """
        phi = self.state[self.anchor]["phi"].clone()
        return LearnedMatrix(self._shape(), phi, self.param_groups[0]["alpha"], self._n)

    def step(self, closure: Closure) -> float:  # type: ignore[override]
        """Evaluate, learn, and move.

        Args:
            closure: Returns the loss with its graph; it does not go backward.

        Returns:
            The loss before the step. Where that or its gradient is not finite, nothing moves.

        Raises:
            ComputeError: if the loss cannot be differentiated.
        """
        value, _ = self.evaluate(closure)
        slope = gradient(value, self.parameters)
        loss, finite = float(value.detach()), bool(slope.isfinite().all())
        length = self._move(slope) if finite else 0.0
        self.last = Step(loss=loss, accepted=finite, gradients=1, products=0, evaluations=self.counted(), length=length)
        return loss

    @torch.no_grad()
    def _move(self, slope: Tensor) -> float:
        """Learn from a gradient, and step; the length of the step."""
        group, state, shape = self.param_groups[0], self.state[self.anchor], self._shape()
        momentum = state["momentum"]
        if len(momentum) != len(slope):
            raise SpecError(f"LODO was made for {len(momentum):,} parameters, and now there are {len(slope):,}.")
        hypergradient = -group["alpha"] * shape.slope(state["phi"], slope, momentum)
        _learn(state, hypergradient, group)
        momentum.mul_(group["beta"]).add_(slope, alpha=1 - group["beta"])
        step = group["alpha"] * shape.product(state["phi"], momentum[:, None])[:, 0]
        point = self.point()
        length = float(step.norm())
        if group["max_step"] is not None and (most := group["max_step"] * float(point.norm())) and length > most:
            step, length = step * (most / length), most
        self.place(point - step)
        return length


def _learn(state: dict[str, Any], hypergradient: Tensor, group: dict[str, Any]) -> None:
    """One step of the meta-optimizer, in place. Adam as Keras has it: eps is added before the bias is corrected."""
    state["step"] += 1
    if group["meta"] == "sgd":
        state["phi"].sub_(hypergradient, alpha=group["meta_lr"])
        return
    first, second, count = state["first"], state["second"], state["step"]
    first.lerp_(hypergradient, 1 - FIRST)
    second.mul_(SECOND).addcmul_(hypergradient, hypergradient, value=1 - SECOND)
    rate = group["meta_lr"] * math.sqrt(1 - SECOND**count) / (1 - FIRST**count)
    state["phi"].addcdiv_(first, second.sqrt().add_(group["eps"]), value=-rate)
