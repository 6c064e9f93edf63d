"""Trust regions whose shape follows the gradients, for minibatches: steps of the quadratic model as far as it holds."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor

from hessdiag import suggest
from hessdiag.curvature.local import LocalHessian
from hessdiag.errors import SpecError
from hessdiag.linalg.quadratic.step import size_of
from hessdiag.linalg.trust_region import gltr, steihaug
from hessdiag.optimizers.closure import Closure, ClosureOptimizer
from hessdiag.optimizers.metric import metric_of, remembered, remembered_whole, whole_metric_of
from hessdiag.optimizers.presets import PRESETS, Metric, preset
from hessdiag.optimizers.step import Step

METRICS = ("uniform", "rmsprop", "adagrad", "diagonal", "full")
SOLVERS = {"cg": steihaug, "gltr": gltr}
WHOLE = 2000  # parameters up to which a whole matrix is a metric
EXACT = 64  # parameters up to which the Hessian's diagonal is computed, and not estimated
LEAST_SCALE = 0.01  # root mean square that parameters are taken to have where theirs is less, or zero
NOISE = 10.0  # units of rounding of the loss that a difference of two says nothing below


class EllipsoidalTrustRegion(ClosureOptimizer):
    """Steps that minimize the quadratic model of the loss within an ellipsoid of adapted size.

    Adolphs, Kohler and Lucchi (2019), Algorithm 1, with products of the Hessian in the place of the Hessian. Gradient,
    products and both losses of a step are of one batch: the closure has to use the same one each time that a step calls
    it, and returns the loss with its graph.

    The preset "robust" is free of scales: multiplying the loss changes nothing, and neither do gradients of 1e-14. Its
    metric has the mean 1 and a floor relative to the gradient, where the paper's is absolute and turns the ellipsoid
    into a ball on flat plateaus.

    Args:
        params: One group of parameters.
        metric: The ellipsoid: "uniform" for a ball, "rmsprop" and "adagrad" for the roots of averaged or summed squares
            of gradients, "diagonal" for the absolute diagonal of the Hessian (exact up to 64 parameters, else a
            running estimate, with one product more a step), "full" for the root of the averaged matrix g g' (up to
            2,000 parameters).
        solver: "cg", which stops at the boundary (Steihaug-Toint), or "gltr", which finds the least of the model.
        preset: "robust", "paper" (Table 1 of the paper) or "classic" (textbook factors): what stands for settings that
            are not given.
        radius: At the start, in the metric. Robust: a tenth of the length of the parameters.
        max_radius: At most. Robust: ten times the length of the parameters.
        eta: Ratios of actual to predicted decrease: from the first on a step is taken, from the second on the radius
            grows, and below the first it shrinks.
        gamma: By which factor it grows, and by which it shrinks.
        tolerance: Of the solver, relative to the gradient.
        theta: That tolerance is at most the gradient's norm to this power; 0 leaves it as it is.
        most: Products a step.
        beta: Decay of the metric's average.
        eps: Floor of the metric, added to the averaged squares. Robust: the root of it, relative to the root mean
            square of the gradient.

    Raises:
        SpecError: if there is no such metric, solver or preset, or a setting is out of range.

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
        }
        super().__init__(params, _settings(metric, solver, preset, changed))
        if metric == "full" and sum(parameter.numel() for parameter in self.parameters) > WHOLE:
            raise SpecError(
                f"metric='full' holds a matrix of all pairs of parameters, and is for {WHOLE:,} of them at most.",
                "metric='rmsprop', which holds its diagonal",
            )

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
        group, state = self.param_groups[0], self._held()
        loss, _ = self.evaluate(closure)
        before = float(loss)
        if not math.isfinite(before):
            self.last = _nothing(before, self.counted(), state["radius"])
            return before
        with torch.enable_grad():
            hessian = LocalHessian(loss, self.parameters)
        size_of(hessian.gradient)  # refuses what is not finite, before it spoils the metric
        self._learn(state, hessian)
        found = SOLVERS[group["solver"]](
            hessian,
            hessian.gradient,
            state["radius"],
            metric=state.get("metric"),
            tolerance=group["tolerance"],
            theta=group["theta"],
            most=group["most"],
        )
        noise = NOISE * torch.finfo(loss.dtype).eps
        products = hessian.products
        del hessian, loss  # the graph is not needed any more, and the next evaluation makes none
        rho = None
        if found.decrease > 0:
            start = self.point()
            self.place(start + found.step)
            rho = _ratio(before, self.value(closure), found.decrease, noise)
            state["accepted"] = rho >= group["eta"][0]
            if not state["accepted"]:
                self.place(start)
            state["radius"] = self._adapted(state["radius"], rho)
        self.last = Step(
            loss=before,
            accepted=rho is not None and state["accepted"],
            gradients=1,
            products=products,
            evaluations=self.counted(),
            length=float(found.step.double().norm()),
            rho=rho,
            radius=state["radius"],
            exit=found.exit,
        )
        return before

    def _held(self) -> dict[str, Any]:
        """What goes on from step to step, beside the parameters; in the state of the first of the widest."""
        parameters = self.parameters
        widest = max(parameters, key=lambda parameter: torch.finfo(parameter.dtype).bits)
        state: dict[str, Any] = self.state[widest]
        if "radius" not in state:
            group = self.param_groups[0]
            state["step"], state["accepted"] = 0, True
            state["radius"] = group["radius"] or 0.1 * self._length()
        return state

    def _length(self) -> float:
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

    def _adapted(self, radius: float, rho: float) -> float:
        """The radius for the next step."""
        group = self.param_groups[0]
        (low, high), (grow, shrink) = group["eta"], group["gamma"]
        if rho < low:
            return float(radius / shrink)
        if rho < high:
            return radius
        most: float = group["max_radius"] or 10 * self._length()
        return float(max(radius, min(grow * radius, most)))


