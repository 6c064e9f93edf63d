"""Norms of gradients and Hessians of many networks of one depth, in bounded memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.curvature import mlp_norms
from hessdiag.machine import capacity, processes
from hessdiag.machine.shortage import ran_out
from hessdiag.nets.activations import Activation
from hessdiag.nets.ahead import drawn_ahead
from hessdiag.nets.ensemble import Ensemble, Sample
from hessdiag.questions.common.ensemble_statistics import NormStatistics, norm_statistics
from hessdiag.questions.common.pieces import Arrays, Pieces
from hessdiag.questions.vanishing.theory import exact_values

Floats = NDArray[np.float64]

HESSIAN_WORK = 1.2e11  # floating-point operations that the Hessian norms of the default run may take
FEWEST_HESSIAN_SEEDS = 4
EXACT_WORK = 2e10  # operations for one network beyond which products with random vectors replace the exact norms
PROBES = 8
CHECK_PROBES = 256
DENSE_PARAMETERS = 256  # up to here the diagonal share is computed from the dense Hessian
CHUNK_NUMBERS = 2**24  # numbers that the weights of one chunk of networks may hold


@dataclass(frozen=True)
class DepthNorms:
    """Norms at one depth.

    Attributes:
        depth: Number of weight matrices L.
        width: Width of every layer, input and output included; `None` for networks of another kind.
        parameters: Number of parameters.
        seeds: Networks behind `gradient_norm` and `vjp_norm`.
        hessian_seeds: Networks behind the Hessian norms: the first of the same ones.
        hessian_method: "exact" (no Hessian is formed) or "hvp" (random products; the spread holds their error).
        hessian_probe_error: Standard error of one network's Hessian norm from its random products, relative to the
            norm, as a median over networks; `None` where that is exact, or not told apart from the spread.
        dead_fraction: Fraction of networks in which each sample meets a layer with all units off: no gradient at all.
        gradient_norm: Norm of the whole gradient.
        hessian_norm: Frobenius norm of the whole Hessian.
        hessian_diagonal_blocks_norm: Of its layer-diagonal blocks.
        hessian_offdiagonal_blocks_norm: Of the rest.
        hessian_diag_share: Share of absolute mass on the diagonal, over live networks; `None` where not computed.
        certified_indefinite: Fraction of Hessians that certainly have a negative eigenvalue: were H positive
            semidefinite, |H_lm|^2 <= |H_ll| |H_mm| would hold for all blocks. `None` where norms are estimates.
        vjp_norm: Norm of the first layer's gradient of <u, z> for one sample, relative to |u| |x|; `None` for networks
            that need not have one output vector.
        theory_rms: Exact root mean squares, by quantity, dead networks counted as zero; `None` where no closed form
            holds.
        theory_median: Exact medians, by quantity; `None` likewise.
        path_width: Harmonic mean over all layers but the last of their number of inputs per neuron; `None` unless
            measured.
        effective_width: Likewise of their effective widths (`effective_widths`), over networks too.
        effective_width_stderr: Its standard error.
    """

    depth: int
    width: int | None
    parameters: int
    seeds: int
    hessian_seeds: int
    hessian_method: Literal["exact", "hvp"]
    dead_fraction: float
    gradient_norm: NormStatistics
    hessian_norm: NormStatistics
    hessian_diagonal_blocks_norm: NormStatistics
    hessian_offdiagonal_blocks_norm: NormStatistics
    hessian_diag_share: NormStatistics | None
    certified_indefinite: float | None
    vjp_norm: NormStatistics | None
    theory_rms: dict[str, float] | None
    theory_median: dict[str, float] | None
    hessian_probe_error: float | None = None
    path_width: float | None = None
    effective_width: float | None = None
    effective_width_stderr: float | None = None


@dataclass(frozen=True)
class LayerNorms:
    """Norms of one layer's gradient and of its diagonal Hessian block, in the deepest network.

    Attributes:
        layer: Counted from 1 at the input, in the order of execution.
        gradient_norm: Of its gradient.
        hessian_block_norm: Of its diagonal block.
        name: In the model; `None` for the fully connected networks, whose layers have none.
        parameters: Their number; `None` likewise.
        path_width: Its inputs per neuron; `None` unless measured.
        effective_width: See `effective_widths`; harmonic mean over networks.
        effective_width_stderr: Its standard error.
        depth: How many layers that multiply by a matrix the data has passed with this one; `None` for those that are
            not on the longest way from the data to the loss, and for the fully connected networks.
    """

    layer: int
    gradient_norm: NormStatistics
    hessian_block_norm: NormStatistics
    name: str | None = None
    parameters: int | None = None
    path_width: float | None = None
    effective_width: float | None = None
    effective_width_stderr: float | None = None
    depth: int | None = None


def statistics_of(entry: DepthNorms, quantity: str) -> NormStatistics | None:
    """The statistics of one of `QUANTITIES` at one depth; `None` where it was not measured."""
    found = getattr(entry, f"{quantity}_norm")
    assert found is None or isinstance(found, NormStatistics)
    return found


def hessian_method(depth: int, width: int, batch: int) -> Literal["exact", "hvp"]:
    """How the Hessian norms of networks of this size are computed."""
    return "exact" if mlp_norms.exact_cost(depth, width, batch) <= EXACT_WORK else "hvp"


def hessian_work(depth: int, width: int, batch: int) -> float:
    """Floating-point operations for the Hessian norms of one network, roughly."""
    if hessian_method(depth, width, batch) == "exact":
        return mlp_norms.exact_cost(depth, width, batch)
    return depth * batch * (4 * width**3 + 18 * PROBES * width**2)


def affordable_networks(grid: Sequence[tuple[int, int]], batch: int) -> int:
    """How many networks a default run can afford at every (depth, width) of the grid."""
    total = sum(hessian_work(L, d, batch) for L, d in grid)
    return max(FEWEST_HESSIAN_SEEDS, int(HESSIAN_WORK / total))


def check_against_products(ensemble: Ensemble, phi: Activation) -> float | None:
    """Standard errors between the exact |H|^2 of one network and its estimate by random products.

    `None` where there is no exact norm to check, or no spread to measure by.
    """
    if hessian_method(ensemble.depth, ensemble.width, ensemble.batch) == "hvp":
        return None
    sample = ensemble.draw(0, 1)
    state = mlp_norms.run(sample.weights, sample.x, sample.y, phi, 1 / ensemble.batch)
    diagonal, above = mlp_norms.hessian_norms2(sample.weights, state, 1 / ensemble.batch)
    exact = float(diagonal.sum() + 2 * above.sum())
    generator = torch.Generator().manual_seed(ensemble.seed)
    together = _probes_together(ensemble, 1)
    products = mlp_norms.hessian_norm2_by_products(
        sample.weights, sample.x, sample.y, phi, 1 / ensemble.batch, CHECK_PROBES, generator, together
    )[:, 0]
    stderr = float(products.std()) / CHECK_PROBES**0.5
    return (exact - float(products.mean())) / stderr if stderr > 0 else None


def measure(
    ensemble: Ensemble,
    phi: Activation,
    name: str,
    seeds: int,
    networks: int,
    advance: Callable[[int], None],
    pieces: Pieces,
) -> tuple[DepthNorms, tuple[LayerNorms, ...]]:
    """Norms of all networks at one depth: gradients of `seeds` of them, Hessians of the first `networks`."""
    L, d, N = ensemble.depth, ensemble.width, ensemble.batch
    method = hessian_method(L, d, N)
    gradients: list[Arrays] = []
    own: dict[int, Arrays] = {}
    size = max(1, CHUNK_NUMBERS // (L * d * max(d, N)))
    chunks = [(start, min(start + size, seeds)) for start in range(0, seeds, size)]
    for (start, stop), sample in zip(chunks, drawn_ahead(ensemble, chunks), strict=True):
        gradients.append(pieces.get(f"depth-{L}-gradients-{start}", partial(_gradients, sample, phi)))
        for first in range(start, min(networks, stop), part := _hessian_chunk(method, ensemble)):
            last = min(first + part, networks, stop)
            if processes.is_own(first // part):
                rows = slice(first - start, last - start)
                together = _probes_together(ensemble, last - first)
                compute = partial(_hessians, sample, rows, phi, method, ensemble.seed + first, together)
                own[first] = pieces.get(f"depth-{L}-hessians-{first}-{last}", compute)
            advance(last - first)
    gradient, vjp, off = (np.concatenate([found[key] for found in gradients]) for key in ("gradient", "vjp", "dead"))
    alive: NDArray[np.bool_] = ~np.all(off, axis=1)
    hessians = processes.merged(own, ensemble.device)
    total, diagonal = (np.concatenate([found[key] for found in hessians]) for key in ("total", "diagonal"))
    share = np.concatenate([found["share"] for found in hessians]) if "share" in hessians[0] else None
    with np.errstate(invalid="ignore"):  # infinity less infinity, where networks explode
        between = np.maximum(total - diagonal.sum(1), 0)
    curved = alive[:networks]
    hessian_norms = [norm_statistics(values, curved) for values in (total, diagonal.sum(1), between)]
    rms, median = exact_values(ensemble, name)
    entry = DepthNorms(
        depth=L,
        width=d,
        parameters=L * d * d,
        seeds=seeds,
        hessian_seeds=networks,
        hessian_method=method,
        dead_fraction=float(1 - alive.mean()),
        gradient_norm=norm_statistics(gradient.sum(1), alive),
        hessian_norm=hessian_norms[0],
        hessian_diagonal_blocks_norm=hessian_norms[1],
        hessian_offdiagonal_blocks_norm=hessian_norms[2],
        hessian_diag_share=norm_statistics(share[curved] ** 2, curved[curved]) if share is not None else None,
        certified_indefinite=float(_cannot_be_definite(diagonal, between).mean()) if method == "exact" else None,
        vjp_norm=norm_statistics(vjp, ~off[:, 0]),
        theory_rms=rms,
        theory_median=median,
    )
    layers = tuple(
        LayerNorms(
            index + 1,
            norm_statistics(gradient[:, index], alive),
            norm_statistics(diagonal[:, index], curved),
        )
        for index in range(L)
    )
    return entry, layers


def _cannot_be_definite(diagonal: Floats, between: Floats) -> NDArray[np.bool_]:
    """Whether blocks between layers, (networks,), exceed what a definite matrix with these diagonal blocks allows."""
    norms = np.sqrt(diagonal)
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = norms.sum(1) ** 2 - diagonal.sum(1)
    exceeds: NDArray[np.bool_] = between > allowed * (1 + 1e-9)
    return exceeds


def kept(depth: int, width: int, batch: int, seeds: int, networks: int) -> tuple[int, int]:
    """Bytes of what is kept of all networks of a depth, and in how many pieces, on a CPU: elsewhere they are fewer."""
    numbers = seeds * (8 * (depth + 1) + batch) + networks * 8 * (depth + 2)
    together = max(1, CHUNK_NUMBERS // (depth * width * max(width, batch)))
    part = min(together, _networks_a_pass(hessian_method(depth, width, batch), depth, width, batch, capacity.CPU))
    return numbers, -(-seeds // together) + -(-networks // part)


def _hessian_chunk(method: str, ensemble: Ensemble) -> int:
    """Networks per pass of the Hessian norms."""
    limits = capacity.of(ensemble.device)
    return _networks_a_pass(method, ensemble.depth, ensemble.width, ensemble.batch, limits)


def _networks_a_pass(method: str, L: int, d: int, N: int, limits: capacity.Capacity) -> int:
    if method == "exact":
        pairs, curvatures = N * (N + 1) // 2 * d**2, L * N * d**2
        return max(1, min(limits.pair_numbers // pairs, limits.curvature_numbers // curvatures))
    return max(1, capacity.CPU.pair_numbers // (N * d**2))  # on every device: random vectors hang on it


def _probes_together(ensemble: Ensemble, networks: int) -> int:
    """Random vectors that share a pass of products with some networks."""
    numbers = networks * ensemble.depth * ensemble.width * max(ensemble.width, ensemble.batch)
    return max(1, capacity.of(ensemble.device).probe_numbers // numbers)


def _gradients(sample: Callable[[], Sample], phi: Activation) -> Arrays:
    """Of each network: squared norms of its gradient by layer and of one backpropagated vector, and dead samples."""
    return _halved(partial(_gradients_of, phi=phi), sample())


def _gradients_of(drawn: Sample, phi: Activation) -> Arrays:
    state = mlp_norms.run(drawn.weights, drawn.x, drawn.y, phi, 1 / drawn.x.shape[1])
    return {
        "gradient": mlp_norms.gradient_norms2(state).cpu().numpy(),
        "vjp": mlp_norms.jacobian_norm2(drawn.weights, state, drawn.u).cpu().numpy(),
        "dead": mlp_norms.dead_samples(state).cpu().numpy(),
    }


def _hessians(
    sample: Callable[[], Sample], rows: slice, phi: Activation, method: str, seed: int, together: int
) -> Arrays:
    """Of some networks: |H|^2, the squared norms of its diagonal blocks, and its diagonal share where H is small."""
    compute = partial(_hessians_of, phi=phi, method=method, seed=seed, together=together)
    # Random vectors of products hang on how many networks share a pass.
    return _halved(compute, sample()[rows]) if method == "exact" else compute(sample()[rows])


def _halved(compute: Callable[[Sample], Arrays], networks: Sample) -> Arrays:
    """What is computed of some networks, of half of them at a time where memory runs out."""
    try:
        return compute(networks)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error) or len(networks.x) == 1:
            raise
    middle = len(networks.x) // 2
    halves = [_halved(compute, networks[part]) for part in (slice(middle), slice(middle, None))]
    return {key: np.concatenate([half[key] for half in halves]) for key in halves[0]}


def _hessians_of(drawn: Sample, phi: Activation, method: str, seed: int, together: int) -> Arrays:
    weights, scale = drawn.weights, 1 / drawn.x.shape[1]
    state = mlp_norms.run(weights, drawn.x, drawn.y, phi, scale)
    if method == "exact":
        diagonal, above = mlp_norms.hessian_norms2(weights, state, scale)
        total = diagonal.sum(1) + 2 * above.sum(1)
    else:
        diagonal = mlp_norms.diagonal_block_norms2(weights, state, scale)
        generator = torch.Generator().manual_seed(seed)
        total = mlp_norms.hessian_norm2_by_products(
            weights, drawn.x, drawn.y, phi, scale, PROBES, generator, together
        ).mean(0)
    found = {"total": total.cpu().numpy(), "diagonal": diagonal.cpu().numpy()}
    if sum(weight[0].numel() for weight in weights) <= DENSE_PARAMETERS:
        H = mlp_norms.dense_hessians(weights, drawn.x, drawn.y, phi, scale).abs()
        share = H.diagonal(dim1=-2, dim2=-1).sum(-1) / H.sum((-2, -1))
        found["share"] = share.nan_to_num(0.0).cpu().numpy()
    return found
