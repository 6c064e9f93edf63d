from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hessdiag.machine import capacity
from hessdiag.nets.activations import ACTIVATIONS, activation
from hessdiag.questions.vanishing import mlp_norms

DIMS = [3, 4, 5, 3, 2]
SEEDS, SAMPLES = 3, 5


def _ensemble(dims=DIMS, seeds=SEEDS, samples=SAMPLES):
    weights = [torch.randn(seeds, out, inside, dtype=torch.float64) for inside, out in pairwise(dims)]
    return (
        weights,
        torch.randn(seeds, samples, dims[0]).double(),
        torch.randn(seeds, samples, dims[-1]).double(),
    )


def _dense(weights, x, y, phi, scale):
    """Gradient and Hessian of each network in turn, by nested torch.func transforms of a plain loop over layers."""
    for index in range(len(x)):
        shapes = [w.shape[1:] for w in weights]

        def loss(theta, index=index, shapes=shapes):
            h = x[index]
            for layer, (part, shape) in enumerate(zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)):
                h = h @ part.reshape(shape).T
                h = phi.function(h) if layer < len(weights) - 1 else h
            return scale * (h - y[index]).square().sum() / 2

        theta = torch.cat([w[index].flatten() for w in weights])
        yield torch.func.grad(loss)(theta), torch.func.hessian(loss)(theta)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_block_norms_match_the_dense_hessian(name):
    phi, scale = activation(name), 1 / SAMPLES
    weights, x, y = _ensemble()
    state = mlp_norms.run(weights, x, y, phi, scale)
    diagonal, above, traces = mlp_norms.hessian_norms2(weights, state, scale)
    gradients = mlp_norms.gradient_norms2(state)
    sizes = [w[0].numel() for w in weights]
    for index, (g, H) in enumerate(_dense(weights, x, y, phi, scale)):
        blocks = torch.tensor([[b.square().sum() for b in row.split(sizes, dim=1)] for row in H.split(sizes)])
        torch.testing.assert_close(diagonal[index], blocks.diagonal(), rtol=1e-11, atol=0)
        torch.testing.assert_close(above[index], blocks.triu(1).sum(0), rtol=1e-11, atol=1e-13)
        expected = torch.stack([part.square().sum() for part in g.split(sizes)])
        torch.testing.assert_close(gradients[index], expected, rtol=1e-11, atol=0)
        torch.testing.assert_close(traces[index], H.trace(), rtol=1e-11, atol=0)
    torch.testing.assert_close(mlp_norms.diagonal_block_norms2(weights, state, scale), (diagonal, traces))


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_dense_hessians_match_a_plain_loop(name):
    phi = activation(name)
    weights, x, y = _ensemble()
    found = mlp_norms.dense_hessians(weights, x, y, phi, 0.5)
    for H, (_, expected) in zip(found, _dense(weights, x, y, phi, 0.5), strict=True):
        torch.testing.assert_close(H, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "relu", "gelu"])
def test_random_products_estimate_the_same_norm(name):
    phi, scale = activation(name), 1 / SAMPLES
    weights, x, y = _ensemble()
    state = mlp_norms.run(weights, x, y, phi, scale)
    diagonal, above, _ = mlp_norms.hessian_norms2(weights, state, scale)
    exact = diagonal.sum(1) + 2 * above.sum(1)
    probes = mlp_norms.hessian_norm2_by_products(weights, x, y, phi, scale, 2000, torch.Generator().manual_seed(1))
    z = (probes.mean(0) - exact) / (probes.std(0) / 2000**0.5)
    assert float(z.abs().max()) < 4


@pytest.mark.parametrize("together", [2, 3, 7, 50])
def test_vectors_that_share_a_pass_are_the_same(together):
    weights, x, y = _ensemble()
    alone, shared = (
        mlp_norms.hessian_norm2_by_products(
            weights, x, y, activation("tanh"), 0.2, 7, torch.Generator().manual_seed(1), count
        )
        for count in (1, together)
    )
    assert alone.shape == (7, SEEDS)
    torch.testing.assert_close(shared, alone, rtol=1e-12, atol=0)


def test_vector_jacobian_product_is_relative():
    phi = activation("relu")
    weights, x, y = _ensemble()
    u = torch.randn(SEEDS, DIMS[-1], dtype=torch.float64)
    found = mlp_norms.jacobian_norm2(weights, mlp_norms.run(weights, x, y, phi, 1.0), u)
    for index in range(SEEDS):
        first = weights[0][index].clone().requires_grad_()
        z = mlp_norms.forward(
            [first[None]] + [w[index : index + 1] for w in weights[1:]], x[index : index + 1, :1], phi
        )[0][-1]
        (g,) = torch.autograd.grad((z[0, 0] * u[index]).sum(), first)
        expected = g.square().sum() / u[index].square().sum() / x[index, 0].square().sum()
        torch.testing.assert_close(found[index], expected, rtol=1e-11, atol=0)


def test_cost_is_linear_in_depth():
    assert mlp_norms.exact_cost(64, 32, 16) == 2 * mlp_norms.exact_cost(32, 32, 16)


@pytest.mark.parametrize(("depth", "width", "samples"), [(8, 12, 6), (8, 24, 6), (4, 12, 12)])
@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_cost_is_what_is_spent(name, depth, width, samples):
    """Counted in matrix products while the norms are computed: 2 per multiplication and addition, as announced."""
    phi = activation(name)
    weights, x, y = _ensemble([width] * (depth + 1), seeds=1, samples=samples)
    state = mlp_norms.run(weights, x, y, phi, 1.0)
    with FlopCounterMode(display=False) as counter:
        mlp_norms.hessian_norms2(weights, state, 1.0)
    # To leading order: the first layer has nothing below it, and single samples' products come on top.
    assert counter.get_total_flops() == pytest.approx(mlp_norms.exact_cost(depth, width, samples), rel=0.3)


def test_cost_is_asymptotically_what_is_spent():
    weights, x, y = _ensemble([40] * 25, seeds=1, samples=20)
    state = mlp_norms.run(weights, x, y, activation("relu"), 1.0)
    with FlopCounterMode(display=False) as counter:
        mlp_norms.hessian_norms2(weights, state, 1.0)
    assert counter.get_total_flops() == pytest.approx(mlp_norms.exact_cost(24, 40, 20), rel=0.08)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_norms_by_the_ways_of_a_gpu_are_the_same(name, monkeypatch):
    weights, x, y = _ensemble()
    state = mlp_norms.run(weights, x, y, activation(name), 0.2)
    expected = mlp_norms.hessian_norms2(weights, state, 0.2)
    monkeypatch.setattr(capacity, "CPU", capacity.CUDA)
    for found, known in zip(mlp_norms.hessian_norms2(weights, state, 0.2), expected, strict=True):
        torch.testing.assert_close(found, known, rtol=1e-12, atol=0)
