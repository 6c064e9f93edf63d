"""Second moments of the gradients that the Gauss-Newton matrix is made of, layer by layer, in one pass.

With the loss's curvature in the output as B = sum_c s_c s_c' (`roots`), G = sum over samples n and c of g_nc g_nc',
where g_nc is s_c sent back from sample n. Of a layer that multiplies inputs h by a matrix at positions t, with slopes d
of what it puts out, g_nc is the matrix sum_t d_nct h_nt'. All factors are sums over these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hessdiag.curvature.gauss_newton import GaussNewtonOperator, gauss_newton
from hessdiag.curvature.preconditioners.layers import MatrixLayer, matrix_layers, slopes_of, watched
from hessdiag.curvature.preconditioners.roots import DRAWS, NoRootError, roots
from hessdiag.curvature.pullback import batched_grad
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.problem import Problem

NUMBERS = 2**23  # of gradients that are held at a time
AT_ONCE = 16  # roots that share a backward pass
REST_EXACT = 500  # parameters without factors, up to which each takes a product

Turn = tuple[Tensor, Tensor]  # bases of outputs and inputs
Gradients = tuple[MatrixLayer, Tensor, Tensor]  # inputs (samples, positions, a), slopes (k, samples, positions, b)


@dataclass(frozen=True)
class Factors:
    """Of one layer of b outputs and a inputs, the bias counted among these; with the loss's own weights of samples.

    Attributes:
        layer: Which.
        inputs: Mean of h h' over samples and positions, (a, a).
        outputs: Sum of d d' over samples, positions and roots, (b, b); with `inputs`, the factors of K-FAC (expand).
        left: Sum of g g' over samples and roots, (b, b).
        right: Sum of g'g, (a, a); with `left`, the factors of Shampoo.
        squares: Sum of g * g, (b, a): the diagonal of the layer's block.
    """

    layer: MatrixLayer
    inputs: Tensor
    outputs: Tensor
    left: Tensor
    right: Tensor
    squares: Tensor


class Moments:
    """The moments of a problem's Gauss-Newton gradients.

    Args:
        problem: With a loss of the output.
        seed: Of random signs, where they are needed.

    Attributes:
        layers: Those with factors.
        rest: Places of all other parameters, (m,).
        sharing: Whether some layer's matrix is used at several positions of a sample.
        draws: How many random gradients stand for those of each sample; `None` where all were taken.
        rest_drawn: Whether the diagonal of the rest was drawn.

    Raises:
        NoRootError: if the loss's curvature has no root that is known.
    """

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        self.problem, self._seed = problem.as_written(), seed
        if problem.loss_of_output is None:
            raise NoRootError(problem.why_no_loss_of_output)
        self.layers = matrix_layers(problem)
        self.sharing, self.rest_drawn = False, False
        self.draws: int | None = None
        self.factors = self._factors()
        free = torch.ones(problem.n_parameters, dtype=torch.bool)
        for layer in self.layers:
            free[layer.places.flatten().cpu()] = False
        self.rest = torch.nonzero(free)[:, 0].to(problem.device)

    def _factors(self) -> tuple[Factors, ...]:
        sums: dict[str, list[Tensor]] = {}
        positions: dict[str, int] = {}
        first: dict[tuple[str, int], bool] = {}
        for batch, (layer, h, d) in self._gradients():
            new = [torch.einsum("kntb,kntc->bc", d, d), *_moments(h, d)]
            if (layer.name, batch) not in first:  # inputs are the same for all roots
                first[layer.name, batch] = True
                positions[layer.name] = positions.get(layer.name, 0) + h.shape[0] * h.shape[1]
                inputs = torch.einsum("nta,ntc->ac", h, h)
            else:
                inputs = h.new_zeros(h.shape[2], h.shape[2])
            self.sharing = self.sharing or h.shape[1] > 1
            new.insert(0, inputs)
            sums[layer.name] = (
                new if layer.name not in sums else [x + y for x, y in zip(sums[layer.name], new, strict=True)]
            )
        self.layers = tuple(layer for layer in self.layers if layer.name in sums)
        return tuple(
            Factors(layer, sums[layer.name][0] / positions[layer.name], *sums[layer.name][1:]) for layer in self.layers
        )

    def squares(self, turns: Sequence[Turn]) -> list[Tensor]:
        """Sum of squares of U'gV over samples and roots, (b, a), with bases (U, V) for each layer."""
        of = {layer.name: turn for layer, turn in zip(self.layers, turns, strict=True)}
        sums = {name: U.new_zeros(len(U), len(V)) for name, (U, V) in of.items()}
        for _, (layer, h, d) in self._gradients():
            if layer.name in of:
                U, V = of[layer.name]
                sums[layer.name] += _squares(h @ V, d @ U)
        return [sums[layer.name] for layer in self.layers]

    @cached_property
    def rest_squares(self) -> Tensor:
        """The diagonal of G at `rest`, (m,).

        Of up to 500 parameters by products; of more as the mean square of 64 random gradients, whose relative error is
        about 18 %.
        """
        if len(self.rest) <= REST_EXACT:
            return self._rest_by_products()
        self.rest_drawn = True
        total = torch.zeros(self.problem.n_parameters, dtype=torch.float64, device=self.problem.device)
        for index, batch in enumerate(self.problem.data):
            with self.problem.evaluation():
                sandwich = gauss_newton(self.problem, batch)
                found = roots(sandwich)
                for drawn in found.draws(self._seed + index, AT_ONCE):
                    parts = _pulled(sandwich.outputs, self.problem.parameters, drawn)
                    for place, part in zip(self.problem.places(), parts, strict=True):
                        if part is not None:
                            squares = part.double().square().sum(0).flatten()
                            total[place] += self.problem.batch_weights[index] * squares
        return total[self.rest]

    def _rest_by_products(self) -> Tensor:
        operator = GaussNewtonOperator(self.problem, check=False)
        found = [self.rest.new_zeros(0, dtype=torch.float64)]
        for part in torch.split(self.rest, max(operator.chunk, 1)) if len(self.rest) else ():
            units = torch.zeros(operator.shape[0], len(part), dtype=operator.dtype, device=operator.device)
            every = torch.arange(len(part), device=operator.device)
            units[part, every] = 1.0
            found.append((operator @ units)[part, every].double().clamp(min=0))
        return torch.cat(found)

    def _gradients(self) -> Iterator[tuple[int, Gradients]]:
        """Inputs and slopes of every layer, batch by batch, a few roots at a time; slopes bear the batch's weight."""
        for index, batch in enumerate(self.problem.data):
            with self.problem.evaluation(), watched(self.layers) as seen:
                sandwich = gauss_newton(self.problem, batch)
                found = roots(sandwich)
                if found.columns is None:
                    self.draws = DRAWS
                used = [layer for layer in self.layers if _fits(seen.inputs.get(layer.module, []), len(found.output))]
                shifts = [shift for layer in used for shift in seen.shifts[layer.module]]
                if not used:
                    continue
                weight = self.problem.batch_weights[index] ** 0.5
                for columns in found.all(self._seed + index, AT_ONCE):
                    slopes = iter(_pulled(sandwich.outputs, shifts, columns))
                    for layer in used:
                        own = [next(slopes) for _ in seen.shifts[layer.module]]
                        calls = [(h, d) for h, d in zip(seen.inputs[layer.module], own, strict=True) if d is not None]
                        if calls:
                            h = torch.cat([h for h, _ in calls], dim=1).double()
                            d = torch.cat([slopes_of(layer, d) for _, d in calls], dim=2).double()
                            yield index, (layer, h, weight * d)


