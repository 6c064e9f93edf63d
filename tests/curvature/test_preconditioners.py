"""Preconditioners against brute force: per-sample gradients, other libraries, singular values of the rearranged block."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.preconditioners import kronecker
from hessdiag.curvature.preconditioners.blocks import blocks_of, diagonal_of
from hessdiag.curvature.preconditioners.form import Part, Preconditioner, power
from hessdiag.curvature.preconditioners.moments import Moments
from hessdiag.curvature.preconditioners.roots import NoRootError
from hessdiag.problem.problem import Problem

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def dense(P, n):
    return P.of(lambda values: values)(torch.eye(n, dtype=torch.float64))


def brute_ggn(problem):
    """J'BJ, with every output's gradient by autograd and B by autograd's own Hessian of the loss."""
    total = 0
    for weight, (x, y) in zip(problem.batch_weights, problem.data, strict=True):
        z = problem.model(x)
        rows = [torch.autograd.grad(out, problem.parameters, retain_graph=True) for out in z.flatten()]
        J = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        loss = partial(of_flat, problem.criterion.function, z.shape, y)
        B = torch.autograd.functional.hessian(loss, z.detach().flatten())
        total = total + weight * J.T @ B @ J
    return total.detach()


def of_flat(loss, shape, target, flat):
    return loss(flat.view(shape), target)


def network(*, conv=False, seed=0):
    torch.manual_seed(seed)
    if conv:
        layers = (
            nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1)),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(27, 3),
        )
        model, x = nn.Sequential(*layers), torch.randn(5, 2, 3, 7)
    else:
        model, x = (
            nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3, bias=False)),
            torch.randn(7, 4),
        )
    y = torch.randint(3, (len(x),))
    return Problem(model.double(), data=[(x[:3].double(), y[:3]), (x[3:].double(), y[3:])], loss="ce")


def block_of(matrix, layer):
    places = layer.places.flatten()
    return matrix[places][:, places]


def test_functions_of_a_preconditioner_are_those_of_its_matrix():
    generator = torch.Generator().manual_seed(0)
    U, V, Q = (torch.linalg.qr(torch.randn(n, k, generator=generator).double())[0] for n, k in ((2, 2), (3, 3), (4, 2)))
    parts = (
        Part(torch.tensor([[0, 2, 4], [1, 3, 5]]), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).double(), U, V),
        Part(torch.tensor([6, 8, 9, 10]), torch.tensor([2.0, 7.0]).double(), Q),
        Part(torch.tensor([7]), torch.tensor([3.0]).double()),
    )
    P = Preconditioner("mixed", parts, 0)
    matrix = dense(P, 12).numpy()
    values, vectors = np.linalg.eigh(2.0 * matrix + 0.5 * np.eye(12))
    assert sorted(values)[:3] == pytest.approx([0.5, 0.5, 0.5])  # what no part has, and what the basis leaves out
    found = P.of(power(-0.5, 0.5, 2.0))(torch.eye(12).double()).numpy()
    np.testing.assert_allclose(found, vectors @ np.diag(values**-0.5) @ vectors.T, **CLOSE)
    np.testing.assert_allclose(P.of(power(-0.5, 0.5, 2.0))(torch.ones(12).double()), found @ np.ones(12), **CLOSE)
    assert P.frobenius == pytest.approx(np.linalg.norm(matrix))


def test_small_matrices_of_one_shape_are_multiplied_together():
    generator = torch.Generator().manual_seed(2)
    parts = []
    for start in (0, 6, 12):
        U, V = (torch.linalg.qr(torch.randn(n, n, generator=generator).double())[0] for n in (2, 3))
        values = torch.rand(2, 3, generator=generator).double()
        parts.append(Part(torch.arange(start, start + 6).view(2, 3), values, U, V))
    whole = Preconditioner("three", tuple(parts), 0)
    assert [part.values.shape for part in whole.together] == [(3, 2, 3)]
    half = torch.block_diag(*(_half(part) for part in parts))  # places of a layer follow each other
    for vectors in (torch.randn(18, generator=generator).double(), torch.eye(18).double()):
        np.testing.assert_allclose(whole.of(power(-0.5, 0.1))(vectors), half @ vectors, **CLOSE)


def _half(part):
    """(P + 0.1 I)^(-1/2) by the whole matrix of eigenvectors."""
    basis = torch.kron(part.left, part.right)
    return (basis * (0.1 + part.values.flatten()) ** -0.5) @ basis.T


