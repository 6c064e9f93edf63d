"""Norms of gradients and Hessians of many networks of one depth, in bounded memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.machine import capacity, processes
from hessdiag.machine.shortage import ran_out
from hessdiag.nets.activations import Activation
from hessdiag.nets.ahead import drawn_ahead
from hessdiag.nets.ensemble import Ensemble, Sample
from hessdiag.questions.common.runs.pieces import Arrays, Pieces
from hessdiag.questions.vanishing import mlp_norms
from hessdiag.questions.vanishing.result import DepthNorms, LayerNorms
from hessdiag.questions.vanishing.statistics import norm_statistics
from hessdiag.questions.vanishing.theory import Exact

Floats = NDArray[np.float64]

HESSIAN_WORK = 1.2e11  # floating-point operations that the Hessian norms of the default run may take
FEWEST_HESSIAN_SEEDS = 4
EXACT_WORK = 2e10  # operations for one network beyond which products with random vectors replace the exact norms
PROBES = 8
CHECK_PROBES = 256
DENSE_PARAMETERS = 256  # up to here the diagonal share is computed from the dense Hessian
CHUNK_NUMBERS = 2**24  # numbers that the weights of one chunk of networks may hold


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
    diagonal, above, _ = mlp_norms.hessian_norms2(sample.weights, state, 1 / ensemble.batch)
    exact = float(diagonal.sum() + 2 * above.sum())
    generator = torch.Generator().manual_seed(ensemble.seed)
    together = _probes_together(ensemble, 1)
    products = mlp_norms.hessian_norm2_by_products(
        sample.weights, sample.x, sample.y, phi, 1 / ensemble.batch, CHECK_PROBES, generator, together
    )[:, 0]
    stderr = float(products.std()) / CHECK_PROBES**0.5
    return (exact - float(products.mean())) / stderr if stderr > 0 else None


@dataclass(frozen=True)
class SquaredNorms:
    """Squared norms of all networks of a depth; of the Hessian's, of the first `len(total)` of them.

    Attributes:
        gradient: By layer, (seeds, L).
        vjp: Of one backpropagated vector, (seeds,).
        dead: Which samples meet a layer with all units off, (seeds, batch).
        total: |H|^2, (networks,).
        diagonal: Of its diagonal blocks, (networks, L).
        trace: Its trace, (networks,).
        share: Its diagonal share, (networks,); `None` where H is large.
    """

    gradient: Floats
    vjp: Floats
    dead: NDArray[np.bool_]
    total: Floats
    diagonal: Floats
    trace: Floats
    share: Floats | None


def measure(
    ensemble: Ensemble, phi: Activation, seeds: int, networks: int, advance: Callable[[int], None], pieces: Pieces
) -> SquaredNorms:
    """Norms of all networks at one depth: gradients of `seeds` of them, Hessians of the first `networks`."""
    L, d, N = ensemble.depth, ensemble.width, ensemble.batch
    method = hessian_method(L, d, N)
    gradients: list[Arrays] = []
    own: dict[int, Arrays] = {}
    size = _networks_together(L, d, N)
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
    hessians = processes.merged(own, ensemble.device)
    gradient, vjp, dead = (_joined(gradients, key) for key in ("gradient", "vjp", "dead"))
    total, diagonal, trace = (_joined(hessians, key) for key in ("total", "diagonal", "trace"))
    share = _joined(hessians, "share") if "share" in hessians[0] else None
    return SquaredNorms(gradient, vjp, dead, total, diagonal, trace, share)


def _joined(found: Sequence[Arrays], key: str) -> NDArray[Any]:
    return np.concatenate([arrays[key] for arrays in found])


def summarized(found: SquaredNorms, ensemble: Ensemble, exact: Exact) -> DepthNorms:
    """Statistics over the networks of one depth, beside what closed forms say."""
    L, d = ensemble.depth, ensemble.width
    method = hessian_method(L, d, ensemble.batch)
    alive: NDArray[np.bool_] = ~np.all(found.dead, axis=1)
    curved = alive[: len(found.total)]
    own = found.diagonal.sum(1)
    with np.errstate(invalid="ignore"):  # infinity less infinity, where networks explode
        between = np.maximum(found.total - own, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        trace, spread = float(found.trace.mean()), float(found.trace.std(ddof=1))
    share = None if found.share is None else norm_statistics(found.share[curved] ** 2, curved[curved])
    return DepthNorms(
        depth=L,
        width=d,
        parameters=L * d * d,
        seeds=len(found.gradient),
        hessian_seeds=len(found.total),
        hessian_method=method,
        dead_fraction=float(1 - alive.mean()),
        gradient_norm=norm_statistics(found.gradient.sum(1), alive),
        hessian_norm=norm_statistics(found.total, curved),
        hessian_diagonal_blocks_norm=norm_statistics(own, curved),
        hessian_offdiagonal_blocks_norm=norm_statistics(between, curved),
        hessian_diag_share=share,
        certified_indefinite=float(_cannot_be_definite(found.diagonal, between).mean()) if method == "exact" else None,
        vjp_norm=norm_statistics(found.vjp, ~found.dead[:, 0]),
        theory_rms=exact.rms,
        theory_median=exact.medians,
        hessian_trace=trace,
        hessian_trace_stderr=spread / len(found.trace) ** 0.5,
        theory_trace=exact.trace,
    )


def layer_norms(found: SquaredNorms, exact: Exact) -> tuple[LayerNorms, ...]:
    """Statistics layer by layer, beside what closed forms say."""
    alive = ~np.all(found.dead, axis=1)
    curved = alive[: len(found.total)]
    return tuple(
        LayerNorms(
            layer=index + 1,
            gradient_norm=norm_statistics(found.gradient[:, index], alive),
            hessian_block_norm=norm_statistics(found.diagonal[:, index], curved),
            theory_rms=None if exact.layers is None else exact.layers[index],
        )
        for index in range(found.gradient.shape[1])
    )


def _cannot_be_definite(diagonal: Floats, between: Floats) -> NDArray[np.bool_]:
    """Whether blocks between layers, (networks,), exceed what a definite matrix with these diagonal blocks allows."""
    norms = np.sqrt(diagonal)
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = norms.sum(1) ** 2 - diagonal.sum(1)
    exceeds: NDArray[np.bool_] = between > allowed * (1 + 1e-9)
    return exceeds


def kept(depth: int, width: int, batch: int, seeds: int, networks: int) -> tuple[int, int]:
    """Bytes of what is kept of all networks of a depth, and in how many pieces, on a CPU: elsewhere they are fewer."""
    numbers = seeds * (8 * (depth + 1) + batch) + networks * 8 * (depth + 3)
    together = _networks_together(depth, width, batch)
    part = min(together, _networks_a_pass(hessian_method(depth, width, batch), depth, width, batch, capacity.CPU))
    return numbers, -(-seeds // together) + -(-networks // part)


def _networks_together(L: int, d: int, N: int) -> int:
    """Networks that are drawn, and whose gradients are computed, at once."""
    return max(1, CHUNK_NUMBERS // (L * d * max(d, N)))


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
    """Of some networks: |H|^2, the squared norms of its diagonal blocks, its trace, and its share where H is small."""
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
        diagonal, above, trace = mlp_norms.hessian_norms2(weights, state, scale)
        total = diagonal.sum(1) + 2 * above.sum(1)
    else:
        diagonal, trace = mlp_norms.diagonal_block_norms2(weights, state, scale)
        generator = torch.Generator().manual_seed(seed)
        total = mlp_norms.hessian_norm2_by_products(
            weights, drawn.x, drawn.y, phi, scale, PROBES, generator, together
        ).mean(0)
    found = {"total": total.cpu().numpy(), "diagonal": diagonal.cpu().numpy(), "trace": trace.cpu().numpy()}
    if sum(weight[0].numel() for weight in weights) <= DENSE_PARAMETERS:
        H = mlp_norms.dense_hessians(weights, drawn.x, drawn.y, phi, scale).abs()
        share = H.diagonal(dim1=-2, dim2=-1).sum(-1) / H.sum((-2, -1))
        found["share"] = share.nan_to_num(0.0).cpu().numpy()
    return found
