"""Trace of an operator from a few products, with its error: Hutchinson's estimator, after a sketch of what is large."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import Spread, is_alone, places_of, spread_of, whole_of
from hessdiag.linalg.tridiagonal import LONG, inner, orthogonalize, row_norms, safe_norm
from hessdiag.machine.arithmetic import ieee
from hessdiag.statistics import intervals

BOTH = 1_000_003  # between the seeds of a sketch and of the signs
LEAST_SIGNS = 2  # that an error can be told from
MANY = 10**7  # random numbers beyond which drawing them takes seconds


@dataclass(frozen=True)
class Estimate:
    """An estimated number.

    Attributes:
        value: The estimate.
        stderr: Its standard error.
        interval: At 95 %.
        products: Products with vectors spent on it.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    products: int

    def shifted(self, by: float) -> "Estimate":
        """The same with a known number added."""
        low, high = self.interval
        return Estimate(self.value + by, self.stderr, (low + by, high + by), self.products)


SIGNED = 40.0  # vectors that arithmetic reads or writes for one of random signs: in float64, and their drawing


def deflated_traffic(vectors: int) -> float:
    """Vectors that arithmetic reads or writes to take so many out of a product, before and after it."""
    return 4.0 * vectors + 6.0 if vectors else 0.0


class Deflated:
    """An operator restricted to the orthogonal complement of known eigenvectors: P A P with P = I - U U'.

    Args:
        operator: Symmetric, (n, n).
        vectors: Orthonormal columns U, shape (n, r); pieces, where the operator's vectors are spread over processes.
    """

    def __init__(self, operator: SymmetricOperator, vectors: Tensor) -> None:
        self.operator = operator
        self.vectors = vectors.to(operator.device, operator.dtype)
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.spread = spread_of(operator)

    def project(self, vectors: Tensor) -> Tensor:
        """What is orthogonal to the known eigenvectors."""
        if not self.vectors.shape[1]:
            return vectors
        if vectors.ndim == 1:
            return vectors - self.vectors @ self.spread.summed(self.vectors.T @ vectors)
        rows = vectors.T  # as operators take and give them: as columns they would be copied back and forth
        return torch.addmm(rows, self.spread.summed(rows @ self.vectors), self.vectors.T, alpha=-1).T

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """P A P v."""
        return self.project(self.operator @ self.project(vectors))


def refuse_less(name: str, value: int, least: int) -> None:
    """Refuse a number that is too small.

    Raises:
        ValueError: if it is.
    """
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def refuse_few(count: int, sketch: int, enough: int) -> None:
    """Refuse products and a sketch that leave too few random signs to tell an error from.

    Args:
        count: Products to spend.
        sketch: Vectors of a sketch, two products each.
        enough: Products with which all is computed instead, and no sketch drawn.

    Raises:
        ValueError: if they do.
    """
    refuse_less("products", count, 1)
    refuse_less("sketch", sketch, 0)
    left = count - 2 * sketch
    if count < enough and left < LEAST_SIGNS:
        beside = f" with a sketch of {sketch} leave {left} random vectors, and" if sketch else ":"
        raise ValueError(
            f"{count} products{beside} an error takes {LEAST_SIGNS}.\n  try: {2 * sketch + LEAST_SIGNS} products or "
            "more"
        )