def test_blocks_and_diagonal_are_bent_one_by_one():
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(6, 6, generator=generator).double()
    values, vectors = np.linalg.eigh((A + A.T).numpy())
    for kept in (slice(None), slice(4, None)):  # of all eigenpairs, and of two
        H = vectors[:, kept] @ np.diag(values[kept]) @ vectors[:, kept].T
        pairs = torch.from_numpy(values[kept]), torch.from_numpy(vectors[:, kept])
        blocks = blocks_of(*pairs, [slice(0, 2), slice(2, 6)], torch.abs)
        expected = np.zeros((6, 6))
        for span in (slice(0, 2), slice(2, 6)):
            own, turned = np.linalg.eigh(H[span, span])
            expected[span, span] = turned @ np.diag(np.abs(own)) @ turned.T
        np.testing.assert_allclose(dense(blocks, 6), expected, **CLOSE)
        assert blocks.held == 4 + 16
        np.testing.assert_allclose(dense(diagonal_of(*pairs, torch.abs), 6), np.diag(np.abs(np.diag(H))), **CLOSE)


@pytest.mark.parametrize("bias", [True, False])
def test_kfac_is_the_block_of_one_linear_layer_with_squared_errors(bias):
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=bias).double()
    problem = Problem(model, data=[(torch.randn(7, 4).double(), torch.randn(7, 3).double())], loss="mse")
    moments, G = Moments(problem), brute_ggn(problem)
    for made in (kronecker.kfac, kronecker.ekfac, kronecker.shampoo_squared):
        torch.testing.assert_close(dense(made(moments), len(G)), G, **CLOSE)
    assert kronecker.kfac(moments).held == 9 + (5 if bias else 4) ** 2


@pytest.mark.parametrize("conv", [False, True])
def test_the_diagonal_of_the_gauss_newton_matrix(conv):
    problem = network(conv=conv)
    found = dense(kronecker.ggn_diagonal(Moments(problem)), problem.n_parameters)
    torch.testing.assert_close(found, torch.diag(brute_ggn(problem).diagonal()), **CLOSE)


@pytest.mark.parametrize("loss", ["ce", "mse", "bce"])
def test_factors_are_those_of_curvlinops(loss):
    curvlinops = pytest.importorskip("curvlinops")
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = torch.randn(9, 5).double()
    y = torch.randint(3, (9,)) if loss == "ce" else torch.rand(9, 3).double().round()
    problem = Problem(model, data=[(x[:4], y[:4]), (x[4:], y[4:])], loss=loss)
    theirs = curvlinops.KFACLinearOperator(
        model,
        {"ce": nn.CrossEntropyLoss, "mse": nn.MSELoss, "bce": nn.BCEWithLogitsLoss}[loss](),
        list(model.parameters()),
        problem.data,
        fisher_type="type-2",
        separate_weight_and_bias=False,
    )
    n = problem.n_parameters
    expected = theirs @ torch.eye(n).double()
    found = dense(kronecker.kfac(Moments(problem)), n)
    assert float((found - expected).norm() / expected.norm()) < 1e-9


@pytest.mark.parametrize("conv", [False, True])
def test_ekfac_is_the_best_diagonal_in_the_basis_of_kfac(conv):
    problem = network(conv=conv)
    moments, G = Moments(problem), brute_ggn(problem)
    plain, better = (dense(made(moments), len(G)) for made in (kronecker.kfac, kronecker.ekfac))
    for layer, part in zip(moments.layers, kronecker.ekfac(moments).parts, strict=False):
        block = block_of(G, layer)
        basis = torch.kron(part.left, part.right)
        best = basis @ torch.diag((basis.T @ block @ basis).diagonal()) @ basis.T
        torch.testing.assert_close(block_of(better, layer), best, **CLOSE)
        errors = [float((block_of(found, layer) - block).norm()) for found in (plain, better)]
        assert errors[1] < errors[0] * (1 - 1e-3) or conv
        assert errors[1] <= errors[0] * (1 + 1e-12)


@pytest.mark.parametrize("conv", [False, True])
def test_shampoo_squared_is_one_power_step_to_the_best_kronecker_product(conv):
    """Rearranged (van Loan and Pitsianis 1993), a Kronecker product has rank one, and the best has the top singular vectors."""
    problem = network(conv=conv)
    moments, G = Moments(problem), brute_ggn(problem)
    squared, fourth = (dense(made(moments), len(G)) for made in (kronecker.shampoo_squared, kronecker.shampoo))
    for layer in moments.layers:
        b, a = layer.places.shape
        block = block_of(G, layer)
        R = block.view(b, a, b, a).permute(0, 2, 1, 3).reshape(b * b, a * a)
        left, right = R @ torch.eye(a).double().flatten(), R.T @ torch.eye(b).double().flatten()
        step = torch.kron(left.view(b, b), right.view(a, a)) / left.view(b, b).trace()
        torch.testing.assert_close(block_of(squared, layer), step, **CLOSE)
        quarter = block_of(fourth, layer)
        torch.testing.assert_close(
            torch.linalg.matrix_power(quarter, 4), torch.kron(left.view(b, b), right.view(a, a)), **CLOSE
        )
        U, S, V = torch.linalg.svd(R)
        best = torch.kron(U[:, 0].view(b, b), V[0].view(a, a))
        eyes = torch.eye(a).double().flatten(), torch.eye(b).double().flatten()
        start = torch.kron(torch.eye(b), torch.eye(a)).double()
        # A power step multiplies what the start has of each singular vector by its singular value.
        shares = [S * (V @ eyes[0])[: len(S)], S * (U.T @ eyes[1])[: len(S)]]
        predicted = abs(float(shares[0][0] * shares[1][0] / shares[0].norm() / shares[1].norm()))
        assert cosine(step, best) == pytest.approx(predicted, rel=1e-9)
        again = torch.kron((R @ right).view(b, b), (R.T @ left).view(a, a))
        assert cosine(start, best) < cosine(step, best) < cosine(again, best) < 1


