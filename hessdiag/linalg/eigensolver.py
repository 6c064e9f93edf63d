"""Both ends of the spectrum of a symmetric operator: block Lanczos with thick restarts, in one Krylov space."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.linalg.eigenpairs import ROUNDING, Eigenpairs, dense_eigenpairs, ends
from hessdiag.linalg.estimators import formed
from hessdiag.linalg.krylov import KrylovSpace
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.outlook import Outlook, ahead
from hessdiag.linalg.spread import Spread, interruptible, is_alone, spread_of
from hessdiag.linalg.tridiagonal import row_norms
from hessdiag.machine.arithmetic import ieee
from hessdiag.machine.work import Work

Progress = Callable[[int, int], None]  # products, pairs that have converged
Arrays = Mapping[str, NDArray[Any]]

BLOCK = 2  # the fewest vectors that tell a repeated eigenvalue from a simple one
LARGEST_BASIS = 400  # beyond this, orthogonalization costs more than the products that it saves
KEEP = 0.5  # fraction of the free places in the basis that a restart fills with neighbours of the wanted pairs
CHECK_EVERY = 0.05  # growth of the basis between two looks at its Ritz pairs,
CHECK_EVERY_AFAR = 0.15  # and while a residual is still ten times too large
ALIKE = 0.1  # Ritz values closer than this fraction of their residuals are copies of one eigenvalue


class Kept(Protocol):
    """Where the state of an iteration is kept, so that one that ended early goes on."""

    arrays: Arrays

    def save(self, units: int, arrays: Callable[[], Arrays], /) -> None:
        """Keep the state, if it is time; `units` of work are in it."""


def smallest_basis(lowest: int, highest: int) -> int:
    """The fewest vectors with which the iteration works well: the wanted pairs, and four blocks of the widest kind.

    >>> smallest_basis(5, 5)
    30
    """
    return lowest + highest + 4 * max(lowest, highest, BLOCK)


@ieee()
def extreme_eigenpairs(
    operator: SymmetricOperator,
    *,
    lowest: int,
    highest: int,
    tol: float = 1e-3,
    max_basis: int | None = None,
    max_products: int | None = None,
    block: int = BLOCK,
    seed: int = 0,
    precision: float | None = None,
    images: bool = True,
    progress: Progress | None = None,
    foresee: Callable[[Outlook], None] = lambda outlook: None,
    kept: Kept | None = None,
) -> Eigenpairs:
    """Compute the lowest and the highest eigenpairs from products with the operator.

    Block Lanczos from a random block with thick restarts (Wu and Simon 2000) and full reorthogonalization; converged
    pairs stay in the basis, so that neither is found twice. Where a wanted eigenvalue comes as often as the block is
    wide, there may be more copies than a block of that width can see: it is then widened to max(lowest, highest), which
    sees all that are wanted, and as many steps again are taken. A block of one saves about a quarter of the products
    and cannot notice copies. The pairs are those of the smallest and largest Ritz values: as with any Krylov method, an
    eigenvector to which the random start is all but orthogonal can be missed.

    Args:
        operator: Symmetric, (n, n).
        lowest: Pairs wanted at the lower end.
        highest: Pairs wanted at the upper end.
        tol: Residual to reach, relative to |theta|; below 32 |A| times `precision` noise rules, and that will do.
        max_basis: Most vectors in the basis, but at least `smallest_basis`. Default: 400, or n.
        max_products: Where to give up. Default: 20 n.
        block: Vectors per product, at the start.
        seed: Of the start.
        precision: Relative error of the operator's products. Default: the rounding of its dtype.
        images: Hold as many images beside the basis. Without, half the memory does, the true residuals take a product
            each, and after an interrupt the residuals are those of the recurrence, true up to rounding.
        progress: Called with (products, converged pairs).
        foresee: Called before with what residuals say of the way that is left.
        kept: Where the iteration's state is kept from time to time, and where it goes on from.

    Returns:
        The pairs. Small matrices (n at most three smallest bases) are formed, and their whole spectrum is computed.
        After a keyboard interrupt, the Ritz pairs at that time, but where vectors are spread over processes, of which
        none may stop alone: then it ends them all.

    Raises:
        ValueError: if nothing is wanted.

    >>> A = torch.diag(torch.arange(1.0, 501.0, dtype=torch.float64))
    >>> pairs = extreme_eigenpairs(A, lowest=1, highest=2)
    >>> pairs.values.round(decimals=3), bool(pairs.converged.all()), pairs.products < 500
    (tensor([  1., 499., 500.], dtype=torch.float64), True, True)
    """
    n, spread = operator.shape[0], spread_of(operator)
    lowest, highest = min(lowest, n), min(highest, n)
    smallest = smallest_basis(lowest, highest)
    if min(lowest, highest) < 0 or lowest + highest == 0:
        raise ValueError(f"{lowest} lowest and {highest} highest pairs cannot be computed")
    if n <= 3 * smallest:
        matrix = formed(operator)
        return dense_eigenpairs(matrix, lowest=lowest, highest=highest, tol=tol, precision=precision, spread=spread)
    widest = max(lowest, highest, block)
    capacity = min(max(max_basis or LARGEST_BASIS, smallest), n)
    space = KrylovSpace(operator, capacity, block, widest, seed, precision, images)
    limit = max_products or 20 * n
    try:
        report = progress or (lambda products, converged: None)
        return _iterate(space, lowest, highest, tol, limit, widest, report, foresee, kept)
    except KeyboardInterrupt:
        if not space.size or not interruptible(spread):
            raise
        return _pairs(space, lowest, highest, tol, interrupted=True)


def _iterate(
    space: KrylovSpace,
    lowest: int,
    highest: int,
    tol: float,
    limit: int,
    widest: int,
    report: Progress,
    foresee: Callable[[Outlook], None],
    kept: Kept | None,
) -> Eigenpairs:
    """Grow and restart the space until the wanted pairs have converged, rounding forbids more, or the limit is reached.

    A true residual is formed only once its estimate has passed.
    """
    look, steps, wait = 0, 0, 0
    looks: list[tuple[int, float]] = []  # how residuals fell
    if kept is not None:
        if _alike(kept.arrays, space.spread):
            space.resume(kept.arrays)
            look, steps, wait = kept.arrays["loop"].tolist()
        kept.arrays = {}  # as large as the space, which has it now
    while space.size < space.n and space.products < limit:
        if kept is not None and steps:
            loop = np.array([look, steps, wait])
            kept.save(space.products, lambda loop=loop: space.state() | {"loop": loop})  # type: ignore[misc]
        full = not space.grow()
        steps += 1
        if not full and (space.size < look or space.size < lowest + highest):
            continue
        values, vectors, estimates = space.ritz()
        wanted = ends(len(values), lowest, highest)
        rounding = ROUNDING * space.precision * space.norm
        allowed = (tol * values[wanted].abs()).clamp(min=rounding)
        passed = estimates[wanted] <= allowed
        afar = bool((estimates[wanted] > 10 * allowed).any())
        look = space.size + int((CHECK_EVERY_AFAR if afar else CHECK_EVERY) * space.size)
        worst = float((estimates[wanted] / allowed).max()) if bool((allowed > 0).all()) else math.inf
        looks.append((space.products, math.log(worst) if 0 < worst < math.inf else 0.0))
        certain = (wait - steps) * space.block if passed.all() else 0
        foresee(_outlook(space, looks, certain, limit, len(wanted)))
        report(space.products, int(passed.sum()))
        if passed.all() and steps >= wait:
            pairs = _pairs(space, lowest, highest, tol)
            if bool((pairs.converged | (estimates[wanted] <= space.precision * space.norm)).all()):
                copies = _most_copies(values[wanted], ALIKE * estimates[wanted] + rounding)
                if copies < space.block or space.block in (1, widest):
                    return pairs
                space.widen(widest)
                wait = 2 * steps
        if full:
            unsettled = estimates > tol * values.abs()
            staying = _kept(unsettled, space.room, lowest, highest)
            space.restart(values[staying], vectors[:, staying])
            look = 0
    return _pairs(space, lowest, highest, tol)


def _alike(arrays: Arrays, spread: Spread) -> bool:
    """Whether there is a state, and all processes that hold a piece of it kept the same: else they start anew."""
    if is_alone(spread):
        return bool(arrays)
    products = float(arrays["counts"][1]) if arrays else 0.0
    count, total, squares = spread.summed(torch.tensor([1.0, products, products**2], dtype=torch.float64)).tolist()
    return bool(total > 0 and count * squares == total**2)


def _outlook(space: KrylovSpace, looks: list[tuple[int, float]], certain: int, limit: int, pairs: int) -> Outlook:
    """How far the end is: so many products where that is certain, or as residuals fall, but not beyond the limit."""

    def way(products: float) -> Work:
        products = max(min(products, limit - space.products), 0)
        return Work(products, space.traffic(products)) + space.finish(pairs)

    found = (float(certain), float(certain)) if certain > 0 else ahead(looks)
    return Outlook(space.passed, found and (way(found[0]), way(found[1])), way(0), way(limit))


def _pairs(space: KrylovSpace, lowest: int, highest: int, tol: float, *, interrupted: bool = False) -> Eigenpairs:
    """The wanted Ritz pairs with their true residuals."""
    lowest, highest = min(lowest, space.size), min(highest, space.size)
    _, vectors, _ = space.ritz()
    wanted = vectors[:, ends(space.size, lowest, highest)]
    rows, done = space.combine(wanted), 0
    values, residuals = torch.zeros(2, len(rows), dtype=torch.float64)
    for images in space.images(wanted, rows, multiply=not interrupted):
        mine = slice(done, done + len(images))
        norms = row_norms(rows[mine], space.spread).to(rows.device, rows.dtype)[:, None]
        rows[mine] /= norms
        images = images.div_(norms)
        values[mine] = space.spread.summed((rows[mine] * images).sum(1).double()).cpu()
        residuals[mine] = row_norms(images.sub_(values[mine].to(rows)[:, None] * rows[mine]), space.spread)
        done += len(images)
    if bool((values.diff() < 0).any()):
        values, order = values.sort()
        rows, residuals = rows[order.to(rows.device)], residuals[order]
    rounding = ROUNDING * space.precision * space.norm
    return Eigenpairs(
        values=values,
        vectors=rows.T,
        residuals=residuals,
        converged=residuals <= (tol * values.abs()).clamp(min=rounding),
        lowest=lowest,
        highest=highest,
        rounding=rounding,
        products=space.products,
        basis=space.largest,
        restarts=space.restarts,
        spectrum=None,
        interrupted=interrupted,
        ritz_range=space.ritz_range,
    )


def _kept(unsettled: Tensor, room: int, lowest: int, highest: int) -> Tensor:
    """Places of the Ritz pairs that survive a restart: the wanted, and neighbours of those that have not converged."""
    spare = int(KEEP * (room - lowest - highest))
    low, high = bool(unsettled[:lowest].any()), bool(unsettled[len(unsettled) - highest :].any())
    below = spare // 2 if low == high else spare if low else 0
    return ends(len(unsettled), lowest + below, highest + spare - below)


def _most_copies(values: Tensor, blur: Tensor) -> int:
    """Length of the longest run of ascending values that cannot be told apart.

    >>> _most_copies(torch.tensor([1.0, 2.0, 2.01, 3.0]), torch.full((4,), 0.01))
    2
    """
    longest = run = 1
    for apart in (values.diff() > blur[1:] + blur[:-1]).tolist():
        run = 1 if apart else run + 1
        longest = max(longest, run)
    return longest