def _pulled(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Tensor) -> list[Tensor | None]:
    """What cotangents (k, *output.shape) pull back to; one by one where an operation cannot be batched."""
    try:
        return batched_grad(outputs, inputs, [cotangents])
    except RuntimeError as error:
        if len(cotangents) == 1 or ran_out(error):
            raise
    single = [batched_grad(outputs, inputs, [one[None]]) for one in cotangents]
    return [None if parts[0] is None else torch.cat(parts) for parts in zip(*single, strict=True)]


def _fits(inputs: Sequence[Tensor], samples: int) -> bool:
    """Whether a layer was used, by the samples that the output has."""
    return bool(inputs) and all(len(h) == samples for h in inputs)


def _moments(h: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of g g', g'g and g * g over samples and roots."""
    if h.shape[1] == 1:  # g = d h'
        one, slopes = h[:, 0], d[:, :, 0]
        lengths, steep = one.square().sum(1), slopes.square().sum((0, 2))
        left = torch.einsum("n,knb,knc->bc", lengths, slopes, slopes)
        return left, torch.einsum("n,na,nc->ac", steep, one, one), _squares(h, d)
    parts = [(torch.einsum("knba,knca->bc", g, g), torch.einsum("knba,knbc->ac", g, g)) for g in _matrices(h, d)]
    return sum_of(left for left, _ in parts), sum_of(right for _, right in parts), _squares(h, d)


def _squares(h: Tensor, d: Tensor) -> Tensor:
    """Sum of g * g over samples and roots, (b, a)."""
    if h.shape[1] == 1:
        return d[:, :, 0].square().sum(0).T @ h[:, 0].square()
    return sum_of(g.square().sum((0, 1)) for g in _matrices(h, d))


def _matrices(h: Tensor, d: Tensor) -> Iterator[Tensor]:
    """The gradients themselves, (k, samples, b, a), of some samples at a time."""
    each = len(d) * d.shape[3] * h.shape[2]
    for part in torch.split(torch.arange(len(h), device=h.device), max(NUMBERS // each, 1)):
        yield torch.einsum("kntb,nta->knba", d[:, part], h[part])


def sum_of(parts: Iterator[Tensor]) -> Tensor:
    """The sum of one tensor or more."""
    total = next(parts)
    for part in parts:
        total = total + part
    return total
