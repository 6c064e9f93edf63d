"""Exact identities of bias-free networks with positively homogeneous activations, over random architectures.

E_l is the parameter vector restricted to layer l, Pi_l its projector, g the gradient; z outputs, r = dl/dz, B = d2l/dz2.
"""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hessdiag.curvature.dense import hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.problem.problem import Problem
from tests.reference import half_squared_error

CLOSE = {"rtol": 1e-9, "atol": 1e-11}

widths = st.lists(st.integers(1, 5), min_size=3, max_size=5)
architectures = st.tuples(
    widths,
    st.sampled_from(["linear", "relu", "leaky"]),
    st.sampled_from(["mse", "ce"]),
    st.integers(0, 10**6),
)


def _build(architecture):
    dims, activation, loss, seed = architecture
    torch.manual_seed(seed)
    dims = [*dims[:-1], max(dims[-1], 2)]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(dims):
        layers += [
            nn.Linear(fan_in, fan_out, bias=False),
            {"linear": nn.Identity, "relu": nn.ReLU, "leaky": nn.LeakyReLU}[activation](),
        ]
    model = nn.Sequential(*layers[:-1]).double()
    samples = 4
    x = torch.randn(samples, dims[0]).double()
    y = torch.randn(samples, dims[-1]).double() if loss == "mse" else torch.randint(dims[-1], (samples,))
    function = half_squared_error if loss == "mse" else nn.functional.cross_entropy
    problem = Problem(model, data=[(x, y)], loss=function, reduction="mean")
    z = model(x).detach().requires_grad_()
    r = torch.autograd.grad(function(z, y), z, create_graph=True)[0]
    B = torch.autograd.functional.hessian(lambda flat: function(flat.reshape(z.shape), y), z.detach().flatten())
    return problem, z.detach(), r.detach(), B


def _parts(problem):
    theta = torch.cat([parameter.detach().flatten() for parameter in problem.parameters])
    restricted = []
    for layer in problem.layer_slices:
        E = torch.zeros_like(theta)
        E[layer.start : layer.stop] = theta[layer.start : layer.stop]
        restricted.append(E)
    return theta, restricted, HessianOperator(problem).gradient()


@settings(max_examples=40, deadline=None)
@given(architectures)
def test_every_layer_sees_the_same_inner_product(architecture):
    problem, z, r, _ = _build(architecture)
    _, restricted, g = _parts(problem)
    for E in restricted:
        torch.testing.assert_close(g @ E, (r * z).sum(), **CLOSE)


@settings(max_examples=40, deadline=None)
@given(architectures)
def test_hessian_along_layers_and_parameters(architecture):
    problem, z, r, B = _build(architecture)
    theta, restricted, g = _parts(problem)
    operator, L = HessianOperator(problem), len(restricted)
    curvature, work = z.flatten() @ B @ z.flatten(), (r * z).sum()
    products = operator @ torch.stack(restricted, dim=1)
    for left in range(L):
        for right in range(L):
            expected = curvature + (left != right) * work
            torch.testing.assert_close(restricted[left] @ products[:, right], expected, **CLOSE)
    only = [torch.where(E != 0, g, 0.0) for E in restricted]
    torch.testing.assert_close(products[:, 0] - products[:, 1], only[1] - only[0], **CLOSE)
    torch.testing.assert_close(theta @ (operator @ theta), L**2 * curvature + L * (L - 1) * work, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(architectures)
def test_rescaling_a_neuron_is_a_symmetry(architecture):
    problem, *_ = _build(architecture)
    theta, _, g = _parts(problem)
    first, second = problem.parameters[0], problem.parameters[1]
    row = torch.zeros_like(theta)
    row[: first.shape[1]] = 1.0
    column = torch.zeros_like(theta)
    column[first.numel() : first.numel() + second.numel() : second.shape[1]] = 1.0
    xi = (row - column) * theta
    torch.testing.assert_close(g @ xi, torch.zeros((), dtype=torch.float64), **CLOSE)
    torch.testing.assert_close(HessianOperator(problem) @ xi, (column - row) * g, **CLOSE)


@settings(max_examples=25, deadline=None)
@given(architectures)
def test_diagonal_blocks_are_gauss_newton(architecture):
    problem, z, _, B = _build(architecture)
    x = problem.data[0][0]
    H = hessian(problem)
    names = [name for name, _ in problem.named_parameters]

    def output(*values):
        return torch.func.functional_call(problem.model, dict(zip(names, values, strict=True)), (x,)).flatten()

    jacobians = torch.autograd.functional.jacobian(output, problem.parameters)
    for layer, J in zip(problem.layer_slices, jacobians, strict=True):
        J = J.reshape(z.numel(), -1)
        torch.testing.assert_close(H[layer.start : layer.stop, layer.start : layer.stop], J.T @ B @ J, **CLOSE)
    assert (
        float(torch.linalg.eigvalsh(H[: names and problem.layer_slices[0].stop, : problem.layer_slices[0].stop]).min())
        > -1e-9
    )


def test_a_dead_layer_leaves_nothing():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)).double()
    model[0].weight.data = -model[0].weight.data.abs()
    problem = Problem(model, data=[(torch.rand(5, 3).double(), torch.randn(5, 2).double())], loss=half_squared_error)
    assert not HessianOperator(problem).gradient().any()
    assert not hessian(problem).any()
