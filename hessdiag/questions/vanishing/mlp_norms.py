"""Exact gradient and Hessian block norms of bias-free fully connected networks, without forming the Hessian.

A block H_lm of the Hessian is a sum over samples b of A_lm^b (x) h_{l-1}^b h_{m-1}^b and, off the diagonal, of
delta_m^b C_ml^b h_{l-1}^b, where A_lm is the second derivative of the loss with respect to the pre-activations a_l and
a_m, delta_m the cotangent of a_m, and C_ml the Jacobian of h_{m-1} with respect to a_l. Squared norms of blocks are
then sums over pairs of samples of products of small inner products.

Summed over l < m, those sums need S_m^{be} = sum_l <h_{l-1}^b, h_{l-1}^e> C_ml^b (C_ml^e)^T only, and S_{m+1} follows
from S_m alone. So the norm of the whole Hessian costs time linear in the depth, not quadratic. Derivation:
docs/concepts/block-norms.md.

All tensors carry a leading dimension of independent networks ("seeds").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.curvature.pullback import batched_grad, pullback
from hessdiag.machine import capacity
from hessdiag.nets.activations import Activation


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of an ensemble, for the loss (scale / 2) sum_b |z_b - y_b|^2.

    Attributes:
        inputs: h_0 .. h_{L-1}, each (seeds, samples, d_l).
        gates: phi'(a_1) .. phi'(a_{L-1}), each (seeds, samples, d_l).
        curvatures: phi''(a_l) * (W_{l+1}^T delta_{l+1}) likewise; empty for piecewise-linear phi.
        cotangents: delta_1 .. delta_L, each (seeds, samples, d_l), the loss scale included.
        output: z, (seeds, samples, d_L).
    """

    inputs: tuple[Tensor, ...]
    gates: tuple[Tensor, ...]
    curvatures: tuple[Tensor, ...]
    cotangents: tuple[Tensor, ...]
    output: Tensor


def forward(weights: Sequence[Tensor], x: Tensor, phi: Activation) -> tuple[list[Tensor], list[Tensor]]:
    """Pre-activations a_1 .. a_L and layer inputs h_0 .. h_{L-1}; `weights` are (seeds, d_l, d_{l-1})."""
    inputs, pre = [x], []
    for index, weight in enumerate(weights):
        pre.append(inputs[-1] @ weight.mT)
        if index < len(weights) - 1:
            inputs.append(phi.function(pre[-1]))
    return pre, inputs


def run(weights: Sequence[Tensor], x: Tensor, y: Tensor, phi: Activation, scale: float) -> Pass:
    """Forward and backward through every network of the ensemble.

    Args:
        weights: W_1 .. W_L, each (seeds, d_l, d_{l-1}).
        x: Inputs (seeds, samples, d_0).
        y: Targets (seeds, samples, d_L).
        phi: Activation of the hidden layers; the output is linear.
        scale: Factor of the loss, 1 / samples for a mean.
    """
    pre, inputs = forward(weights, x, phi)
    gates = [phi.first(a) for a in pre[:-1]]
    cotangents = [scale * (pre[-1] - y)]
    curvatures: list[Tensor] = []
    for weight, a, gate in zip(reversed(weights[1:]), reversed(pre[:-1]), reversed(gates), strict=True):
        back = cotangents[-1] @ weight
        if phi.second is not None:
            curvatures.append(phi.second(a) * back)
        cotangents.append(gate * back)
    return Pass(tuple(inputs), tuple(gates), tuple(reversed(curvatures)), tuple(reversed(cotangents)), pre[-1])


def gradient_norms2(state: Pass) -> Tensor:
    """Squared Frobenius norms of the gradient by layer, (seeds, L)."""
    return torch.stack(
        [(d.mT @ h).square().sum((-2, -1)) for d, h in zip(state.cotangents, state.inputs, strict=True)],
        dim=1,
    )


def dead_samples(state: Pass) -> Tensor:
    """Which samples meet a layer whose units are all off, so that their output does not depend on any weight.

    Returns:
        Boolean tensor (seeds, samples).
    """
    off = torch.zeros(state.output.shape[:2], dtype=torch.bool, device=state.output.device)
    for gate in state.gates:
        off |= (gate == 0).all(-1)
    return off