def _settings(metric: str, solver: str, name: str, changed: dict[str, Any]) -> dict[str, Any]:
    """All settings, checked."""
    for what, given, known in (("metric", metric, METRICS), ("solver", solver, SOLVERS), ("preset", name, PRESETS)):
        if given not in known:
            close = suggest.question(given, list(known))
            raise SpecError(f"there is no {what} {given!r}.{close} One of {', '.join(known)}.")
    settings = asdict(preset(name, metric)) | {key: value for key, value in changed.items() if value is not None}
    settings |= {key: tuple(settings[key]) for key in ("eta", "gamma")}
    _check(settings)
    return {"metric": metric, "solver": solver, "preset": name, **settings}


def _check(settings: dict[str, Any]) -> None:
    (low, high), (grow, shrink) = settings["eta"], settings["gamma"]
    radii = {key: settings[key] is None or settings[key] > 0 for key in ("radius", "max_radius")}
    right = {
        "eta": (0 < low <= high < 1, "two ratios, 0 < eta[0] <= eta[1] < 1"),
        "gamma": (grow >= 1 and shrink > 1, "two factors, gamma[0] >= 1 and gamma[1] > 1"),
        **{key: (fine, "above 0") for key, fine in radii.items()},
        "tolerance": (settings["tolerance"] > 0, "above 0"),
        "theta": (settings["theta"] >= 0, "0 or more"),
        "most": (settings["most"] >= 1, "1 or more"),
        "beta": (0 <= settings["beta"] < 1, "0 <= beta < 1"),
        "eps": (settings["eps"] >= 0, "0 or more"),
    }
    for key, (fine, says) in right.items():
        if not fine:
            raise SpecError(f"{key} is {settings[key]}, and has to be {says}.")


def _nothing(loss: float, evaluations: int, radius: float) -> Step:
    """Where the loss is no number, nothing can be done."""
    return Step(loss=loss, accepted=False, gradients=0, products=0, evaluations=evaluations, length=0.0, radius=radius)


def _diagonal(hessian: LocalHessian, step: int) -> Tensor:
    """The Hessian's diagonal: exact where there are few parameters, else estimated by one product (Hutchinson)."""
    gradient = hessian.gradient
    n = len(gradient)
    if n <= EXACT:
        exact: Tensor = torch.diagonal(hessian @ torch.eye(n, dtype=gradient.dtype, device=gradient.device))
        return exact
    generator = torch.Generator().manual_seed(step)
    signs = torch.randint(2, (n,), generator=generator).mul_(2).sub_(1).to(gradient)
    return signs * (hessian @ signs)


def _ratio(before: float, after: float, predicted: float, noise: float) -> float:
    """Actual over predicted decrease; where both drown in the rounding of the loss, 1."""
    if not math.isfinite(after):
        return -math.inf
    slack = noise * max(abs(before), abs(after))
    return float((before - after + slack) / (predicted + slack))
