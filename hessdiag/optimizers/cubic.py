"""Adaptive cubic regularization: steps of the quadratic model and a cubic term that stands for what it leaves out."""

from collections.abc import Iterable
from typing import Any

from hessdiag.curvature.local import LocalHessian
from hessdiag.linalg.quadratic.step import ModelStep
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.linalg.trust_region import cubic
from hessdiag.optimizers.model_step import ModelOptimizer
from hessdiag.optimizers.presets import Metric
from hessdiag.optimizers.replayed import Replayed


class AdaptiveCubic(ModelOptimizer):
    """Steps that minimize g's + s'Hs/2 + sigma ||s||_M^3 / 3, with sigma adapted.

    Kohler and Lucchi (2017), after Cartis, Gould and Toint (2011), by Lanczos. Gradient, products and both losses of a
    step are of one batch: the closure has to use the same one each time that a step calls it, and returns the loss with
    its graph. After a step that is not taken, sigma is what would have made the model right there, within a factor of
    ten; it grows with the gradient, too, for on a plateau all derivatives grow together on the way out.

    Args:
        params: One group of parameters.
        metric: In which lengths are measured, as for `EllipsoidalTrustRegion`, normalized to the mean 1.
        sigma: At the start. Default: with which the first step is a tenth of the length of the parameters at most.
        eta: Ratios of actual to predicted decrease: from the first on a step is taken, from the second on sigma falls.
        gamma: By which factor it falls, and by which it grows at least after a step that is not taken.
        tolerance: Of the solver, relative to the gradient.
        most: Products a step.
        beta: Decay of the metric's average.
        eps: The metric's floor, relative to the median of the averaged gradient's entries.

    Raises:
        SpecError: if there is no such metric, or a setting is out of range.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([2.0, 1.0]))
    >>> optimizer = AdaptiveCubic([w], sigma=0.1)
    >>> optimizer.step(lambda: (w * torch.tensor([1.0, 4.0]) * w).sum() / 2)
    4.0
    >>> optimizer.last.exit, optimizer.last.products, optimizer.last.damping
    ('interior', 2, 0.05)
    """

    def __init__(
        self,
        params: Iterable[Any],
        metric: Metric = "uniform",
        *,
        sigma: float | None = None,
        eta: tuple[float, float] = (1e-4, 0.75),
        gamma: tuple[float, float] = (2.0, 2.0),
        tolerance: float = 0.1,
        most: int = 50,
        beta: float = 0.8,
        eps: float = 3e-3,
    ) -> None:
        settings = {
            "metric": metric,
            "sigma": sigma,
            "eta": tuple(eta),
            "gamma": tuple(gamma),
            "tolerance": tolerance,
            "most": most,
            "beta": beta,
            "eps": eps,
            "relative": True,
        }
        super().__init__(params, settings)

    def propose(self, state: dict[str, Any], hessian: LocalHessian | Replayed) -> ModelStep:
        """The least of the cubic model."""
        group, gradient = self.param_groups[0], hessian.gradient
        slope = safe_norm(gradient)
        if "sigma" not in state:
            state["sigma"] = group["sigma"] or self._first(hessian, slope)
        elif state["accepted"] and state["slope"] > 0:
            state["sigma"] *= max(1.0, slope / state["slope"])
        state["slope"] = slope
        return cubic(
            hessian,
            gradient,
            state["sigma"],
            metric=state.get("metric"),
            tolerance=group["tolerance"],
            most=group["most"],
        )

    def _first(self, hessian: LocalHessian | Replayed, slope: float) -> float:
        """With which neither the gradient nor the curvature along it makes a step longer than a tenth of the point."""
        reach = 0.1 * self.size()
        bent = safe_norm(hessian @ (hessian.gradient / slope)) if slope else 0.0
        return (slope / reach + bent) / reach or 1.0

    def adapt(self, state: dict[str, Any], found: ModelStep, rho: float, actual: float) -> None:
        """Less of the cubic term where the model was right, and as much as was missing where it was not."""
        (low, high), (less, more) = self.param_groups[0]["eta"], self.param_groups[0]["gamma"]
        sigma, cube = state["sigma"], found.length**3
        if rho >= high:
            state["sigma"] = sigma / less
        elif rho < low:
            quadratic = found.decrease + sigma * cube / 3  # what the model foresaw without the cubic term
            felt = max(sigma, 2 * quadratic / cube)  # from which on the cubic term shortens the step
            state["sigma"] = min(max(3 * (quadratic - actual) / cube, felt, more * sigma), 10 * felt)

    def trust(self, state: dict[str, Any]) -> dict[str, Any]:
        """The weight of the cubic term."""
        return {"damping": state["sigma"]} if "sigma" in state else {}