def jacobian_norm2(weights: Sequence[Tensor], state: Pass, u: Tensor) -> Tensor:
    """Squared norm of the gradient of <u, z> with respect to W_1, for one sample, relative to |u|^2 |x|^2.

    For Gaussian weights its law does not depend on the layer, and is known exactly (`theory.gaussian_nets`).

    Args:
        weights: W_1 .. W_L, each (seeds, d_l, d_{l-1}).
        state: A pass; its first sample is used.
        u: Cotangent of the output, (seeds, d_L).

    Returns:
        Tensor (seeds,).
    """
    back = u[:, None, :]
    for weight, gate in zip(reversed(weights[1:]), reversed(state.gates), strict=True):
        back = (back @ weight) * gate[:, :1]
    return back.square().sum((-2, -1)) / u.square().sum(-1)


def hessian_norms2(weights: Sequence[Tensor], state: Pass, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Squared Frobenius norms of the Hessian's layer blocks and its trace, exact.

    Args:
        weights: W_1 .. W_L, each (seeds, d_l, d_{l-1}).
        state: What `run` returned for them.
        scale: The loss scale that `run` was given.

    Returns:
        Diagonal blocks |H_mm|^2, (seeds, L); the sums over l < m of |H_lm|^2 for each m, (seeds, L); traces, (seeds,).
        |H|^2 is the sum of the first plus twice the sum of the second.
    """
    second = _preactivation_hessians(weights, state, scale)
    grams = [h @ h.mT for h in state.inputs]
    first, later = torch.triu_indices(state.output.shape[1], state.output.shape[1], device=state.output.device)
    twice = torch.where(first == later, 1.0, 2.0).to(state.output)  # pairs b < e stand for (b, e) and (e, b)
    above = [torch.zeros_like(state.output[:, 0, 0])]
    S: Tensor | None = None
    X: Tensor | None = None
    for index, (weight, h, delta, A) in enumerate(zip(weights, state.inputs, state.cotangents, second, strict=True)):
        gram = grams[index][:, first, later]
        if S is not None:
            X = _sandwich(weight, S)
            above.append((twice * _above_pairs(weight, h, delta, A, S, X, gram, first, later)).sum(-1))
        if index < len(state.gates):
            S = _advance(X, gram, state.gates[index], first, later)
    return _diagonal_norms2(grams, second), torch.stack(above, dim=1), _traces(grams, second)


def diagonal_block_norms2(weights: Sequence[Tensor], state: Pass, scale: float) -> tuple[Tensor, Tensor]:
    """The first and the last of what `hessian_norms2` returns, |H_mm|^2 and the trace, at a fraction of the cost."""
    second = _preactivation_hessians(weights, state, scale)
    grams = [h @ h.mT for h in state.inputs]
    return _diagonal_norms2(grams, second), _traces(grams, second)


def hessian_norm2_by_products(
    weights: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    phi: Activation,
    scale: float,
    probes: int,
    generator: torch.Generator,
    together: int = 1,
) -> Tensor:
    """Unbiased estimates of |H|^2 from products with Gaussian vectors: E |Hv|^2 = |H|^2.

    For networks so wide that `hessian_norms2` is too dear. Arguments as in `run`; all networks share a pass, and
    `together` vectors do, each with copies of the networks.

    Returns:
        Tensor (probes, seeds) of |Hv|^2.
    """
    found, together = [], min(together, probes)
    for count, passes in ((together, probes // together), (probes % together, 1)):
        if not count or not passes:
            continue
        leaves, rows, targets = (
            [tensor.detach().expand(count, *tensor.shape).flatten(0, 1) for tensor in tensors]
            for tensors in (weights, [x], [y])
        )
        leaves = [leaf.requires_grad_() for leaf in leaves]
        pre, _ = forward(leaves, rows[0], phi)
        loss = scale / 2 * (pre[-1] - targets[0]).square().sum()
        gradient = torch.autograd.grad(loss, leaves, create_graph=True)
        for _ in range(passes):
            drawn = [[torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights] for _ in range(count)]
            v = [torch.cat(parts).to(x.device) for parts in zip(*drawn, strict=True)]
            products = pullback(gradient, leaves, v)
            squares = [product.square().sum((-2, -1)) for product in products if product is not None]
            found.append(torch.stack(squares).sum(0).view(count, -1))
    return torch.cat(found)


def dense_hessians(weights: Sequence[Tensor], x: Tensor, y: Tensor, phi: Activation, scale: float) -> Tensor:
    """The Hessians themselves, (seeds, N, N), for small networks. Arguments as in `run`."""
    shapes = [weight.shape[1:] for weight in weights]
    flat = torch.cat([weight.flatten(1) for weight in weights], dim=1).detach().requires_grad_()
    parts = torch.split(flat, [shape.numel() for shape in shapes], dim=1)
    pre, _ = forward([part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)], x, phi)
    loss = scale / 2 * (pre[-1] - y).square().sum()
    gradient = torch.autograd.grad(loss, flat, create_graph=True)
    units = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)[:, None].expand(-1, *flat.shape)
    # torch.func.hessian does the same, and imports torch._dynamo for it, which takes a second.
    (rows,) = batched_grad(gradient, [flat], [units])
    assert rows is not None
    return rows.transpose(0, 1)


def exact_cost(depth: int, width: int, samples: int) -> float:
    """Floating-point operations that `hessian_norms2` takes for one network, to leading order."""
    return 3 * depth * samples * (samples + 1) * width**3


def _diagonal_norms2(grams: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    norms = []
    for gram, A in zip(grams, second, strict=True):
        flat = A.flatten(2)
        norms.append(((flat @ flat.mT) * gram.square()).sum((-2, -1)))
    return torch.stack(norms, dim=1)


def _traces(grams: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Sum over layers and samples of |h_{l-1}|^2 tr A_ll, (seeds,)."""
    squares = torch.stack([gram.diagonal(dim1=-2, dim2=-1) for gram in grams])
    return (squares * torch.stack([A.diagonal(dim1=-2, dim2=-1).sum(-1) for A in second])).sum((0, 2))


def _preactivation_hessians(weights: Sequence[Tensor], state: Pass, scale: float) -> list[Tensor]:
    """A_ll, the second derivative with respect to a_l, for every l: (seeds, samples, d_l, d_l)."""
    seeds, samples, c = state.output.shape
    A = (scale * torch.eye(c).to(state.output)).expand(seeds, samples, c, c)
    found = [A]
    for index in range(len(weights) - 1, 0, -1):
        weight, gate = weights[index][:, None], state.gates[index - 1]
        A = weight.mT @ A @ weight * (gate[..., :, None] * gate[..., None, :])
        if state.curvatures:
            A = A + torch.diag_embed(state.curvatures[index - 1])
        found.append(A)
    return found[::-1]


def _sandwich(weight: Tensor, S: Tensor) -> Tensor:
    """W S W^T for every pair. Pairs lie between the matrix dimensions, so that each factor is one large product."""
    seeds, d, pairs, _ = S.shape
    left = (weight @ S.reshape(seeds, d, pairs * d)).reshape(seeds, -1, d)
    return (left @ weight.mT).reshape(seeds, weight.shape[1], pairs, weight.shape[1])


def _advance(X: Tensor | None, gram: Tensor, gate: Tensor, first: Tensor, later: Tensor) -> Tensor:
    """S_{m+1} = D_m^b (X_m + <h^b, h^e> I) D_m^e for every pair (b, e), in the memory of X."""
    if X is None:
        X = gate.new_zeros(len(gate), gate.shape[-1], len(first), gate.shape[-1])
    X.diagonal(dim1=1, dim2=3).add_(gram[..., None])
    X *= gate[:, first].transpose(1, 2)[..., None]
    X *= gate[:, later][:, None]
    return X


def _above_pairs(
    weight: Tensor,
    h: Tensor,
    delta: Tensor,
    A: Tensor,
    S: Tensor,
    X: Tensor,
    gram: Tensor,
    first: Tensor,
    later: Tensor,
) -> Tensor:
    """Each pair's contribution to the sum over l < m of |H_lm|^2, (seeds, pairs)."""
    gauss_newton = gram * _inner_with_products(X, A)
    residual = (delta @ delta.mT)[:, first, later] * S.diagonal(dim1=1, dim2=3).sum(-1)
    xi = torch.einsum("sbij,sej->sbei", A, delta) @ weight[:, None]  # W^T A^b delta^e
    forwards = torch.linalg.vecdot(S, h[:, first][:, None]).transpose(1, 2) * xi[:, first, later]
    backwards = torch.linalg.vecdot(S, xi[:, later, first][:, None]).transpose(1, 2) * h[:, later]
    pairs: Tensor = gauss_newton + residual + (forwards + backwards).sum(-1)
    return pairs


def _inner_with_products(X: Tensor, A: Tensor) -> Tensor:
    """<X^{be}, A^b A^e> for every pair b <= e, (seeds, pairs): by first sample, whose pairs lie next to each other."""
    samples = A.shape[1]
    if capacity.of(A.device).gathers:
        first, later = torch.triu_indices(samples, samples, device=A.device)
        return (A[:, first] @ X.transpose(1, 2) * A[:, later]).sum((2, 3))
    rows = A.transpose(1, 2).contiguous()
    found, start = [], 0
    for b in range(samples):
        stop = start + samples - b
        AX = (A[:, b] @ X[:, :, start:stop].flatten(2)).reshape(rows[:, :, b:].shape)
        found.append((AX * rows[:, :, b:]).sum((1, 3)))
        start = stop
    return torch.cat(found, dim=1)
