"""Lanczos tridiagonalization with full reorthogonalization, of several start vectors in lockstep."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.machine import capacity
from hessdiag.machine.arithmetic import ieee

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
        operator: Symmetric, (n, n).
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
    k, n = rows.shape
    m = min(steps, n)
    new = torch.zeros if keep_basis else torch.empty  # which takes memory as it fills
    basis = new(k, m + 1, n, dtype=operator.dtype, device=operator.device)
    alphas, betas = torch.zeros(k, m, dtype=torch.float64), torch.zeros(k, m, dtype=torch.float64)
    taken = torch.zeros(k, dtype=torch.int64)
    norms = row_norms(rows)
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
        sizes = norms_of(products)
        # Copied to where the next vectors come, and orthogonalized there: long ones then need no fresh memory.
        basis[at, step + 1] = products
        del products
        if every:
            passes = Passes(basis[:, step + 1], basis[:, : step + 1], near=2, own=True)
            norms, sizes, last, overlooked = _told(passes, sizes)
            if overlooked.any():
                passes.again()
                norms, sizes, last, _ = _told(passes, sizes)
        else:  # one by one, without a copy of the bases of those that go on
            parts = [
                orthogonalize(basis[index, step + 1][None], basis[index, : step + 1], near=2, own=True)
                for index in active.tolist()
            ]
            last = torch.cat([found[:, step] for _, found in parts]).double().cpu()
            norms = torch.cat([row_norms(following) for following, _ in parts])
        scale[at] = torch.maximum(scale[at], sizes.double().cpu())
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

    Args:
        vectors: Rows, (b, n).
        basis: One for all, (m, n), or one for each row, (b, m, n).
        near: See `orthogonalize`.
        own: See there.

    Attributes:
        first: What the first pass subtracted of the last `near` rows, (..., near).
        second: What the others did of all, (..., m).
    """

    def __init__(self, vectors: Tensor, basis: Tensor, near: int | None, *, own: bool) -> None:
        if basis.ndim == 2 and capacity.of(basis.device).gathers:
            self._known, rows = basis, vectors
        else:
            self._known, rows = basis.expand(len(vectors), *basis.shape[-2:]), vectors[:, None]
        close = self._known if near is None else self._known[..., -near:, :]
        self._rest, self.first = _subtracted(rows, close, own=own)
        self._rest, self.second = _subtracted(self._rest, self._known, own=True)

    @property
    def remainder(self) -> Tensor:
        """What is left, (b, n)."""
        return self._rest if self._known.ndim == 2 else self._rest[:, 0]

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
        found: Tensor = self.second.norm(dim=-1) > self._rest.norm(dim=-1)
        return found.flatten()

    def again(self) -> None:
        """A third pass."""
        self._rest, again = _subtracted(self._rest, self._known, own=True)
        self.second += again


def orthogonalize(
    vectors: Tensor, basis: Tensor, near: int | None = None, *, own: bool = False
) -> tuple[Tensor, Tensor]:
    """Subtract from each of b rows what lies in the span of the orthonormal rows of a basis, in two passes.

    Args:
        vectors: Rows, (b, n).
        basis: One for all, (m, n), or one for each row, (b, m, n).
        near: How many of the basis's last rows hold all that is there to subtract, but for errors. The first pass
            leaves the others out: what a Lanczos step should find there is zero. Where it finds more than remains, as
            with products that are noisy, a third pass follows. Default: all.
        own: Whether the remainder may take the place of `vectors`: long ones need no fresh pages then.

    Returns:
        The remainder (b, n), and the coefficients (b, m) that were subtracted.

    >>> orthogonalize(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    (tensor([[0., 4.]]), tensor([[3.]]))
    """
    passes = Passes(vectors, basis, near, own=own)
    if near is not None and bool(passes.overlooked.any()):
        passes.again()
    return passes.remainder, passes.coefficients


def _subtracted(rows: Tensor, known: Tensor, *, own: bool) -> tuple[Tensor, Tensor]:
    """One pass of Gram-Schmidt: what is left, in place of `rows` if they may be written to, and its coefficients.

    On a CPU a product for each row: one matrix product with two or three rows takes as long, and on one core.
    """
    if known.ndim == 2:
        coefficients = rows @ known.T
        return (rows.addmm_ if own else rows.addmm)(coefficients, known, alpha=-1), coefficients
    coefficients = torch.bmm(rows, known.mT)
    return (rows.baddbmm_ if own else rows.baddbmm)(coefficients, known, alpha=-1), coefficients


def _told(passes: Passes, sizes: Tensor) -> Tensor:
    """Norms of remainders and of products, the last coefficients, and what was overlooked; one copy, (4, k)."""
    numbers = [norms_of(passes.remainder), sizes, passes.last, passes.overlooked]
    return torch.stack([found.to(numbers[0]) for found in numbers]).double().cpu()


def norms_of(rows: Tensor) -> Tensor:
    """Euclidean norms of the rows on their device, summed in float64 where it has it."""
    wide = torch.float32 if rows.device.type == "mps" else torch.float64
    if rows.shape[-1] > LONG:  # each piece is copied in float64: of whole rows, that would be twice their size
        parts = [torch.linalg.vector_norm(part, dim=-1, dtype=wide) for part in _pieces(rows)]
        rows = torch.stack(parts, dim=-1)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=wide)
    return norms


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms of the rows, summed in float64 where the device has it; float64 on the CPU."""
    return norms_of(rows).double().cpu()


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """A long vector, or the rows of a matrix, in parts: few on a GPU, which launches something for each."""
    found: tuple[Tensor, ...] = torch.split(tensor, PIECE if tensor.device.type == "cpu" else LONG, dim=-1)
    return found


def safe_norm(vector: Tensor) -> float:
    """Euclidean norm of a vector whose squares may vanish or overflow; NaN if any entry is.

    >>> safe_norm(torch.tensor([3e-30, 4e-30])) > 4.9e-30
    True
    """
    if vector.numel() > LONG:  # without copies of the vector
        parts = torch.tensor([safe_norm(part) for part in _pieces(vector.reshape(-1))], dtype=torch.float64)
        return safe_norm(parts)
    if not vector.numel():
        return 0.0
    most = vector.abs().max()
    found = torch.stack([most, (vector / torch.where(most == 0, 1, most)).norm()])
    largest, norm = found.cpu().tolist()  # one wait
    return float(largest * norm)


def inner(a: Tensor, b: Tensor) -> float:
    """Inner product of two vectors in float64, without whole copies of long ones.

    >>> inner(torch.ones(3), torch.tensor([1.0, 2.0, 3.0]))
    6.0
    """
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    pairs = zip(_pieces(a), _pieces(b), strict=True)
    return sum(float(x.to(wide) @ y.to(wide)) for x, y in pairs)


def scaled(rows: Tensor, norms: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Each row divided by its norm, in `out` if that is given."""
    return torch.div(rows, norms.to(rows.device, rows.dtype)[:, None], out=out)
