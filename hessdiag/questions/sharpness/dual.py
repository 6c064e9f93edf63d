"""Curvature in the norm of Muon's steps: the most that one step of unit size can meet."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import inner
from hessdiag.optimizers.state.held import Held
from hessdiag.problem.problem import Problem

STARTS = 2  # the gradient's own step, and a random one
PRODUCTS = 7  # from each, at most
STILL = 1e-3  # relative growth below which it has converged


@dataclass(frozen=True)
class Matrix:
    """One weight matrix that steps by its polar factor.

    Attributes:
        place: In the parameter vector.
        shape: Rows and columns.
        size: Of its step over the learning rate, as the optimizer adjusts it to the shape.
    """

    place: slice
    shape: tuple[int, int]
    size: float


@dataclass(frozen=True)
class Dual:
    """The largest curvature of the norm ball.

    Attributes:
        curvature: S, the largest d'Hd that was found of steps with max_l |D_l| / size_l <= 1: a lower bound.
        gradient: |g|_*, the most that such a step gains: sum of size_l times the nuclear norm of G_l.
        products: Spent.
    """

    curvature: float
    gradient: float
    products: int


def matrices(problem: Problem, held: Mapping[str, Held]) -> list[Matrix]:
    """Those of a problem that Muon steps."""
    found = []
    for (name, parameter), place in zip(problem.named_parameters, problem.places(), strict=True):
        group = held[name].group if name in held else {}
        if "ns_steps" in group and parameter.ndim == 2:
            rows, columns = parameter.shape
            found.append(Matrix(place, (rows, columns), _size(group.get("adjust_lr_fn"), rows, columns)))
    return found


def _size(rule: str | None, rows: int, columns: int) -> float:
    """By which torch's Muon multiplies its learning rate for a shape.

    >>> _size(None, 8, 2), _size("match_rms_adamw", 4, 25)
    (2.0, 1.0)
    """
    return 0.2 * math.sqrt(max(rows, columns)) if rule == "match_rms_adamw" else math.sqrt(max(1.0, rows / columns))


def dual(operator: SymmetricOperator, gradient: Tensor, own: list[Matrix], seed: int) -> Dual:
    """By D <- size * polar(HD), matrix by matrix, from the gradient and from a random start.

    Of a positive semidefinite H each step raises d'Hd (a maximum of a convex function over the ball, by its linear
    bound); what it ends at need not be the largest (Islamov et al., arXiv 2603.05002).

    Args:
        operator: H, (N, N).
        gradient: (N,).
        own: The matrices.
        seed: Of the random start.
    """
    source = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(gradient), generator=source, dtype=torch.float64).to(gradient)
    best, products = -math.inf, 0
    for start in (gradient, noise)[:STARTS]:
        step, before = _steepest(start, own), -math.inf
        for _ in range(PRODUCTS):
            image = operator @ step.to(operator.dtype)
            products += 1
            found = inner(step, image)
            best = max(best, found)
            if not found > before + STILL * abs(found):
                break
            step, before = _steepest(image, own), found
    norms = (one.size * float(torch.linalg.matrix_norm(_of(gradient, one), "nuc")) for one in own)
    return Dual(best, sum(norms), products)


def _steepest(vector: Tensor, own: list[Matrix]) -> Tensor:
    """The step of unit size that goes farthest along a vector: zero but for the matrices."""
    found = torch.zeros_like(vector)
    for one in own:
        u, _, v = torch.linalg.svd(_of(vector, one), full_matrices=False)
        found[one.place] = one.size * (u @ v).reshape(-1).to(found)
    return found


def _of(vector: Tensor, one: Matrix) -> Tensor:
    return vector[one.place].double().view(one.shape)