def columns_of(operator: SymmetricOperator) -> Iterator[tuple[slice, Tensor]]:
    """All columns, or pieces of them, some at a time with their places: a product with each unit vector."""
    n, spread = operator.shape[0], spread_of(operator)
    step = max(LONG // n, 1)
    for start in range(0, n, step):
        places = slice(start, min(start + step, n))
        yield places, operator @ spread.kept(_units(operator, places))


def _units(operator: SymmetricOperator, places: slice) -> Callable[[int], Tensor]:
    """Gives the next so many rows of unit vectors side by side."""
    width, done = places.stop - places.start, 0

    def rows(count: int) -> Tensor:
        nonlocal done
        found = torch.zeros(count, width, dtype=operator.dtype, device=operator.device)
        first, last = max(places.start, done), min(places.stop, done + count)
        ones = torch.arange(first, max(first, last), device=operator.device)  # at once, for a GPU launches each
        found[ones - done, ones - places.start] = found.new_ones(len(ones))
        done += count
        return found

    return rows


def formed(operator: SymmetricOperator) -> Tensor:
    """The whole matrix, (n, n), on every process: a product with each unit vector.

    >>> formed(torch.tensor([[1.0, 2.0], [2.0, 3.0]])).tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    spread = spread_of(operator)
    return torch.cat([whole_of(columns, spread) for _, columns in columns_of(operator)], dim=1)


def diagonal_by_products(operator: SymmetricOperator) -> Tensor:
    """The diagonal, (n,), or of it what a piece holds, with zeros where it is filled up: a product for each row."""
    spread = spread_of(operator)
    places = places_of(spread).to(operator.device) - 1
    found = torch.zeros(spread.own, dtype=operator.dtype, device=operator.device)
    for some, columns in columns_of(operator):
        mine = ((places >= some.start) & (places < some.stop)).nonzero()[:, 0]
        found[mine] = columns[mine, places[mine] - some.start]
    return found


def seeded(seed: int | None) -> torch.Generator:
    """A generator of its own, on the CPU; of fresh randomness where there is no seed."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def probes(operator: SymmetricOperator, count: int, seed: int | None, *, signs: bool = False) -> Tensor:
    """Random vectors as columns, shape (n, count): standard normal, or of random signs; pieces, where they are spread.

    Args:
        operator: Gives shape, dtype and device.
        count: How many.
        seed: `None` for fresh randomness in each call.
        signs: Entries +1 and -1 (Rademacher) instead of normal ones.
    """
    drawn = _drawn(operator, count, seed, torch.int8 if signs else operator.dtype)
    return drawn.to(operator.dtype)


def _drawn(operator: SymmetricOperator, count: int, seed: int | None, dtype: torch.dtype) -> Tensor:
    """Signs in int8, or normal numbers, drawn some rows at a time: the same on every device, and however spread.

    Normal numbers in float64, or where they are many in float32, which is as random and five times as fast.
    """
    generator = seeded(seed)
    normal = torch.float32 if operator.shape[0] * count > MANY else torch.float64

    def rows(some: int) -> Tensor:
        if dtype == torch.int8:
            part = torch.randint(0, 2, (some, count), generator=generator, dtype=torch.int8) * 2 - 1
        else:
            part = torch.randn(some, count, generator=generator, dtype=normal)
        return part.to(operator.device, dtype)

    return spread_of(operator).kept(rows)


@ieee()
def trace(
    operator: SymmetricOperator,
    count: int,
    seed: int | None = None,
    *,
    sketch: int = 0,
    progress: Callable[[int], None] = lambda products: None,
) -> Estimate:
    """Trace by random signs, exactly on the range of a sketch and by chance on the rest.

    Without a sketch, Hutchinson's estimator (1990); with one, Hutch++ (Meyer, Musco, Musco and Woodruff 2021). Its
    variance is 2 (|B|^2 - sum B_ii^2) over the number of signs, B the rest. Both sums are estimated from the same
    products: the second from pairs of them, where the error of one does not square.

    Args:
        operator: Symmetric, (n, n).
        count: Products to spend, at least 2 `sketch` + 2. With n or more, the diagonal is computed instead.
        seed: `None` for fresh randomness.
        sketch: Random vectors for the range; each costs two products. Worth it where eigenvalues decay.
        progress: Called with the number of products done, from time to time.

    Returns:
        An unbiased estimate with its standard error and interval.

    Raises:
        ValueError: if fewer than two products are left beside the sketch.

    >>> A = torch.outer(torch.arange(5.0), torch.arange(5.0)).double()
    >>> round(trace(A, 4, seed=0, sketch=1).value, 9)
    30.0
    """
    n, spread = operator.shape[0], spread_of(operator)
    refuse_few(count, sketch, n)
    if count >= n:
        value = float(spread.summed(diagonal_by_products(operator).double().sum()))
        return Estimate(value, 0.0, (value, value), n)
    Q = sketch_of(operator, sketch, seed)
    if sketch:
        progress(sketch)
    known = sum(inner(Q[:, column], operator @ Q[:, column], spread) for column in range(Q.shape[1]))
    h = count - 2 * sketch
    signs = _drawn(operator, h, seed, torch.int8)
    samples, largest, squares, diagonals = _signed(
        Deflated(operator, Q), signs, lambda done: progress(2 * sketch + done)
    )
    norm, diagonal_norm = squares / h, (diagonals - squares) / (h * (h - 1))
    plugged = largest * math.sqrt(max(2 * (norm - diagonal_norm) / h, 0.0))
    sampled = safe_norm(samples - samples.mean()) / math.sqrt(h * (h - 1))
    value, stderr = known + float(samples.mean()), max(plugged, sampled)
    return Estimate(value, stderr, intervals.normal(value, stderr), 2 * sketch + h)


def sketch_of(operator: SymmetricOperator, size: int, seed: int | None) -> Tensor:
    """Orthonormal columns that span the products with so many random vectors; none of them for none."""
    if not size:
        return torch.zeros(spread_of(operator).own, 0, dtype=operator.dtype, device=operator.device)
    return range_of(operator, probes(operator, size, None if seed is None else seed + BOTH))


def range_of(operator: SymmetricOperator, vectors: Tensor) -> Tensor:
    """Orthonormal columns that span the products with some vectors."""
    spread, count = spread_of(operator), vectors.shape[1]
    together = spread.n * count <= LONG
    if together and is_alone(spread):
        Q: Tensor = torch.linalg.qr((operator @ vectors).double())[0]
        return Q.to(operator.dtype)
    rows = vectors.new_empty(count, spread.own)  # one at a time: LAPACK takes several copies, and whole vectors
    if together:
        rows.copy_((operator @ vectors).T)
    kept, rounding = 0, 10 * torch.finfo(rows.dtype).eps
    for column in range(count):
        row = rows[column].clone() if together else operator @ vectors[:, column]
        row = row[None]
        size = float(row_norms(row, spread))
        row, _ = orthogonalize(row, rows[:kept], spread=spread)
        left = float(row_norms(row, spread))
        if left > rounding * size:  # else nothing of it is new
            rows[kept] = orthogonalize(row.div_(left), rows[:kept], own=True, spread=spread)[0][0]
            kept += 1
    return rows[:kept].T


def magnitude(numbers: Tensor, spread: Spread) -> float:
    """A size by which squares neither vanish nor overflow: the largest magnitude, or the sum of all processes' ones."""
    return float(spread.summed(numbers.abs().max()))


def _signed(rest: Deflated, signs: Tensor, progress: Callable[[int], None]) -> tuple[Tensor, float, float, float]:
    """What products B with random signs W tell, some at a time: long vectors are not held twice.

    Returns:
        Each w'b; a scale, and over its square the sum of all b_i^2, and that of (sum over all of w_i b_i)^2.
    """
    h, spread = signs.shape[1], rest.spread
    samples = torch.zeros(h, dtype=torch.float64, device=signs.device)
    diagonal = torch.zeros(len(signs), dtype=torch.float64, device=signs.device)
    squares = largest = 0.0
    for columns in torch.split(torch.arange(h), max(LONG // spread.n, 1)):
        W = signs[:, columns]
        B = rest @ W.to(rest.dtype)
        largest = largest or magnitude(B, spread)
        rows = max(LONG // len(columns), 1)
        for start in range(0, len(signs), rows):
            some = slice(start, start + rows)
            scaled = B[some].double() / (largest or 1.0)
            pairs = W[some] * scaled
            samples[columns] += pairs.sum(0)
            diagonal[some] += pairs.sum(1)
            squares += float(scaled.square().sum())
        progress(int(columns[-1]) + 1)
    scale = largest or 1.0
    told = spread.summed(torch.cat([samples, samples.new_tensor([squares])])).cpu()
    return told[:-1] * scale, scale, float(told[-1]), safe_norm(diagonal, spread) ** 2
