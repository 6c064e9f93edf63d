"""Tracking the moving minimum of a quadratic: what fixed step sizes and matrices reach, and how fast LODO learns.

The loss is `(x - c)'H(x - c) / 2`, and its centre c moves by independent noise of covariance `variance I` before every
evaluation. After I. Liao et al., *Learning to Optimize Quasi-Newton Methods* (2023), sections 4.1 and 5.1; most of its
formulas are derived anew.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import lambertw

from hessdiag.errors import SpecError

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Numbers: TypeAlias = Sequence[float] | Vector


def bowl_eigenvalues(dim: int = 100) -> Vector:
    """Of the paper's bowl: a geometric sequence from 1e-3 to 1.

    >>> bowl_eigenvalues(4).round(6).tolist()
    [0.001, 0.01, 0.1, 1.0]
    """
    return np.geomspace(1e-3, 1.0, dim)


def newton_loss(eigenvalues: Numbers, variance: float = 1.0) -> float:
    """Mean loss of Newton's method, below which nothing gets: it steps onto the centre that it saw last.

    What is left is the centre's last move s, and the mean of s'Hs / 2 is half the trace.

    >>> round(newton_loss(bowl_eigenvalues()), 5)
    7.41185
    """
    return variance * float(np.sum(eigenvalues)) / 2


def tracking_loss(eigenvalues: Numbers, errors: Numbers, variance: float = 1.0) -> float:
    """Mean loss in the long run, where the step is -G g for a fixed G that commutes with H.

    Args:
        eigenvalues: Of H.
        errors: Eigenvalues of I - GH, in the same order: what is left of a distance from the centre.
        variance: Of the centre's move, in each direction.

    Returns:
        Half the sum of l / (1 - A^2); infinite where an |A| is 1 or more.

    >>> tracking_loss([1.0, 2.0], [0.0, 0.0]) == newton_loss([1.0, 2.0]), tracking_loss([1.0], [1.0])
    (True, inf)
    """
    left = 1 - np.square(np.asarray(errors, float))
    if left.min() <= 0:
        return math.inf
    return variance * float(np.sum(np.asarray(eigenvalues, float) / left)) / 2


def gradient_descent_loss(eigenvalues: Numbers, lr: float, variance: float = 1.0) -> float:
    """Mean loss of gradient descent in the long run; infinite where it diverges.

    >>> round(gradient_descent_loss(bowl_eigenvalues(), 1.75), 3)
    19.087
    """
    return tracking_loss(eigenvalues, 1 - lr * np.asarray(eigenvalues, float), variance)


def best_gradient_descent(eigenvalues: Numbers, variance: float = 1.0) -> tuple[float, float]:
    """The learning rate with the smallest mean loss, and that loss.

    >>> tuple(round(number, 3) for number in best_gradient_descent(bowl_eigenvalues()))
    (1.751, 19.087)
    """
    largest = 2 / float(np.max(eigenvalues))
    found = minimize_scalar(
        lambda lr: gradient_descent_loss(eigenvalues, lr, variance),
        bounds=(1e-6 * largest, largest),
        method="bounded",
        options={"xatol": 1e-9 * largest},
    )
    return float(found.x), float(found.fun)


def heavy_ball_loss(eigenvalues: Numbers, lr: float, momentum: float, variance: float = 1.0) -> float:
    """Mean loss of gradient descent with momentum in the long run: v <- momentum v - lr g, x <- x + v.

    In each eigendirection, distance and speed follow a linear recursion with the noise in the distance; their
    covariance S solves S = A S A' + Q. An average of gradients, m <- beta m + (1 - beta) g and x <- x - alpha m, is the
    same with lr = alpha (1 - beta).

    Returns:
        Half the sum of l times the variance of the distance; infinite where it diverges.

    >>> round(heavy_ball_loss(bowl_eigenvalues(), 1.394, 0.529), 4)
    16.5856
    """
    total = 0.0
    for value in np.asarray(eigenvalues, float):
        A = np.array([[1 - lr * value, momentum], [-lr * value, momentum]])
        if np.abs(np.linalg.eigvals(A)).max() >= 1:
            return math.inf
        covariance = np.linalg.solve(np.eye(4) - np.kron(A, A), np.array([variance, 0.0, 0.0, 0.0]))
        total += value * covariance[0] / 2
    return float(total)


def mean_flow(eigenvalues: Numbers, errors: Numbers, rate: float, steps: float, variance: float = 1.0) -> Vector:
    """How LODO's error of the inverse Hessian shrinks, on average over the noise.

    For a dense G that starts symmetric in H's eigenbasis, learned by gradient descent of the given rate, without
    momentum: each eigenvalue A of I - GH follows dA/dt = -rate variance l^3 A / (1 - A^2). With u = A^2 that is
    u e^-u = u_0 e^-u_0 e^(-2 rate variance l^3 t), which Lambert's W solves. The cube of the eigenvalue l is why flat
    directions are learned so late.

    Args:
        eigenvalues: Of H.
        errors: Eigenvalues of I - G_0 H, in the same order, between -1 and 1.
        rate: Of the learning of G.
        steps: How many.
        variance: Of the centre's move, in each direction.

    Returns:
        The eigenvalues of I - GH after so many steps.

    Raises:
        SpecError: if an error is not within -1 and 1, where nothing is stationary.

    >>> mean_flow([1.0, 0.5, 0.2], [0.7, 0.85, 0.94], rate=2e-4, steps=20_000).round(3)
    array([0.01 , 0.387, 0.817])
    """
    start = np.asarray(errors, float)
    if np.abs(start).max() >= 1:
        raise SpecError(f"errors of the inverse Hessian lie between -1 and 1, not at {start[np.abs(start).argmax()]}.")
    squares = np.square(start)
    decay = np.exp(-2 * rate * variance * np.asarray(eigenvalues, float) ** 3 * steps)
    return np.asarray(np.sign(start) * np.sqrt(-lambertw(-squares * np.exp(-squares) * decay).real), float)
