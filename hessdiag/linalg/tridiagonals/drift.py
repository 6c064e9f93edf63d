"""How far Lanczos vectors have drifted from each other's orthogonal complements, followed without looking at them.

With w_(j,i) = q_j' q_i, what a step leaves after it was orthogonalized against the last two vectors alone obeys

    beta_j w_(j+1,i) = beta_i w_(j,i+1) + (alpha_i - alpha_j) w_(j,i) + beta_(i-1) w_(j,i-1) - beta_(j-1) w_(j-1,i)

up to the noise of products (Simon 1984). As long as all of them stay below the square root of rounding, the tridiagonal
matrix is that of an orthonormal basis to rounding: vectors need no more where only the matrix is wanted.
"""

import math

import torch
from torch import Tensor

SURE = 4  # steps that are orthogonalized in full in any case: they show how noisy products are


class Drift:
    """Estimates of |q_i' q_j| of several runs in lockstep.

    Args:
        runs: How many.
        steps: The most steps.
        eps: Rounding of the vectors.
    """

    def __init__(self, runs: int, steps: int, eps: float) -> None:
        self._eps, self._limit = eps, math.sqrt(eps / max(steps, 1))
        self._noise = eps  # of products, in units of |A|
        self._now = torch.zeros(runs, steps + 1, dtype=torch.float64)  # w_(j,i)
        self._before = torch.zeros_like(self._now)
        self._next = torch.zeros_like(self._now)
        self._again = False  # a vector that drifted stands in two steps of the recurrence

    def due(self, step: int) -> bool:
        """Whether this step has to be orthogonalized in full whatever its estimates are."""
        return self._again or step < SURE

    def beyond(
        self, at: "Tensor | slice", step: int, matrix: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor], scale: Tensor
    ) -> bool:
        """Estimate what step j leaves; whether it has drifted too far in any run.

        Args:
            at: Which runs take the step.
            step: j, from 0.
            matrix: Diagonals and couplings of all runs so far, (runs, steps) each.
            now: alpha_j and beta_j, (those runs,).
            scale: |A| of each of them, from below.
        """
        count = max(step - 1, 0)
        a, b, (alpha, beta) = matrix[0][at, :count], matrix[1][at, :count], now
        w, past = self._now[at], self._before[at, :count]
        moved = b * w[:, 1 : count + 1] + (a - alpha[:, None]) * w[:, :count]
        moved[:, 1:] += b[:, :-1] * w[:, : count - 1] if count else 0.0
        if count:
            moved -= matrix[1][at, step - 1, None] * past
        moved += torch.where(moved < 0, -1.0, 1.0) * self._noise * scale[:, None]
        found = torch.full_like(w, self._eps)
        found[:, :count] = moved / beta.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        found[:, step + 1 :] = 0.0
        self._next[at] = found
        return bool((found.abs() > self._limit).any())

    def took(self, at: "Tensor | slice", step: int, seen: Tensor | None) -> None:
        """Go on to the next step.

        Args:
            at: Which runs go on.
            step: As in `beyond`.
            seen: The largest |q_i' q_(j+1)| that a full orthogonalization found and took away, (runs that go on,);
                `None` if there was none. Where it is more than was thought, so is the noise.
        """
        self._before, self._now, self._next = self._now, self._next, self._before
        if seen is None:
            self._again = False
            return
        thought = self._now[at, : step + 1].abs().amax(1)
        self._noise *= max(1.0, float((seen / thought).max())) if len(seen) else 1.0
        self._again = not self._again and step >= SURE
        self._now[at, : step + 1] = self._eps


def semiorthogonal(basis: Tensor, steps: Tensor) -> bool:
    """Whether inner products of different rows are below the square root of rounding: by looking at all of them.

    Args:
        basis: Unit vectors of each run, (runs, m, n).
        steps: How many rows of each there are, (runs,).
    """
    worst = basis.new_zeros(())
    for rows, count in zip(basis, steps.tolist(), strict=True):
        gram = rows[:count] @ rows[:count].T
        if count:
            worst = torch.maximum(worst, gram.fill_diagonal_(0).abs().max())
    return bool(worst <= math.sqrt(torch.finfo(basis.dtype).eps))
