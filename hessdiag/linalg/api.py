"""The public solvers and estimators: numerics on any symmetric operator, with its form and symmetry checked first.

Each takes anything with `shape`, `dtype`, `device` and `@`: a tensor, an operator of this library, of another, or your
own. It must be real and symmetric, which two products with random vectors check. Products in half precision are
taken as they are, and everything else is computed in float32.

An operator whose attribute `spread` says that its vectors are spread over processes takes and gives pieces of them; so
do the functions below, which every process calls alike. All numbers are then the same on each.
"""

import torch

from hessdiag.linalg import diagonals, discs, estimators, sketches
from hessdiag.linalg.adapted import adapted
from hessdiag.linalg.densities import Density
from hessdiag.linalg.diagonals import DiagonalEstimate
from hessdiag.linalg.discs import Discs
from hessdiag.linalg.eigenpairs import Eigenpairs
from hessdiag.linalg.eigensolver import BLOCK, extreme_eigenpairs
from hessdiag.linalg.estimators import Estimate, refuse_less
from hessdiag.linalg.inclusion import LEAST_PROBES
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.quadrature import spectral_density
from hessdiag.linalg.spread import Spread, is_alone
from hessdiag.linalg.tridiagonal import Tridiagonal, tridiagonalize


def lanczos(operator: SymmetricOperator, start: torch.Tensor, steps: int, *, keep_basis: bool = False) -> Tridiagonal:
    """Reduce an operator to tridiagonal form on the Krylov space of a vector, or of several in lockstep.

    Lanczos (1950), with every vector orthogonalized against all before it, twice (Daniel, Gragg, Kaufman and Stewart
    1976).

    Args:
        operator: Real and symmetric, (n, n).
        start: Start vectors of any length, (n,) or (n, k). A zero vector takes no steps.
        steps: m, the most steps, each a product; a vector whose Krylov space is exhausted takes fewer.
        keep_basis: Return the Lanczos vectors Q too, (k, n, m).

    Returns:
        For each start vector `alphas` (k, m), `betas` (k, m) and `steps` (k,); `.matrix(i)` is T = Q'AQ.

    Raises:
        TypeError: if the operator is none, or not of real numbers.
        ValueError: if it is not square, symmetric and finite, the start vectors do not fit, or `steps` is not positive.

    >>> A = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    >>> T = lanczos(A, torch.ones(4), 3).matrix()
    >>> T.diagonal(), torch.linalg.eigvalsh(T)
    (tensor([2.5000, 2.5000, 2.5000], dtype=torch.float64), tensor([1.0682, 2.5000, 3.9318], dtype=torch.float64))
    """
    A = adapted(operator)
    if start.ndim not in (1, 2) or start.shape[0] != A.spread.own:
        raise ValueError(
            f"start vectors of shape {tuple(start.shape)} do not fit an operator of shape {A.shape}{_own(A.spread)}"
        )
    refuse_less("steps", steps, 1)
    return tridiagonalize(A, start, steps, keep_basis=keep_basis)


def eigsh(
    operator: SymmetricOperator,
    *,
    lowest: int = 5,
    highest: int = 5,
    tol: float = 1e-3,
    max_basis: int | None = None,
    max_products: int | None = None,
    block: int = BLOCK,
    seed: int | None = 0,
) -> Eigenpairs:
    """Compute the lowest and the highest eigenpairs of an operator, both in one Krylov space.

    Block Lanczos with thick restarts (Wu and Simon 2000) and full reorthogonalization. Residuals are true ones,
    |A v - theta v|. Small operators (n up to a few times what is wanted) are formed, and solved by LAPACK.

    Args:
        operator: Real and symmetric, (n, n).
        lowest: Pairs wanted at the lower end.
        highest: Pairs wanted at the upper end.
        tol: Residual to reach, relative to the eigenvalue. The eigenvalue's own error is about its square.
        max_basis: Most vectors of n numbers held, with as many images. Default: 400.
        max_products: Where to give up. Default: 20 n.
        block: Vectors per product. One takes fewer products, and cannot notice repeated eigenvalues.
        seed: Of the start vectors; `None` for fresh randomness.

    Returns:
        `values` (k,) ascending, `vectors` (n, k), `residuals` and `converged` (k,), the first `lowest` and the last
        `highest` of them; what has not converged is a bound of the eigenvalue of its rank.

    Raises:
        TypeError: if the operator is none, or not of real numbers.
        ValueError: if it is not square, symmetric and finite, nothing is wanted, or a number is out of range.

    >>> A = torch.diag(torch.arange(1.0, 501.0, dtype=torch.float64))
    >>> pairs = eigsh(A, lowest=1, highest=2, tol=1e-8)
    >>> pairs.values, pairs.vectors.shape, bool(pairs.converged.all())
    (tensor([  1.0000, 499.0000, 500.0000], dtype=torch.float64), torch.Size([500, 3]), True)
    """
    A = adapted(operator)
    if not 0 < tol < 1:
        raise ValueError(f"tol is a relative residual between 0 and 1, not {tol}")
    for name, value in (("max_basis", max_basis), ("max_products", max_products), ("block", block)):
        if value is not None:
            refuse_less(name, value, 1)
    return extreme_eigenpairs(
        A,
        lowest=lowest,
        highest=highest,
        tol=tol,
        max_basis=max_basis,
        max_products=max_products,
        block=block,
        seed=torch.Generator().seed() if seed is None else seed,
        precision=A.precision,
    )


