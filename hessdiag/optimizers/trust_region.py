"""Trust regions whose shape follows the gradients, for minibatches: steps of the quadratic model as far as it holds."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Literal

from hessdiag.curvature.local import LocalHessian
from hessdiag.linalg.quadratic.step import ModelStep
from hessdiag.linalg.trust_region import gltr, steihaug
from hessdiag.optimizers.model_step import ModelOptimizer
from hessdiag.optimizers.presets import PRESETS, START, Metric, preset
from hessdiag.optimizers.replayed import Replayed
from hessdiag.optimizers.settings import check_name

SOLVERS = {"cg": steihaug, "gltr": gltr}


class EllipsoidalTrustRegion(ModelOptimizer):
    """Steps that minimize the quadratic model of the loss within an ellipsoid of adapted size.

    Adolphs, Kohler and Lucchi (2019), Algorithm 1, with products of the Hessian in the place of the Hessian. Gradient,
    products and both losses of a step are of one batch: the closure has to use the same one each time that a step calls
    it, and returns the loss with its graph.

    The preset "robust" is free of scales: multiplying the loss changes nothing, and neither do gradients of 1e-14. Its
    metric has the mean 1 and a floor relative to the gradient, where the paper's is absolute and turns the ellipsoid
    into a ball on flat plateaus. A step that does not pay is tried again shorter, and one that pays as foreseen longer,
    with the same products: kinks of deep networks end most steps early, and a forward pass is all that this costs.

    Args:
        params: One group of parameters.
        metric: The ellipsoid: "uniform" for a ball, "rmsprop" and "adagrad" for the roots of averaged or summed squares
            of gradients, "diagonal" for the absolute diagonal of the Hessian (exact up to 64 parameters, else a
            running estimate, with one product more a step), "full" for the root of the averaged matrix g g' (up to
            2,000 parameters).
        solver: "cg", which stops at the boundary (Steihaug-Toint), or "gltr", which finds the least of the model.
        preset: "robust", "paper" (Table 1 of the paper) or "classic" (textbook factors): what stands for settings that
            are not given.
        radius: At the start, in the metric. Robust: 0.015 of the length of the parameters.
        max_radius: At most. Robust: ten times the length of the parameters.
        eta: Ratios of actual to predicted decrease: from the first on a step is taken, from the second on the radius
            grows, and below the first it shrinks. After a step that ends inside, it grows in the paper's preset only.
        gamma: By which factor it grows, and by which it shrinks.
        tolerance: Of the solver, relative to the gradient.
        theta: That tolerance is at most the gradient's norm to this power; 0 leaves it as it is.
        most: Products a step.
        beta: Decay of the metric's average.
        eps: Floor of the metric, added to the averaged squares. Robust: the root of it, relative to the median of the
            averaged gradient's entries (those that are not zero).
        tries: Radii that a step may try, at most, with the products that it has made. Each takes a forward pass, and
            no backpropagation: shorter ones until the loss falls, longer ones as long as it falls as foreseen.
            Robust: 10, else 1. Above 1, the products of a step are kept until it is done.

    Raises:
        SpecError: if there is no such metric, solver or preset, or a setting is out of range.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([2.0, 1.0]))
    >>> optimizer = EllipsoidalTrustRegion([w], metric="uniform", radius=10.0)
    >>> optimizer.step(lambda: (w * torch.tensor([1.0, 4.0]) * w).sum() / 2)
    4.0
    >>> optimizer.last.exit, optimizer.last.products, round(optimizer.last.rho, 3)
    ('interior', 2, 1.0)
    """

    def __init__(
        self,
        params: Iterable[Any],
        metric: Metric = "rmsprop",
        solver: Literal["cg", "gltr"] = "cg",
        preset: Literal["robust", "paper", "classic"] = "robust",
        *,
        radius: float | None = None,
        max_radius: float | None = None,
        eta: tuple[float, float] | None = None,
        gamma: tuple[float, float] | None = None,
        tolerance: float | None = None,
        theta: float | None = None,
        most: int | None = None,
        beta: float | None = None,
        eps: float | None = None,
        tries: int | None = None,
    ) -> None:
        changed = {
            "radius": radius,
            "max_radius": max_radius,
            "eta": eta,
            "gamma": gamma,
            "tolerance": tolerance,
            "theta": theta,
            "most": most,
            "beta": beta,
            "eps": eps,
            "tries": tries,
        }
        super().__init__(params, _settings(metric, solver, preset, changed))

    def propose(self, state: dict[str, Any], hessian: LocalHessian | Replayed) -> ModelStep:
        """The least of the model within the ellipsoid."""
        group = self.param_groups[0]
        return SOLVERS[group["solver"]](
            hessian,
            hessian.gradient,
            self._radius(state),
            metric=state.get("metric"),
            tolerance=group["tolerance"],
            theta=group["theta"],
            most=group["most"],
        )

    def adapt(self, state: dict[str, Any], found: ModelStep, rho: float, actual: float) -> None:
        """Shrink the radius after a step that does not pay, and let it grow after one to the edge as foreseen."""
        group, radius = self.param_groups[0], self._radius(state)
        (low, high), (grow, shrink) = group["eta"], group["gamma"]
        if rho < low:
            state["radius"] = (min(radius, found.length) if group["tries"] > 1 else radius) / shrink
        elif rho >= high and (group["inside"] or found.exit != "interior"):
            most = group["max_radius"] or 10 * self.size()
            state["radius"] = max(radius, min(grow * radius, most))

    def trust(self, state: dict[str, Any]) -> dict[str, Any]:
        """The radius."""
        return {"radius": self._radius(state)}

    def _radius(self, state: dict[str, Any]) -> float:
        if "radius" not in state:
            state["radius"] = self.param_groups[0]["radius"] or START * self.size()
        return float(state["radius"])


def _settings(metric: str, solver: str, name: str, changed: dict[str, Any]) -> dict[str, Any]:
    """All of them: those of the preset where they are not given."""
    check_name("solver", solver, SOLVERS)
    check_name("preset", name, PRESETS)
    settings = asdict(preset(name, metric)) | {key: value for key, value in changed.items() if value is not None}
    settings |= {key: tuple(settings[key]) for key in ("eta", "gamma")}
    return {"metric": metric, "solver": solver, "preset": name, **settings}
