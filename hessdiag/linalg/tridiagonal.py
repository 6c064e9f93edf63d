"""Lanczos tridiagonalization with full reorthogonalization, of several start vectors in lockstep."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import Spread, is_alone, spread_of, summed
from hessdiag.machine import capacity
from hessdiag.machine.arithmetic import ieee
from hessdiag.machine.pages import large_pages

LONG = 2**22  # numbers from which a copy of a vector is worth avoiding
PIECE = 2**18  # numbers of it that pass at a time: the C library keeps the pages of so few for the next ones
TRAFFIC = 16.0  # vectors that a step reads or writes beside its basis: the last two rows, norms, copies, scaling
BREAKDOWN = 10.0  # units of rounding of |A| below which a remainder is taken for zero


@dataclass(frozen=True)
class Tridiagonal:
    """A Q = Q T + beta_m q_(m+1) e_m' for each of k start vectors, T = tridiag(betas, alphas, betas).

    Attributes:
        alphas: Diagonals, float64 on the CPU, shape (k, m). Zero beyond a vector's last step.
        betas: beta_j couples step j with step j + 1, shape (k, m); the last belongs to the residual. Zero from the step
            at which a vector's Krylov space is exhausted.
        steps: How many steps each vector took, shape (k,): m, or the dimension of its Krylov space if that is smaller.
        basis: The Lanczos vectors, shape (k, n, m) in the operator's dtype; `None` unless asked for.
    """

    alphas: Tensor
    betas: Tensor
    steps: Tensor
    basis: Tensor | None

    @property
    def terminated(self) -> Tensor:
        """Whether each Krylov space was exhausted, so that its Ritz pairs are exact; shape (k,), bool."""
        last = (self.steps - 1).clamp(min=0)[:, None]
        return (self.steps == 0) | (self.betas.gather(1, last)[:, 0] == 0)

    def matrix(self, index: int = 0) -> Tensor:
        """T of one start vector, shape (steps, steps), float64."""
        m = int(self.steps[index])
        off = self.betas[index, : max(m - 1, 0)]
        return torch.diag(self.alphas[index, :m]) + torch.diag(off, 1) + torch.diag(off, -1)


def traffic(size: int) -> float:
    """Vectors that arithmetic reads or writes to orthogonalize one against so many.

    >>> traffic(10)
    36.0
    """
    return 2.0 * size + TRAFFIC


@ieee()
def tridiagonalize(
    operator: SymmetricOperator,
    start: Tensor,
    steps: int,
    *,
    keep_basis: bool = False,
    progress: Callable[[int, int], None] = lambda vectors, steps: None,
) -> Tridiagonal:
    """Run Lanczos from each column of `start`, one product with all of them per step.

    Each new vector is orthogonalized against its whole basis at every step, by two passes of classical Gram-Schmidt
    (Daniel, Gragg, Kaufman and Stewart 1976), of which the first needs the last two vectors only: orthogonality at the
    level of rounding.
    A remainder that is rounding error beside the largest |A q| so far ends that vector's run.

    Args:
        operator: Symmetric, (n, n). Where its vectors are spread over processes, start and basis are pieces; a step
            sums two times.
        start: Start vectors of any length, shape (n, k) or (n,). A zero vector takes no steps.
        steps: m, the most steps; no more than n are taken.
        keep_basis: Return the bases too. They are held in any case: k (m + 1) n numbers.
        progress: Called after each step with how many vectors took it, and which it was.

    Returns:
        One tridiagonal matrix per start vector.

    >>> T = tridiagonalize(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]).double()), torch.ones(4).double(), 3)
    >>> T.alphas, T.betas.square()
    (tensor([[2.5000, 2.5000, 2.5000]], dtype=torch.float64), tensor([[1.2500, 0.8000, 0.4500]], dtype=torch.float64))
    """
    rows = (start[:, None] if start.ndim == 1 else start).T.to(operator.device, operator.dtype)
    k, own = rows.shape
    n, spread = operator.shape[0], spread_of(operator)
    m = min(steps, n)
    new = torch.zeros if keep_basis else torch.empty  # which takes memory as it fills
    basis = new(k, m + 1, own, dtype=operator.dtype, device=operator.device)
    if is_alone(spread):
        large_pages(basis)
    alphas, betas = torch.zeros(k, m, dtype=torch.float64), torch.zeros(k, m, dtype=torch.float64)
    taken = torch.zeros(k, dtype=torch.int64)
    norms = row_norms(rows, spread)
    scale = torch.zeros(k, dtype=torch.float64)  # the largest |A q| so far: a lower bound of |A|
    active = torch.nonzero(norms > 0)[:, 0]
    basis[active, 0] = scaled(rows[active], norms[active])
    rounding = BREAKDOWN * torch.finfo(operator.dtype).eps
    for step in range(m):
        if not len(active):
            break
        every = len(active) == k
        at = slice(None) if every else active
        products = (operator @ basis[at, step].T).T
        # Copied to where the next vectors come, and orthogonalized there: long ones then need no fresh memory.
        basis[at, step + 1] = products
        # Torch takes six times as long on a CPU for norms of whole matrices as for those of rows that lie apart.
        gathers = capacity.of(operator.device).gathers
        sizes = norms_of(products if gathers else basis[at, step + 1]) if is_alone(spread) else None
        del products
        norms, sizes, last = _orthogonalized(basis, step, active, sizes, spread)[:3]
        scale[at] = torch.maximum(scale[at], sizes)
        alphas[at, step] = last
        taken[at] = step + 1
        more = norms > rounding * scale[at]
        if step + 1 == n:
            more &= False
        if every and bool(more.all()):
            scaled(basis[:, step + 1], norms, out=basis[:, step + 1])
        else:
            for index, norm, goes_on in zip(active.tolist(), norms, more.tolist(), strict=True):
                row = basis[index, step + 1][None]
                scaled(row, norm[None], out=row) if goes_on else row.zero_()
        progress(len(active), step + 1)
        active = active[more]
        betas[active, step] = norms[more]
    return Tridiagonal(alphas, betas, taken, basis[:, :m].transpose(1, 2) if keep_basis else None)


class Passes:
    """Two passes of Gram-Schmidt, of rows against orthonormal rows, and a third one where it is needed.

    Where vectors are spread over processes, each pass sums its coefficients and what is left before it, and the norms
    after it follow by Pythagoras: what is subtracted last is small, or a third pass is due.

    Args:
        vectors: Rows, (b, n).
        basis: One for all, (m, n), or one for each row, (b, m, n).
        near: See `orthogonalize`.
        own: See there.
        spread: See there.

    Attributes:
        first: What the first pass subtracted of the last `near` rows, (..., near).
        second: What the others did of all, (..., m).
        before: Norms of the rows as they came, (b,), where they are spread.
    """

    def __init__(
        self, vectors: Tensor, basis: Tensor, near: int | None, *, own: bool, spread: Spread | None = None
    ) -> None:
        if basis.ndim == 2 and capacity.of(basis.device).gathers:
            self._known, rows = basis, vectors
        else:
            self._known, rows = basis.expand(len(vectors), *basis.shape[-2:]), vectors[:, None]
        self._spread, self._crossed = None if is_alone(spread) else spread, basis.ndim == 2
        self.before: Tensor | None = None
        close = self._known if near is None else self._known[..., -near:, :]
        self._rest = rows
        self.first = self._pass(close, own=own)
        self.second = self._pass(self._known, own=True)

    def _pass(self, known: Tensor, *, own: bool) -> Tensor:
        if self._spread is None:
            self._rest, found = _subtracted(self._rest, known, own=own)
            return found
        return self._summed_pass(known, self._spread, own=own)

    def _summed_pass(self, known: Tensor, spread: Spread, *, own: bool) -> Tensor:
        rows = self.remainder
        left = gram_of(rows) if self._crossed else norms_of(rows).square()
        coefficients = self._rest @ known.mT
        both = spread.summed(torch.cat([left.flatten(), coefficients.flatten().to(left.dtype)]))
        found, told = both[left.numel() :].view_as(coefficients).to(rows.dtype), both[: left.numel()].view_as(left)
        self._rest = _less(self._rest, found, known, own=own)
        taken = found.flatten(0, -2).to(left.dtype)
        if self.before is None:
            self.before = (told.diagonal() if self._crossed else told).sqrt()
        if self._crossed:
            self._left = told - taken @ taken.T
            self._left.diagonal().clamp_(min=0)
        else:
            self._left = (told - taken.square().sum(1)).clamp(min=0)
        return found

    @property
    def remainder(self) -> Tensor:
        """What is left, (b, n)."""
        return self._rest if self._known.ndim == 2 else self._rest[:, 0]

    @property
    def gram(self) -> Tensor:
        """Inner products of what is left, (b, b), of a basis for all."""
        return gram_of(self.remainder) if self._spread is None else self._left

    @property
    def left(self) -> Tensor:
        """Norms of what is left, (b,)."""
        if self._spread is None:
            return norms_of(self.remainder)
        return (self._left.diagonal() if self._crossed else self._left).sqrt()

    @property
    def coefficients(self) -> Tensor:
        """What was subtracted, (b, m)."""
        found = self.second.clone()
        found[..., found.shape[-1] - self.first.shape[-1] :] += self.first
        return found.flatten(0, -2)

    @property
    def last(self) -> Tensor:
        """What was subtracted of the last row of the basis, (b,)."""
        return (self.second[..., -1] + self.first[..., -1]).flatten()

    @property
    def overlooked(self) -> Tensor:
        """For which rows the second pass found more than it left, so that a third one is due; (b,), bool."""
        if self._spread is not None:
            beyond: Tensor = self.second.flatten(0, -2).norm(dim=1) > self.left
            return beyond
        found: Tensor = self.second.norm(dim=-1) > self._rest.norm(dim=-1)
        return found.flatten()

    def again(self) -> None:
        """A third pass."""
        self.second += self._pass(self._known, own=True)


def orthogonalize(
    vectors: Tensor, basis: Tensor, near: int | None = None, *, own: bool = False, spread: Spread | None = None
) -> tuple[Tensor, Tensor]:
    """Subtract from each of b rows what lies in the span of the orthonormal rows of a basis, in two passes.

    Args:
        vectors: Rows, (b, n).
        basis: One for all, (m, n), or one for each row, (b, m, n).
        near: How many of the basis's last rows hold all that is there to subtract, but for errors. The first pass
            leaves the others out: what a Lanczos step should find there is zero. Where it finds more than remains, as
            with products that are noisy, a third pass follows. Default: all.
        own: Whether the remainder may take the place of `vectors`: long ones need no fresh pages then.
        spread: Over processes: then all are pieces. Default: not at all.

    Returns:
        The remainder (b, n), and the coefficients (b, m) that were subtracted.

    >>> orthogonalize(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    (tensor([[0., 4.]]), tensor([[3.]]))
    """
    passes = Passes(vectors, basis, near, own=own, spread=spread)
    if near is not None and bool(passes.overlooked.any()):
        passes.again()
    return passes.remainder, passes.coefficients


def _subtracted(rows: Tensor, known: Tensor, *, own: bool) -> tuple[Tensor, Tensor]:
    """One pass of Gram-Schmidt: what is left, in place of `rows` if they may be written to, and its coefficients.

    On a CPU a product for each row: one matrix product with two or three rows takes as long, and on one core.
    """
    coefficients = rows @ known.T if known.ndim == 2 else torch.bmm(rows, known.mT)
    return _less(rows, coefficients, known, own=own), coefficients


def _less(rows: Tensor, coefficients: Tensor, known: Tensor, *, own: bool) -> Tensor:
    """Rows less what they have of a basis, in their place if they may be written to."""
    if known.ndim == 2:
        return rows.addmm_(coefficients, known, alpha=-1) if own else rows.addmm(coefficients, known, alpha=-1)
    return rows.baddbmm_(coefficients, known, alpha=-1) if own else rows.baddbmm(coefficients, known, alpha=-1)


def _orthogonalized(basis: Tensor, step: int, active: Tensor, sizes: Tensor | None, spread: Spread) -> Tensor:
    """Orthogonalize the products that lie behind a step, in place.

    Returns:
        In one copy, float64 on the CPU, (4, active): norms of what is left, of the products, the last coefficients, and
        whether something had been overlooked.
    """
    if len(active) == len(basis):
        return _passed(basis[:, step + 1], basis[:, : step + 1], sizes, spread)
    own = [None] * len(active) if sizes is None else torch.split(sizes, 1)
    each = [  # without a copy of the bases of those that go on
        _passed(basis[index, step + 1][None], basis[index, : step + 1], size, spread)
        for index, size in zip(active.tolist(), own, strict=True)
    ]
    return torch.cat(each, dim=1)


def _passed(rows: Tensor, basis: Tensor, sizes: Tensor | None, spread: Spread) -> Tensor:
    """The same for rows in lockstep, by a third pass if need be."""
    passes = Passes(rows, basis, near=2, own=True, spread=spread)
    told = _told(passes, sizes)
    if told[3].any():
        passes.again()
        told = _told(passes, sizes)
    return told


def _told(passes: Passes, sizes: Tensor | None) -> Tensor:
    """Norms of remainders and of products, the last coefficients, and what was overlooked; one copy, (4, k)."""
    numbers = [passes.left, passes.before if sizes is None else sizes, passes.last, passes.overlooked]
    return torch.stack([found.to(numbers[0]) for found in numbers if found is not None]).double().cpu()


def gram_of(rows: Tensor, spread: Spread | None = None) -> Tensor:
    """Inner products of the rows in float64, without whole copies of long ones."""
    found = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for part in torch.split(rows, LONG, dim=1):
        wide = part.double()
        found.addmm_(wide, wide.T)
    return summed(found, spread)


def norms_of(rows: Tensor, spread: Spread | None = None) -> Tensor:
    """Euclidean norms of the rows on their device, summed in float64 where it has it."""
    wide = torch.float32 if rows.device.type == "mps" else torch.float64
    if rows.shape[-1] > LONG:  # each piece is copied in float64: of whole rows, that would be twice their size
        parts = [torch.linalg.vector_norm(part, dim=-1, dtype=wide) for part in pieces(rows)]
        rows = torch.stack(parts, dim=-1)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=wide)
    return norms if is_alone(spread) else summed(norms.square(), spread).sqrt()


def row_norms(rows: Tensor, spread: Spread | None = None) -> Tensor:
    """Euclidean norms of the rows, summed in float64 where the device has it; float64 on the CPU."""
    return norms_of(rows, spread).double().cpu()


def pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """A long vector, or the rows of a matrix, in parts: few on a GPU, which launches something for each."""
    found: tuple[Tensor, ...] = torch.split(tensor, PIECE if tensor.device.type == "cpu" else LONG, dim=-1)
    return found


def safe_norm(vector: Tensor, spread: Spread | None = None) -> float:
    """Euclidean norm of a vector whose squares may vanish or overflow; NaN if any entry is.

    Args:
        vector: Of any shape.
        spread: Over processes: then it is a piece, and what is found is the norm of all. Two sums.

    >>> safe_norm(torch.tensor([3e-30, 4e-30])) > 4.9e-30
    True
    """
    if not is_alone(spread):
        own = torch.tensor(safe_norm(vector), dtype=torch.float64)
        unit = summed(own, spread)  # at least the largest, and at most as many times it as there are processes
        return float(unit * summed((own / torch.where(unit == 0, 1, unit)).square(), spread).sqrt())
    if vector.numel() > LONG:  # without copies of the vector
        parts = torch.tensor([safe_norm(part) for part in pieces(vector.reshape(-1))], dtype=torch.float64)
        return safe_norm(parts)
    if not vector.numel():
        return 0.0
    most = vector.abs().max()
    found = torch.stack([most, (vector / torch.where(most == 0, 1, most)).norm()])
    largest, norm = found.cpu().tolist()  # one wait
    return float(largest * norm)


def inner(a: Tensor, b: Tensor, spread: Spread | None = None) -> float:
    """Inner product of two vectors in float64, without whole copies of long ones.

    Args:
        a: (n,).
        b: (n,).
        spread: Over processes: then both are pieces, and what is found is that of all.

    >>> inner(torch.ones(3), torch.tensor([1.0, 2.0, 3.0]))
    6.0
    """
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    pairs = zip(pieces(a), pieces(b), strict=True)
    found = float(reduce(torch.add, (x.to(wide) @ y.to(wide) for x, y in pairs)))  # a GPU is waited for once
    return found if is_alone(spread) else float(summed(torch.tensor(found, dtype=torch.float64), spread))


def scaled(rows: Tensor, norms: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Each row divided by its norm, in `out` if that is given."""
    return torch.div(rows, norms.to(rows.device, rows.dtype)[:, None], out=out)
