"""The gradient noise scale, from gradients of parts of the data: how many samples a batch is worth having."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hessdiag.curvature.sharded.gradient import gradient_here
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import spread_of, summed
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.batches.minibatches import divisible
from hessdiag.problem.problem import Problem
from hessdiag.questions.sharpness.result import Noise
from hessdiag.statistics.intervals import jackknife

PIECES = 16  # parts of the data, a product each;
PIECES_LARGE, LARGE = 8, 2**17  # so many where there are more parameters than this
FEWEST = 4  # with fewer, the jackknife says nothing
APART = 1e-3  # relative distance of the parts' mean gradient from that of all, beyond which they are no parts
TOLD = 2.0  # standard errors that the denominator has to be above zero
UNCUT = "the batches cannot be cut into equal parts: too few samples, or tensors that do not run over samples"
UNLIKE = "gradients of parts of the data do not add up to that of all: samples are no independent terms of the loss"
LOST = "the denominator is not above zero by two standard errors: noise covers the mean gradient, or nothing curves"


def noise(problem: Problem, operator: SymmetricOperator, seed: int) -> Noise:
    """How much gradients of samples differ, against their mean: McCandlish et al. 2018 (arXiv 1812.06162, section 2.2).

    With the gradients g_k of K equal parts of b samples, g_k'H g_k is G'HG + tr(H S) / b on average, and g_j'H g_k of
    two different parts G'HG, both without bias where H is known; errors are a jackknife's over the parts.

    Args:
        problem: Its batches are cut into parts.
        operator: Its Hessian, or what stands for it.
        seed: Of which samples go together.
    """
    parts = pieces(problem.data, seed, most_pieces(problem))
    if len(parts.each) < FEWEST:
        return Noise(why=UNCUT)
    own = [problem.like(data=part) for part in parts.each]
    counts = [1.0 if problem.loss_reduction == "sum" else part.averaged.count for part in own]
    whole = sum(counts) if problem.loss_reduction != "sum" else 1.0
    spread = spread_of(operator)
    rows = torch.stack(
        [gradient_here(part) * (len(own) * count / whole) for part, count in zip(own, counts, strict=True)]
    )
    if parts.cut:
        together = gradient_here(problem.like(data=list(parts.cut)))
        if not safe_norm(rows.mean(0) - together, spread) * len(own) <= APART * safe_norm(rows, spread):
            return Noise(why=UNLIKE)
    images = operator @ rows.T.to(operator.dtype)
    scale = estimated(summed(rows @ images.double(), spread), parts.samples)
    simple = estimated(summed(rows @ rows.T, spread), parts.samples)
    return Noise(
        scale=scale.value,
        scale_stderr=scale.stderr,
        at_least=scale.at_least,
        simple=simple.value,
        simple_stderr=simple.stderr,
        pieces=len(own),
        samples=parts.samples,
        why=None if scale.value is not None else LOST,
    )


def most_pieces(problem: Problem) -> int:
    """Into how many parts the data are cut, if they can be."""
    return PIECES if problem.n_parameters <= LARGE else PIECES_LARGE


class Pieces(NamedTuple):
    """Parts of the data.

    Attributes:
        each: Lists of batches, each of so many samples; none where the data cannot be cut.
        samples: In each.
        cut: What was cut into them, a batch from each batch; none where parts are of whole batches.
    """

    each: list[list[Any]]
    samples: int = 0
    cut: Sequence[Any] = ()


def pieces(data: Sequence[Any], seed: int, most: int = PIECES) -> Pieces:
    """Parts of the data of equally many samples, about `most` of them.

    >>> found = pieces([(torch.zeros(40, 3), torch.zeros(40))], 0)
    >>> len(found.each), found.samples, len(found.cut[0][0])
    (16, 2, 32)
    """
    source = torch.Generator().manual_seed(seed)
    sizes = [batches.samples(batch) for batch in data]
    usual, often = Counter(sizes).most_common(1)[0]
    if often >= most:
        same = [batch for batch, size in zip(data, sizes, strict=True) if size == usual]
        same = [same[index] for index in torch.randperm(often, generator=source).tolist()]
        length = often // most
        return Pieces([same[start : start + length] for start in range(0, length * most, length)], length * usual)
    of_each = min(-(-most // len(data)), min(sizes))
    samples = min(sizes) // of_each if of_each else 0
    if not samples or not all(divisible(batch, samples - 1) for batch in data):
        return Pieces([])
    found, cut = [], []
    for batch, size in zip(data, sizes, strict=True):
        order = torch.randperm(size, generator=source)[: samples * of_each]
        cut.append(batches.map_tensors(partial(_rows, order), batch))
        found += [[batches.map_tensors(partial(_rows, part), batch)] for part in torch.split(order, samples)]
    return Pieces(found, samples, cut)


def _rows(own: Tensor, tensor: Tensor) -> Tensor:
    return tensor[own.to(tensor.device)] if tensor.ndim else tensor


class Estimate(NamedTuple):
    """tr(H S) / G'HG.

    Attributes:
        value: `None` where G'HG may be zero.
        stderr: Of it.
        at_least: What it exceeds, where it is not known: with G'HG two standard errors larger; `None` where that says
            nothing.
    """

    value: float | None
    stderr: float | None = None
    at_least: float | None = None


def estimated(products: Tensor, samples: int) -> Estimate:
    """From g_j'H g_k of all parts, (K, K), and the samples in each.

    >>> estimated(torch.eye(8, dtype=torch.float64) + 1.0, 16).value  # G'HG = 1, and tr(H S) = 16
    16.0
    """
    found = products.double().cpu()
    n, diagonal = len(found), found.diagonal()
    sums, crosses = found.sum(), found.sum(0) + found.sum(1) - diagonal
    whole = _moments(diagonal.sum(), sums, n)
    left = _moments(diagonal.sum() - diagonal, sums - crosses, n - 1)
    own, below, error = float(whole[0]), float(whole[1]), _error(left[1])
    if below > TOLD * error:
        return Estimate(samples * (own / below - 1), samples * _error(left[0] / left[1]))
    most = below + TOLD * error
    return Estimate(None, at_least=samples * (own / most - 1) if own > most > 0 else None)


def _moments(trace: Tensor, total: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Means on the diagonal and off it."""
    return trace / n, (total - trace) / (n * (n - 1))


def _error(left: Tensor) -> float:
    return math.sqrt(jackknife(left.numpy()))