def slq(
    operator: SymmetricOperator,
    *,
    probes: int = 10,
    steps: int = 80,
    seed: int | None = None,
    deflate: tuple[torch.Tensor, torch.Tensor] | None = None,
    width: float | None = None,
) -> Density:
    """Estimate the distribution of the eigenvalues by stochastic Lanczos quadrature.

    Ubaru, Chen and Saad (2017); outliers taken out as by Papyan (2019); errors from the spectrum itself, see
    [how often intervals cover](../concepts/errors.md).

    Args:
        operator: Real and symmetric, (n, n).
        probes: k random vectors, at least 2. They hold k (m + 1) n numbers.
        steps: m Lanczos steps from each.
        seed: `None` for fresh randomness.
        deflate: Converged eigenvalues (r,) and eigenvectors (n, r), such as those of `eigsh`: they are taken out of
            the random part, and put back exactly.
        width: Of the Gaussian that `density` smooths with. Default: about the distance of quadrature nodes.

    Returns:
        The quadratures: `nodes` and `weights` (k, m), and from them `.moments()`, `.density(grid)`, `.share(low,
        high)`, `.mean(f)` for (1 / n) tr f(A), each with standard error and 95 % interval.

    Raises:
        TypeError: if the operator is none, or not of real numbers.
        ValueError: if it is not square, symmetric and finite, or a number is out of range.

    >>> A = torch.diag(torch.linspace(0, 1, 200, dtype=torch.float64))
    >>> density = slq(A, probes=20, steps=30, seed=0)
    >>> mean = density.moments(1)  # tr A / n = 1 / 2
    >>> bool(mean.low[0] < 0.5 < mean.high[0]), density.products
    (True, 600)
    """
    A = adapted(operator)
    refuse_less("probes", probes, 2)
    refuse_less("steps", steps, 1)
    if deflate is not None:
        n, (values, vectors) = A.spread.own, deflate
        if values.ndim != 1 or tuple(vectors.shape) != (n, len(values)) or len(values) >= A.shape[0]:
            raise ValueError(
                f"deflate takes r eigenvalues and vectors ({n}, r) with r < {A.shape[0]}, not {tuple(values.shape)} "
                f"and {tuple(vectors.shape)}"
            )
    return spectral_density(A, probes=probes, steps=steps, seed=seed, deflate=deflate, width=width)


def trace(operator: SymmetricOperator, products: int, seed: int | None = None, *, sketch: int = 0) -> Estimate:
    """Estimate the trace by random signs, exactly on the range of a sketch and by chance on the rest.

    Hutchinson (1990); with a sketch Hutch++ (Meyer, Musco, Musco and Woodruff 2021).

    Args:
        operator: Real and symmetric, (n, n).
        products: How many to spend. With n or more, the trace is exact.
        seed: `None` for fresh randomness.
        sketch: Random vectors whose range is taken exactly; each costs two of the products. A quarter of them is right
            where a few eigenvalues hold most.

    Returns:
        `value`, `stderr` (0 if exact), `interval` and `products`. Intervals hold the truth in 93 to 97 of 100 cases
        from ten random vectors on; those of two to six are too narrow where few eigenvalues hold most.

    Raises:
        TypeError: if the operator is none, or not of real numbers.
        ValueError: if it is not square, symmetric and finite, or the sketch leaves fewer than two products.

    >>> A = torch.outer(torch.arange(100.0), torch.arange(100.0)).double()  # of rank one
    >>> found = trace(A, 10, seed=0, sketch=2)
    >>> round(found.value, 3), found.stderr < 1e-6
    (328350.0, True)
    """
    return estimators.trace(adapted(operator), products, seed, sketch=sketch)


