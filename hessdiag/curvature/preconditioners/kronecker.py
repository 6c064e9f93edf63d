"""Preconditioners with Kronecker factors: K-FAC, EK-FAC, Shampoo and its squared form, and Adam in Shampoo's basis.

All approximate the Gauss-Newton blocks of linear and convolutional layers, from the same gradients (`moments`); other
parameters (norms, embeddings, biases that stand alone) have the diagonal. Shampoo and SOAP hold square roots, as the
optimizers of these names do.
"""

import torch
from torch import Tensor

from hessdiag.curvature.preconditioners.form import Part, Preconditioner
from hessdiag.curvature.preconditioners.moments import Moments
from hessdiag.curvature.preconditioners.roots import DRAWS

Basis = tuple[Tensor, Tensor]


def kfac(moments: Moments) -> Preconditioner:
    """K-FAC (Martens and Grosse 2015; Grosse and Martens 2016), with weight sharing expanded (Eschenhagen 2023).

    A layer's block is taken for the product of the mean of h h' and the sum of d d': exact for one linear layer with
    squared errors.
    """
    parts = []
    for own in moments.factors:
        (rows, U), (columns, V) = _spectrum(own.outputs), _spectrum(own.inputs)
        parts.append(Part(own.layer.places, torch.outer(rows, columns), U, V))
    return _with_rest("kfac", parts, moments, _factors_held(moments))


def ekfac(moments: Moments) -> Preconditioner:
    """EK-FAC (George et al. 2018): in the eigenbasis of K-FAC, the diagonal of the layer's block itself."""
    bases = [(_spectrum(own.outputs)[1], _spectrum(own.inputs)[1]) for own in moments.factors]
    return _in_basis("ekfac", bases, moments, 1.0)


def shampoo(moments: Moments) -> Preconditioner:
    """Shampoo (Gupta, Koren and Singer 2018): the fourth roots of the sums of g g' and g'g.

    Gradients are of single samples, as in Morwani et al. (2024, arXiv 2406.17748), and not of minibatches.
    """
    parts = []
    for own in moments.factors:
        (rows, U), (columns, V) = _spectrum(own.left), _spectrum(own.right)
        parts.append(Part(own.layer.places, torch.outer(rows**0.25, columns**0.25), U, V))
    return _with_rest("shampoo", parts, moments, _factors_held(moments), root=True)


def shampoo_squared(moments: Moments) -> Preconditioner:
    """Shampoo's, squared, over the trace: one power step to the best Kronecker product (arXiv 2406.17748).

    Rearranged so that Kronecker products have rank one, the block times vec(I) is L = sum of g g', and vec(I)' times it
    R = sum of g'g. L x R / tr L is that step's product, in the scale of the block.
    """
    parts = []
    for own in moments.factors:
        (rows, U), (columns, V) = _spectrum(own.left), _spectrum(own.right)
        trace = float(rows.sum()) or 1.0
        parts.append(Part(own.layer.places, torch.outer(rows, columns) / trace, U, V))
    return _with_rest("shampoo-squared", parts, moments, _factors_held(moments))


def soap(moments: Moments) -> Preconditioner:
    """SOAP (Vyas et al. 2024): the root of the mean squared gradient in the eigenbasis of Shampoo's factors."""
    bases = [(_spectrum(own.left)[1], _spectrum(own.right)[1]) for own in moments.factors]
    return _in_basis("soap", bases, moments, 0.5)


def ggn_diagonal(moments: Moments) -> Preconditioner:
    """The diagonal of the Gauss-Newton matrix."""
    parts = [Part(own.layer.places, own.squares) for own in moments.factors]
    return _with_rest("ggn-diagonal", parts, moments, sum(part.values.numel() for part in parts))


def _in_basis(name: str, bases: list[Basis], moments: Moments, exponent: float) -> Preconditioner:
    pairs = zip(moments.factors, bases, moments.squares(bases), strict=True)
    parts = [Part(own.layer.places, squares**exponent, U, V) for own, (U, V), squares in pairs]
    held = _factors_held(moments) + sum(part.values.numel() for part in parts)
    return _with_rest(name, parts, moments, held, root=exponent < 1)


def _with_rest(name: str, parts: list[Part], moments: Moments, held: int, *, root: bool = False) -> Preconditioner:
    """With the diagonal of all parameters that have no factors."""
    rest = moments.rest
    if len(rest):
        squares = moments.rest_squares
        parts = [*parts, Part(rest, squares.sqrt() if root else squares)]
    notes = (f"the diagonal beside the factors is a mean over {DRAWS} random gradients",) if moments.rest_drawn else ()
    return Preconditioner(name, tuple(parts), held + len(rest), root, notes)


def _factors_held(moments: Moments) -> int:
    """Numbers in two square matrices a layer."""
    return sum(own.outputs.numel() + own.inputs.numel() for own in moments.factors)


def _spectrum(factor: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, without what rounding makes negative, and eigenvectors."""
    values, vectors = torch.linalg.eigh((factor + factor.T) / 2)
    return values.clamp(min=0), vectors