def cosine(one, other):
    return abs(float((one * other).sum() / one.norm() / other.norm()))


def test_soap_is_adam_in_the_basis_of_shampoo():
    problem = network()
    moments, G = Moments(problem), brute_ggn(problem)
    for layer, part in zip(moments.layers, kronecker.soap(moments).parts, strict=False):
        basis = torch.kron(part.left, part.right)
        squares = (basis.T @ block_of(G, layer) @ basis).diagonal()
        torch.testing.assert_close(part.values.flatten() ** 2, squares, **CLOSE)
        b, a = layer.places.shape
        L = torch.einsum("bici->bc", block_of(G, layer).view(b, a, b, a))
        turned = part.left.T @ L @ part.left
        assert float((turned - torch.diag(turned.diagonal())).abs().max()) < 1e-12
    rest = next(part for part in kronecker.soap(moments).parts if part.left is None)
    torch.testing.assert_close(rest.values**2, G.diagonal()[moments.rest], **CLOSE)


def test_positions_of_a_sample_are_taken_together_for_its_gradient_and_apart_for_kfac():
    torch.manual_seed(0)

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.two(torch.tanh(self.one(x)).mean(1))

    problem = Problem(Tokens().double(), data=[(torch.randn(5, 6, 3).double(), torch.randn(5, 2).double())], loss="mse")
    moments, G = Moments(problem), brute_ggn(problem)
    assert moments.sharing
    torch.testing.assert_close(
        moments.factors[0].squares.flatten(), G.diagonal()[moments.layers[0].places.flatten()], **CLOSE
    )
    x = problem.data[0][0]
    h = torch.cat([x, torch.ones(5, 6, 1).double()], 2).flatten(0, 1)
    torch.testing.assert_close(moments.factors[0].inputs, h.T @ h / 30, **CLOSE)


def test_random_gradients_stand_for_many_outputs_without_bias():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 50), nn.Unflatten(1, (10, 5))).double()
    x, y = torch.randn(40, 3).double(), torch.randint(10, (40, 5))
    ce = Problem(model, data=[(x, y)], loss="ce")
    mse = Problem(nn.Sequential(nn.Linear(3, 200)).double(), data=[(x, torch.randn(40, 200).double())], loss="mse")
    for problem, exact in ((ce, None), (mse, 64)):
        moments = Moments(problem)
        assert moments.draws == exact
        G = GaussNewtonOperator(problem, check=False) @ torch.eye(problem.n_parameters).double()
        found, diagonal = moments.factors[0].squares.flatten(), G.diagonal()[moments.layers[0].places.flatten()]
        assert float((found - diagonal).norm() / diagonal.norm()) < (1e-12 if exact is None else 0.1)
    wide = Problem(nn.Sequential(nn.Linear(3, 150)).double(), data=[(x, torch.randint(150, (40,)))], loss="ce")
    moments = Moments(wide)
    p = torch.softmax(wide.model(x), 1).detach()
    expected = ((p - p.square()).sum(1) * (x.square().sum(1) + 1)).mean()
    trace = sum(float(own.squares.sum()) for own in moments.factors)
    assert moments.draws == 64
    assert trace == pytest.approx(float(expected), rel=0.1)


@pytest.mark.parametrize(
    ("loss", "why"),
    [(lambda z, y: z.sum(1).mean() ** 2, "couples samples"), (lambda z, y: -z.square().mean(), "not convex")],
)
def test_what_has_no_root_is_refused(loss, why):
    model = nn.Linear(2, 3).double()
    problem = Problem(model, data=[(torch.randn(4, 2).double(), torch.zeros(4, 3).double())], loss=loss)
    with pytest.raises(NoRootError, match=why):
        Moments(problem)
    objective = Problem(model, data=[None], objective=lambda model, batch: model.weight.square().sum())
    with pytest.raises(NoRootError, match="objective"):
        Moments(objective)


def test_the_model_is_left_as_it_was():
    problem = network(conv=True)
    state, random = {name: value.clone() for name, value in problem.model.state_dict().items()}, torch.get_rng_state()
    kronecker.ekfac(Moments(problem))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in problem.model.state_dict().items())
    assert not any(module._forward_hooks for module in problem.model.modules())
    assert all(parameter.grad is None for parameter in problem.parameters)
