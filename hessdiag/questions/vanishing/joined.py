"""Statistics over networks of any kind that were measured one by one."""

from collections.abc import Sequence

import numpy as np

from hessdiag.problem.layers import Layer
from hessdiag.questions.vanishing.effective_width import EffectiveWidth
from hessdiag.questions.vanishing.network import Network
from hessdiag.questions.vanishing.result import DepthNorms, LayerNorms, NormStatistics
from hessdiag.questions.vanishing.statistics import norm_statistics
from hessdiag.questions.vanishing.survey import Survey


def joined(survey: Survey, found: Sequence[Network]) -> tuple[DepthNorms, tuple[LayerNorms, ...]]:
    """Statistics over the networks of one depth."""
    layers = survey.layers
    gradient = np.stack([network.gradient for network in found])
    curvatures = [network.curvature for network in found if network.curvature is not None]
    total = np.array([curvature.total for curvature in curvatures])
    diagonal = np.stack([curvature.diagonal for curvature in curvatures])
    shares = [curvature.share for curvature in curvatures if curvature.share is not None]
    errors = [curvature.error for curvature in curvatures if curvature.error is not None]
    alive = gradient.sum(1) > 0
    curved = alive[: len(curvatures)]
    path, effective = _over_layers([network.widths for network in found])
    first, last = (
        None if end is None else norm_statistics(gradient[:, end], alive) for end in _ends_of_the_way(survey)
    )
    entry = DepthNorms(
        depth=survey.depth,
        width=None,
        parameters=survey.parameters,
        seeds=len(found),
        hessian_seeds=len(curvatures),
        hessian_method="hvp" if errors else "exact",
        dead_fraction=float(1 - alive.mean()),
        gradient_norm=norm_statistics(gradient.sum(1), alive),
        first_layer_gradient_norm=first,
        last_layer_gradient_norm=last,
        hessian_norm=norm_statistics(total, curved),
        hessian_diagonal_blocks_norm=norm_statistics(diagonal.sum(1), curved),
        hessian_offdiagonal_blocks_norm=norm_statistics(np.maximum(total - diagonal.sum(1), 0), curved),
        hessian_diag_share=norm_statistics(np.square(shares)[curved], curved[curved]) if shares else None,
        certified_indefinite=None,
        vjp_norm=None,
        theory_rms=None,
        theory_median=None,
        hessian_probe_error=float(np.median(errors)) if errors else None,
        path_width=path,
        padding_factor=_padding(found[0].widths),
        effective_width=effective[0],
        effective_width_stderr=effective[1],
    )
    blocks = [norm_statistics(diagonal[:, index], curved) for index in range(len(layers))]
    gradients = [norm_statistics(gradient[:, index], alive) for index in range(len(layers))]
    return entry, tuple(
        _layer(number, layer, depth, gradients[number - 1], blocks[number - 1], found)
        for number, (layer, depth) in enumerate(zip(layers, survey.depths, strict=True), start=1)
    )


def _ends_of_the_way(survey: Survey) -> tuple[int, int] | tuple[None, None]:
    """Numbers of the first and the last layer on the way from the data to the loss; `None` where they are one."""
    depths = {index: depth for index, depth in enumerate(survey.depths) if depth is not None}
    if len(depths) < 2:
        return None, None
    return min(depths, key=depths.__getitem__), max(depths, key=depths.__getitem__)


def _layer(
    number: int,
    layer: Layer,
    depth: int | None,
    gradient: NormStatistics,
    block: NormStatistics,
    found: Sequence[Network],
) -> LayerNorms:
    seen = [network.widths[layer.path] for network in found if layer.path in network.widths]
    width, stderr = _harmonic([width.stable_rank for width in seen])
    path, padding = (seen[0].path, seen[0].padding) if seen else (None, None)
    return LayerNorms(
        layer=number,
        gradient_norm=gradient,
        hessian_block_norm=block,
        name=layer.name,
        parameters=layer.size,
        path_width=path,
        padding_factor=padding,
        effective_width=width,
        effective_width_stderr=stderr,
        depth=depth,
    )


def _padding(widths: dict[str, EffectiveWidth]) -> float | None:
    """Geometric mean over the layers that keep the image's size; it hangs on shapes alone, which all networks share."""
    factors = [width.padding for width in widths.values() if width.padding is not None]
    return float(np.exp(np.mean(np.log(factors)))) if factors else None


def _over_layers(
    networks: Sequence[dict[str, EffectiveWidth]],
) -> tuple[float | None, tuple[float | None, float | None]]:
    """Harmonic means of both widths over all layers but the last, whose output goes nowhere, and over networks."""
    inner = [list(widths.values())[:-1] for widths in networks if len(widths) > 1]
    if not inner:
        return None, (None, None)
    path = _harmonic([width.path for width in inner[0]])[0]
    return path, _harmonic([1 / float(np.mean([1 / width.stable_rank for width in widths])) for widths in inner])


def _harmonic(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Harmonic mean with its standard error by the delta method; `None` of nothing, and no error for one."""
    if not values:
        return None, None
    inverse = 1 / np.asarray(values)
    mean = float(inverse.mean())
    if len(values) == 1:
        return 1 / mean, None
    return 1 / mean, float(inverse.std(ddof=1)) / len(values) ** 0.5 / mean**2
