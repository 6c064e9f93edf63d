"""A block Krylov space of a symmetric operator, with the operator's projection onto it."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.linalg.block_step import BlockStep, block_step
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import agreed, is_alone, spread_of
from hessdiag.linalg.tridiagonal import BREAKDOWN, LONG, TRAFFIC, orthogonalize, row_norms, scaled, traffic
from hessdiag.machine import capacity
from hessdiag.machine.whole import whole
from hessdiag.machine.work import Work

MIXED = 0.125  # vectors whose reading takes as long as adding one to another, many of which share their reading
CANCELLED = 0.1  # a row that lost more than this to its block is orthogonalized against the basis once more


class KrylovSpace:
    """An orthonormal basis Q (rows), its images Q A, and the block of rows that continues it.

    Q A = P Q + E' C F holds with the projection P = Q A Q', where F is the next block, E' C places the `coupling` C at
    the rows of the block before it, and all other rows have no remainder.

    Args:
        operator: Symmetric, (n, n). Where its vectors are spread over processes, each holds its piece of every row, and
            all know the projection.
        capacity: Most rows of the basis.
        block: Rows per step.
        widest: What `widen` may ask for.
        seed: Of the first block, and of rows that replace exhausted ones.
        precision: Relative error of products. Default: the rounding of the operator's dtype.
        images: Whether to hold Q A: as much memory again. Without, images of combinations take products, or come from
            the relation above.
        start: The first block, as rows (block, n) of any length, linearly independent. Default: random.
    """

    def __init__(
        self,
        operator: SymmetricOperator,
        capacity: int,
        block: int,
        widest: int,
        seed: int,
        precision: float | None = None,
        images: bool = True,
        start: Tensor | None = None,
    ) -> None:
        self.operator = operator
        self.n, self.spread = operator.shape[0], spread_of(operator)
        self.precision = precision or torch.finfo(operator.dtype).eps
        self.block = block
        self.room = capacity - widest  # rows that a restart may keep
        self.size = self.products = self.restarts = self.largest = 0
        self.passed = 0.0  # vectors that arithmetic has read or written
        self.norm = 0.0  # the largest |A q| so far: a lower bound of |A|
        self.ritz_range = (math.inf, -math.inf)  # the smallest and the largest Ritz value seen, forgotten ones included
        self._capacity = capacity
        self._generator = torch.Generator().manual_seed(seed)
        self._basis = torch.empty(capacity + widest, self.spread.own, dtype=operator.dtype, device=operator.device)
        self._images = torch.empty_like(self._basis[:capacity]) if images else None
        self._projected = torch.zeros(capacity, capacity, dtype=torch.float64)
        self._width = block
        self._reach = 0  # the first row of the basis that products with the next block have a part in
        self._continue(self._basis[:0] if start is None else start.to(self._basis))
        self._coupling = torch.zeros(0, self._width, dtype=torch.float64)  # to a block before it, which there is none

    def grow(self) -> bool:
        """Multiply the next block, project, and orthonormalize what is left. Whether there is room for one more."""
        start, stop = self.size, self.size + self._width
        images = (self.operator @ self._basis[start:stop].T).T
        with whole():
            self._add(images, start, stop)
        return stop + self._width <= self._capacity

    def _add(self, images: Tensor, start: int, stop: int) -> None:
        """Take the next block into the basis."""
        self.products += stop - start
        self.passed += (stop - start) * traffic(stop)
        # Copied to where the next block comes, and orthogonalized there: long vectors then need no fresh memory.
        remainder, step = self._basis[stop : stop + len(images)], None
        remainder.copy_(images)
        near = stop - self._reach
        if capacity.of(images.device).gathers or not is_alone(self.spread):
            step = block_step(remainder, self._basis[:stop], near, self.spread)
            known, largest = step.coefficients, step.largest
        else:
            remainder, coefficients = orthogonalize(remainder, self._basis[:stop], near=near, own=True)
            known, largest = coefficients.double().cpu(), float(row_norms(images).max())
        self._reach = start
        if self._images is not None:
            self._images[start:stop] = images
        self._projected[start:stop, :stop] = known
        self._projected[:start, start:stop] = known[:, :start].T
        self._projected[start:stop, start:stop] = (known[:, start:] + known[:, start:].T) / 2
        self.norm = max(self.norm, largest)
        self.size = stop
        self.largest = max(self.largest, stop)
        self._continue(remainder, step)

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values in ascending order, their coefficients (columns), and residuals by the recurrence."""
        values, vectors = self._decomposed()
        self.ritz_range = min(self.ritz_range[0], float(values[0])), max(self.ritz_range[1], float(values[-1]))
        last = vectors[self.size - len(self._coupling) :]
        residuals: Tensor = torch.linalg.vector_norm(self._coupling.T @ last, dim=0)
        return values, vectors, residuals

    def _decomposed(self) -> tuple[Tensor, Tensor]:
        """Of the projection, the same on all processes: eigenvectors of repeated values are anybody's choice."""
        values, vectors = torch.linalg.eigh(self._projected[: self.size, : self.size])
        if is_alone(self.spread):
            return values, vectors
        both = agreed(torch.cat([values[None], vectors]), self.spread)
        return both[0], both[1:]

    def state(self) -> dict[str, NDArray[Any]]:
        """All that `resume` needs, as arrays that may change with the next step."""
        held = self.size + self._width
        images = {} if self._images is None else {"images": self._images[: self.size].cpu().numpy()}
        numbers = (self.size, self.products, self.restarts, self.largest, self.block, self._width, self._reach)
        return images | {
            "basis": self._basis[:held].cpu().numpy(),
            "projected": self._projected[: self.size, : self.size].numpy(),
            "coupling": self._coupling.numpy(),
            "counts": np.array(numbers),
            "sizes": np.array([self.norm, *self.ritz_range]),
            "generator": self._generator.get_state().numpy(),
        }

    def resume(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave, bit for bit."""
        counts = state["counts"].tolist()
        self.size, self.products, self.restarts, self.largest, self.block, self._width, self._reach = counts
        self.norm, low, high = state["sizes"].tolist()
        self.ritz_range = low, high
        self._basis[: self.size + self._width] = torch.from_numpy(state["basis"])
        if self._images is not None:
            self._images[: self.size] = torch.from_numpy(state["images"])
        self._projected.zero_()
        self._projected[: self.size, : self.size] = torch.from_numpy(state["projected"])
        self._coupling = torch.from_numpy(state["coupling"])
        self._generator.set_state(torch.from_numpy(state["generator"]))

    def combine(self, vectors: Tensor) -> Tensor:
        """Combinations of the basis, one row per column of `vectors`."""
        found = self._basis.new_empty(vectors.shape[1], self.spread.own)
        return _combined(vectors, self._basis[: self.size], found)

    def images(self, vectors: Tensor, rows: Tensor, *, multiply: bool) -> Iterator[Tensor]:
        """A times each of the `combine`d rows, some at a time.

        Args:
            vectors: Of the combinations.
            rows: What they are.
            multiply: Where images are not held, spend a product on each, and do not rely on the relation.
        """
        step = max(LONG // self.n, 1)
        for start in range(0, len(rows), step):
            some = vectors[:, start : start + step]
            if self._images is not None:
                yield _combined(some, self._images[: self.size], rows.new_empty(some.shape[1], self.spread.own))
            elif multiply:
                self.products += some.shape[1]
                yield (self.operator @ rows[start : start + step].T).T
            else:
                found = self.combine(self._projected[: self.size, : self.size] @ some)
                left = (self._coupling.T @ some[self.size - len(self._coupling) :]).to(found)
                yield found.addmm_(left.T, self._basis[self.size : self.size + self._width])

    def restart(self, values: Tensor, vectors: Tensor) -> None:
        """Keep these Ritz pairs and the next block, and forget the rest."""
        with whole():
            self._restart(values, vectors)

    def _restart(self, values: Tensor, vectors: Tensor) -> None:
        keep = len(values)
        self.passed += self._restarting(keep)
        following = self._basis[self.size : self.size + self._width].clone()
        for held in (self._basis, self._images):
            if held is not None:
                _combined(vectors, held[: self.size], held[:keep])
        self._basis[keep : keep + self._width] = following
        self._projected.zero_()
        self._projected[:keep, :keep] = torch.diag(values)
        self.size, self._reach = keep, 0
        self.restarts += 1

    def _restarting(self, keep: int) -> float:
        """Vectors that a restart is worth which keeps so many."""
        return (1 + (self._images is not None)) * (self.size + keep + MIXED * self.size * keep)

    def finish(self, pairs: int) -> Work:
        """What true residuals of so many pairs take."""
        combined = self.size + MIXED * self.size * pairs + TRAFFIC * pairs
        return Work(pairs, combined) if self._images is None else Work(0, 2 * combined)

    def traffic(self, products: float) -> float:
        """Vectors that arithmetic will read or write beside so many more products, about."""
        first = min(products, self._capacity - self.size)
        kept = self.room // 2
        cycle = max(self._capacity - kept, 1)
        each = traffic((self._capacity + kept) // 2) + self._restarting(kept) / cycle
        return first * traffic(self.size + int(first / 2)) + (products - first) * each

    def widen(self, block: int) -> None:
        """Add random rows to the next block, and take steps of that width from here on."""
        width = min(block, self.n - self.size)
        for j in range(self._width, width):
            self._basis[self.size + j] = self._random(self._basis[: self.size + j])
        self._coupling = torch.nn.functional.pad(self._coupling, (0, width - self._width))
        self._width, self.block = width, block

    def _continue(self, remainder: Tensor, step: BlockStep | None = None) -> None:
        """Orthonormalize `remainder` into the next block. Rows that are lost in rounding give way to random ones."""
        self._width = min(self.block, self.n - self.size)
        if len(remainder) == self._width:
            if step is not None and self._continued(step.coupling, step.rows):
                return
            if step is None and self.n <= LONG:  # LAPACK takes several copies
                columns, triangle = torch.linalg.qr(remainder.T)
                if self._continued(triangle.double().cpu().T, columns.T):
                    return
        self._continue_by_rows(remainder)

    def _continued(self, coupling: Tensor, rows: Tensor) -> bool:
        """Take these rows for the next block, unless one of them is what rounding left."""
        left, before = coupling.diagonal().abs(), torch.linalg.vector_norm(coupling, dim=1)
        good = bool((left > (CANCELLED * before).clamp(min=BREAKDOWN * self.precision * self.norm)).all())
        if good:
            self._coupling = coupling
            self._basis[self.size : self.size + self._width] = rows
        return good

    def _continue_by_rows(self, remainder: Tensor) -> None:
        """The same one row after the other, in place, with an eye on what each loses to those before it."""
        self._coupling = torch.zeros(len(remainder), self._width, dtype=torch.float64)
        for j in range(self._width):
            known = self._basis[: self.size + j]
            row, norm = remainder[j : j + 1], torch.zeros(1, dtype=torch.float64)
            if len(row):
                before = row_norms(row, self.spread)
                row, coefficients = orthogonalize(row, known[self.size :], own=True, spread=self.spread)
                self._coupling[j, :j] = coefficients[0].double().cpu()
                norm = row_norms(row, self.spread)
                if norm < CANCELLED * before:
                    row, _ = orthogonalize(row, known, own=True, spread=self.spread)
                    norm = row_norms(row, self.spread)
            if norm > BREAKDOWN * self.precision * self.norm:
                self._coupling[j, j] = norm[0]
                scaled(row, norm, out=self._basis[self.size + j : self.size + j + 1])
            else:
                self._basis[self.size + j] = self._random(known)

    def _random(self, known: Tensor) -> Tensor:
        """A random unit vector that is orthogonal to the basis so far."""
        row = self.spread.kept(lambda count: torch.randn(count, generator=self._generator, dtype=torch.float32))[None]
        row = row.to(self._basis.device, self._basis.dtype)
        for _ in range(2):  # where the basis nearly spans the space, almost nothing is left of the first
            row, _ = orthogonalize(row, known, own=True, spread=self.spread)
            row = scaled(row, row_norms(row, self.spread), out=row)
        return row[0]


def _combined(vectors: Tensor, rows: Tensor, out: Tensor) -> Tensor:
    """Combinations of rows, one per column of `vectors`, into `out`, which may be the first of these rows."""
    weights = vectors.T.to(rows.device, rows.dtype)
    width = max(LONG // max(len(rows), 1), 2**16)
    for start in range(0, rows.shape[1], width):
        out[:, start : start + width] = weights @ rows[:, start : start + width]
    return out
