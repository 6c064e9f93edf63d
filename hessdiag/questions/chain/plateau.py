"""Optimizers on the plateau of the width-one network, from equal weights, beside the closed forms."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from hessdiag.questions.chain.result import ChainPlateau
from hessdiag.theory.chain import peak
from hessdiag.theory.chain_plateau import blow_up_time, flow_time, flow_time_bound, rmsprop_time_bound

LEARNING_RATE = 1e-3  # of the discrete steps; small beside the distance
SMOOTHING, EPSILON = 0.99, 1e-8  # defaults of torch.optim.RMSprop
PATIENCE = 20_000  # steps after which an optimizer counts as stuck
SIMULATED_BELOW = 1e100  # times beyond are of no interest, and strain the integrator


def plateau(length: int, log_median: float) -> ChainPlateau | None:
    """Cross the plateau from L weights of the typical size; `None` where there is none, or its time is beyond float64.

    Args:
        length: Number of weights.
        log_median: Log of the median of |v| over random chains.

    >>> found = plateau(10, 10 * math.log(0.5))
    >>> round(found.theory_time, 3), round(found.flow_time, 3)
    (32.126, 32.126)
    """
    end = peak(length)
    if length < 3 or log_median >= math.log(end):
        return None
    start = math.exp(log_median / length)
    time = flow_time(length, start, end)
    if not math.isfinite(time):
        return None
    return ChainPlateau(
        start=start,
        gradient=start ** (length - 1) * (1 - start**length),
        output=end,
        theory_time=time,
        theory_time_bound=flow_time_bound(length, start, end),
        theory_blow_up_time=blow_up_time(length, start),
        flow_time=integrate_flow(length, start, end) if time < SIMULATED_BELOW else None,
        learning_rate=LEARNING_RATE,
        gradient_descent_steps=time / LEARNING_RATE,
        rmsprop_steps=count_rmsprop_steps(length, start, end, epsilon=0.0),
        theory_rmsprop_steps=math.ceil(rmsprop_time_bound(length, start, end) / LEARNING_RATE),
        rmsprop_default_steps=count_rmsprop_steps(length, start, end, epsilon=EPSILON),
    )


def integrate_flow(length: int, start: float, output: float) -> float | None:
    """Time of gradient flow in all `length` weights until the output is reached, by an adaptive Runge-Kutta method."""

    def descend(time: float, w: NDArray[np.float64]) -> NDArray[np.float64]:
        v = w.prod()
        return np.asarray((1 - v) * v / w)

    def reached(time: float, w: NDArray[np.float64]) -> float:
        return float(w.prod()) - output

    reached.terminal = True  # type: ignore[attr-defined]
    horizon = 2 * flow_time(length, start, output) + 10
    weights = np.full(length, start)
    found = solve_ivp(descend, (0, horizon), weights, method="DOP853", events=reached, rtol=1e-10, atol=1e-14)
    return float(found.t_events[0][0]) if found.t_events[0].size else None


def count_rmsprop_steps(length: int, start: float, output: float, *, epsilon: float) -> int | None:
    """Steps of RMSprop until the output is reached; `None` if it gets stuck. Equal weights stay equal."""
    w, average = start, 0.0
    for step in range(1, PATIENCE + 1):
        gradient = w ** (length - 1) * (1 - w**length)
        average = SMOOTHING * average + (1 - SMOOTHING) * gradient**2
        scale = math.sqrt(average) + epsilon
        if scale == 0:
            return None
        w += LEARNING_RATE * gradient / scale
        if w**length >= output:
            return step
    return None
