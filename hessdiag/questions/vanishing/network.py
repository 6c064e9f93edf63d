"""Squared norms of the gradient and the Hessian of one network of any kind."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.curvature.dense import hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import ComputeError
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.block_squares import by_layer, sampled
from hessdiag.questions.common.runs.pieces import Arrays
from hessdiag.questions.common.splitting import Splitting
from hessdiag.questions.vanishing.effective_width import EffectiveWidth, effective_widths
from hessdiag.questions.vanishing.norms import DENSE_PARAMETERS

Floats = NDArray[np.float64]

PROBES = 4  # random vectors per layer of one network


@dataclass(frozen=True)
class Curvature:
    """Squared norms of one network's Hessian.

    Attributes:
        total: |H|^2.
        diagonal: Of its layer-diagonal blocks, (L,).
        share: Diagonal share of absolute mass; `None` where H was not computed whole.
        error: Relative standard error of |H| from random products; `None` where it is exact.
    """

    total: float
    diagonal: Floats
    share: float | None
    error: float | None


@dataclass(frozen=True)
class Network:
    """What is measured of one network.

    Attributes:
        weights: Sum of all its weights, which tells networks apart.
        gradient: Squared norm of each layer's gradient, (L,).
        curvature: Of its Hessian; `None` where only the gradient was asked for.
        widths: Effective widths by layer.
    """

    weights: float
    gradient: Floats
    curvature: Curvature | None
    widths: dict[str, EffectiveWidth]

    def arrays(self) -> Arrays:
        """The form in which it is kept in a file: what is `None` is left out."""
        widths = list(self.widths.values())
        found = {
            "weights": np.array(self.weights),
            "gradient": self.gradient,
            "layers": np.array(list(self.widths), dtype=np.str_),
            "path": np.array([width.path for width in widths]),
            "stable_rank": np.array([width.stable_rank for width in widths]),
            "padding": np.array([np.nan if width.padding is None else width.padding for width in widths]),
        }
        if self.curvature is not None:
            parts = {"total": self.curvature.total, "share": self.curvature.share, "error": self.curvature.error}
            found |= {name: np.array(value) for name, value in parts.items() if value is not None}
            found["diagonal"] = self.curvature.diagonal
        return found

    @classmethod
    def of(cls, arrays: Arrays) -> "Network":
        """What `arrays` gave, to the bit."""

        def number(name: str) -> float | None:
            return float(arrays[name]) if name in arrays else None

        total, curvature = number("total"), None
        if total is not None:
            curvature = Curvature(total, arrays["diagonal"], number("share"), number("error"))
        columns = (arrays[name].tolist() for name in ("layers", "path", "stable_rank", "padding"))
        widths = {
            name: EffectiveWidth(path, rank, None if np.isnan(padding) else padding)
            for name, path, rank, padding in zip(*columns, strict=True)
        }
        return cls(float(arrays["weights"]), arrays["gradient"], curvature, widths)


def measure(problem: Problem, seed: int, *, curved: bool) -> Network:
    """Norms of one network.

    Args:
        problem: The network, with its batch and loss.
        seed: Of the random vectors.
        curved: Whether to measure its Hessian too.

    Raises:
        ComputeError: if a gradient or a product is not finite.
    """
    if not curved:
        problem = problem.as_written()
    operator = HessianOperator(problem, check=False)
    gradient = by_layer(operator.gradient().double()[:, None], problem.executed_layers)[:, 0]
    if not np.isfinite(gradient).all():
        raise ComputeError(
            "the gradient is NaN or infinite, or its square is beyond float64.",
            "--dtype float64, another --init, or smaller depths",
        )
    curvature = None
    if curved and problem.n_parameters <= DENSE_PARAMETERS:
        curvature = _exact(problem)
    elif curved:
        curvature = _sampled(operator, seed)
    weights = sum(float(parameter.detach().double().sum()) for parameter in problem.parameters)
    return Network(weights, gradient, curvature, effective_widths(problem))


def _exact(problem: Problem) -> Curvature:
    H = hessian(problem, check=False).double()
    own = [H[layer.start : layer.stop, layer.start : layer.stop].square().sum() for layer in problem.executed_layers]
    mass = float(H.abs().sum())
    share = float(H.diagonal().abs().sum()) / mass if mass else 0.0
    return Curvature(float(H.square().sum()), torch.stack(own).cpu().numpy(), share, None)


def _sampled(operator: HessianOperator, seed: int) -> Curvature:
    squares = sampled(Splitting(operator), PROBES, seed)
    if squares.interrupted:  # a network counts whole or not at all
        raise KeyboardInterrupt
    parts = squares.parts[:, 0]
    totals = parts.sum((1, 2))
    total = float(totals.mean())
    error = float(totals.std(ddof=1)) / len(totals) ** 0.5 / (2 * total) if total else 0.0
    return Curvature(total, parts.diagonal(axis1=1, axis2=2).mean(0), None, error)
