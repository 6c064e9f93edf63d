"""Steps of a model of the loss, tried and judged: what methods have in common whose metric follows the gradients."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from hessdiag.curvature.local import LocalHessian
from hessdiag.errors import SpecError
from hessdiag.linalg.quadratic.step import ModelStep, size_of
from hessdiag.optimizers.closure import NOISE, Closure, ClosureOptimizer
from hessdiag.optimizers.metric import metric_of, remembered, remembered_whole, whole_metric_of
from hessdiag.optimizers.presets import Metric
from hessdiag.optimizers.replayed import EndedError, Replayed
from hessdiag.optimizers.settings import Range, at_least_one, check_name, check_ranges, not_negative, positive, share
from hessdiag.optimizers.step import Step

METRICS = get_args(Metric)
WHOLE = 2000  # parameters up to which a whole matrix is a metric
EXACT = 64  # parameters up to which the Hessian's diagonal is computed, and not estimated
RANGES: Mapping[str, Range] = {
    "radius": positive(0.1),
    "max_radius": (lambda value: value > 0, "above 0", 10.0),
    "sigma": positive(1.0),
    "eta": (lambda eta: 0 < eta[0] <= eta[1] < 1, "two ratios, 0 < eta[0] <= eta[1] < 1", (1e-4, 0.75)),
    "gamma": (lambda gamma: gamma[0] >= 1 < gamma[1], "two factors, gamma[0] >= 1 and gamma[1] > 1", (1.5, 2.0)),
    "tolerance": positive(0.1),
    "theta": not_negative(0.5),
    "most": at_least_one(50),
    "beta": share(0.8),
    "tries": at_least_one(10),
    "eps": not_negative(3e-3),
}
LEAST_SCALE = 0.01  # root mean square that parameters are taken to have where theirs is less, or zero


class ModelOptimizer(ClosureOptimizer):
    """Gradient, products with the Hessian and both losses of a step are of one batch."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        check_name("metric", defaults["metric"], METRICS)
        check_ranges(defaults, RANGES)
        super().__init__(params, defaults)
        if defaults["metric"] == "full" and sum(parameter.numel() for parameter in self.parameters) > WHOLE:
            raise SpecError(
                f"metric='full' holds a matrix of all pairs of parameters, and is for {WHOLE:,} of them at most.",
                "metric='rmsprop', which holds its diagonal",
            )

    def propose(self, state: dict[str, Any], hessian: LocalHessian | Replayed) -> ModelStep:
        """The step that the model recommends."""
        raise NotImplementedError

    def adapt(self, state: dict[str, Any], found: ModelStep, rho: float, actual: float) -> None:
        """Trust the model more or less from here on.

        Args:
            state: What goes on from step to step.
            found: The step.
            rho: Actual over predicted decrease.
            actual: Decrease of the loss.
        """
        raise NotImplementedError

    def trust(self, state: dict[str, Any]) -> dict[str, Any]:
        """How much it does, as the report of a step says it."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Closure) -> float:  # type: ignore[override]
        """Try one step, and take it if the loss falls as the model says, nearly.

        Args:
            closure: Returns the loss of one batch with its graph, or the loss and the output.

        Returns:
            The loss before the step. `last` says the rest.

        Raises:
            ComputeError: if the loss has no graph any more, or its gradient or curvature is not finite where it is.
        """
        state = self._held()
        loss, _ = self.evaluate(closure)
        before = float(loss)
        if not math.isfinite(before):
            self.last = Step(
                loss=before,
                accepted=False,
                gradients=0,
                products=0,
                evaluations=self.counted(),
                length=0.0,
                **self.trust(state),
            )
            return before
        with torch.enable_grad():
            hessian = LocalHessian(loss, self.parameters)
        size_of(hessian.gradient)  # refuses what is not finite, before it spoils the metric
        self._learn(state, hessian)
        again = Replayed(hessian) if self.param_groups[0].get("tries", 1) > 1 else None
        found = self.propose(state, again or hessian)
        noise = NOISE * torch.finfo(loss.dtype).eps
        products = hessian.products
        if again:
            again.close()
        del hessian, loss  # the graph is not needed any more, and the next evaluation makes none
        rho = None
        if found.decrease > 0:
            start = self.point()

            def judge(step: ModelStep) -> tuple[float, float]:
                self.place(start + step.step)
                after = self.value(closure)
                self.place(start)
                return _ratio(before, after, step.decrease, noise), before - after

            with self.unless_interrupted(start):
                found, rho = self._tried(state, found, again, judge)
            state["accepted"] = rho >= self.param_groups[0]["eta"][0]
            if state["accepted"]:
                self.place(start + found.step)
        self.last = Step(
            loss=before,
            accepted=rho is not None and state["accepted"],
            gradients=1,
            products=products,
            evaluations=self.counted(),
            length=float(found.step.double().norm()),
            rho=rho,
            **self.trust(state),
            exit=found.exit,
        )
        return before

    def _tried(
        self,
        state: dict[str, Any],
        found: ModelStep,
        again: Replayed | None,
        judge: Callable[[ModelStep], tuple[float, float]],
    ) -> tuple[ModelStep, float]:
        """A step, or a shorter one that the loss falls with, or the longest that it falls with as the model says.

        Args:
            state: Is adapted to every step that was judged, but for a longer one that went too far.
            found: With which to begin.
            again: Gives the products of that step; `None` where no other step shall be tried.
            judge: Goes there, and returns actual over predicted decrease, and the actual one.

        Returns:
            The step, and its ratio.
        """
        low, high = self.param_groups[0]["eta"]
        rho, actual = judge(found)
        self.adapt(state, found, rho, actual)
        if again is None:
            return found, rho
        longer = rho >= low
        for _ in range(1, self.param_groups[0]["tries"]):
            if rho >= low and not (longer and rho >= high):
                break
            try:
                other = self.propose(state, again.rewind())
            except EndedError:  # it goes on beyond where the products led
                break
            if other.length == found.length:
                break
            ratio, actual = judge(other)
            if longer and ratio < high:
                break
            found, rho = other, ratio
            self.adapt(state, found, rho, actual)
        return found, rho

    def _held(self) -> dict[str, Any]:
        """What goes on from step to step, beside the parameters."""
        state: dict[str, Any] = self.state[self.anchor]
        if "accepted" not in state:
            state["step"], state["accepted"] = 0, True
        return state

    def size(self) -> float:
        """Of the parameters, Euclidean, or what is taken for it where they are next to nothing."""
        point = self.point()
        return max(float(point.double().norm()), LEAST_SCALE * math.sqrt(len(point)))

    def _learn(self, state: dict[str, Any], hessian: LocalHessian) -> None:
        """Adapt the metric to the gradient; after a step that was not taken, it stays as it is."""
        group, kind = self.param_groups[0], self.param_groups[0]["metric"]
        if kind == "uniform" or not state["accepted"]:
            return
        beta = None if kind == "adagrad" else group["beta"]
        if kind == "full":
            state["moments"] = remembered_whole(state.get("moments"), hessian.gradient, beta)
            state["metric"] = whole_metric_of(state["moments"], group["eps"], relative=group["relative"])
        else:
            sample = _diagonal(hessian, state["step"]) if kind == "diagonal" else hessian.gradient
            state["moments"] = remembered(state.get("moments"), sample, beta)
            state["metric"] = metric_of(state["moments"], group["eps"], relative=group["relative"])
        state["step"] += 1


def _diagonal(hessian: LocalHessian, step: int) -> Tensor:
    """The Hessian's diagonal, but for its signs: of few parameters exact, else estimated by a product (Hutchinson)."""
    gradient = hessian.gradient
    n = len(gradient)
    if n <= EXACT:
        exact: Tensor = torch.diagonal(hessian @ torch.eye(n, dtype=gradient.dtype, device=gradient.device))
        return exact
    generator = torch.Generator().manual_seed(step)
    signs = torch.randint(2, (n,), generator=generator).mul_(2).sub_(1).to(gradient)
    return hessian @ signs  # but for the signs, which a root of squares does not know


def _ratio(before: float, after: float, predicted: float, noise: float) -> float:
    """Actual over predicted decrease; where both drown in the rounding of the loss, 1."""
    if not math.isfinite(after):
        return -math.inf
    slack = noise * max(abs(before), abs(after))
    return float((before - after + slack) / (predicted + slack))