def frobenius(operator: SymmetricOperator, products: int, seed: int | None = None, *, sketch: int = 0) -> Estimate:
    """Estimate the Frobenius norm from |A v|^2 of random signs v, exactly on the range of a sketch.

    Bujanovic and Kressner (2021) on the estimate; the variance from pairs of the same products.

    Args:
        operator: Real and symmetric, (n, n).
        products: As in `trace`.
        seed: As in `trace`.
        sketch: As in `trace`.

    Returns:
        As in `trace`; of the norm, not of its square.

    Raises:
        TypeError: if the operator is none, or not of real numbers.
        ValueError: if it is not square, symmetric and finite, or the sketch leaves fewer than two products.

    >>> A = torch.outer(torch.arange(100.0), torch.arange(100.0)).double()
    >>> round(frobenius(A, 10, seed=0, sketch=2).value, 3)
    328350.0
    """
    return sketches.frobenius(adapted(operator), products, seed, sketch=sketch)


def diagonal(
    operator: SymmetricOperator, products: int, seed: int | None = None, *, sketch: int = 0
) -> DiagonalEstimate:
    """Estimate the diagonal by random signs, exactly on the range of a sketch and by chance on the rest.

    Bekas, Kokiopoulou and Saad (2007). Sums of squares of estimates are too large by their variances: for the
    diagonal's share of a Hessian see `hessdiag.diag_share`, which takes exact rows.

    Args:
        operator: Real and symmetric, (n, n).
        products: As in `trace`. Of a tensor, the diagonal is taken as it is, at none.
        seed: As in `trace`.
        sketch: As in `trace`.

    Returns:
        `values`, `stderr` (0 if exact) and both ends of `interval`, float64 (n,) each, and `products`.

    Raises:
        TypeError: if the operator is none, or not of real numbers.
        ValueError: if it is not square, symmetric and finite, or the sketch leaves fewer than two products.

    >>> diagonal(torch.tensor([[2.0, 1.0], [1.0, 3.0]]), 2).values
    tensor([2., 3.], dtype=torch.float64)
    """
    return diagonals.diagonal(adapted(operator), products, seed, sketch=sketch)


def gershgorin(operator: SymmetricOperator, products: int | None = None, seed: int | None = None) -> Discs:
    """Bound all eigenvalues by Gershgorin's discs, from every column or from random products.

    Gershgorin (1931), Brauer (1947); the sketch of all row sums by Cauchy vectors after Indyk (2006).

    Args:
        operator: Real and symmetric, (n, n).
        products: How many to spend on estimates of all radii, at least 3. Default: n, for exact ones.
        seed: Of the estimates; `None` for fresh randomness.

    Returns:
        `centres` and `radii` (n,) with their `relative_stderr`; from them `interval`, the tighter `brauer`, and the
        connected `components` with the number of eigenvalues in each.

    Raises:
        TypeError: if the operator is none, or not of real numbers.
        ValueError: if it is not square, symmetric and finite, its vectors are spread over processes, or `products` is
            less than 3.

    >>> found = gershgorin(torch.tensor([[4.0, 1.0, 0.0], [1.0, -2.0, 0.5], [0.0, 0.5, 9.0]]))
    >>> found.interval, [part.count for part in found.components]
    ((-3.5, 9.5), [1, 1, 1])
    """
    A = adapted(operator)
    if not is_alone(A.spread):
        raise ValueError("Gershgorin's discs take whole columns, and these are spread over processes.\n  try: eigsh(A)")
    if products is not None:
        refuse_less("products", products, LEAST_PROBES)
    return discs.discs(A, products, seed)


def _own(spread: Spread) -> str:
    return "" if is_alone(spread) else f", of whose vectors this process has {spread.own:,} numbers"
