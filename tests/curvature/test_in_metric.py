"""P^(-1/2) A P^(-1/2): every way in which numbers leave an operator, against dense products by numpy in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.curvature import dense, exact
from hessdiag.curvature.checks import examine
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.metric import in_metric, uneven
from hessdiag.curvature.support import support
from hessdiag.errors import SpecError
from hessdiag.linalg import eigsh
from hessdiag.machine import capacity
from hessdiag.problem.problem import Problem
from tests.reference import brute_force_hessian


def _x(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def _classes(n, k=3):
    return torch.arange(n) % k


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.c(h + torch.nn.functional.softplus(self.b(h)) * x)


CASES = {
    "several batches": lambda: Problem(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double(), data=[(_x(7, 4), _classes(7)), (_x(2, 4), _classes(2))], loss="ce"),
    "no bias": lambda: Problem(nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 2, bias=False)).double(), data=[(_x(7, 4), _x(7, 2))], loss="mse"),
    "residual and product": lambda: Problem(Residual().double(), data=[(_x(7, 4), _classes(7))], loss="ce"),
    "convolution and norm": lambda: Problem(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 4)).double(), data=[(_x(5, 1, 4, 4), _classes(5, 4))], loss="ce"),
}  # fmt: skip


def _metric(problem, decades=3.0):
    """Positive numbers over some decades."""
    return 10 ** (decades * (torch.rand(problem.n_parameters, dtype=torch.float64) - 0.5))


def _taken(H, P):
    """The oracle: by numpy."""
    s = 1 / np.sqrt(P.double().numpy())
    return torch.from_numpy(s[:, None] * H.double().numpy() * s[None, :])


def _close(found, expected, tolerance=1e-9):
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_every_way_out_of_the_hessian(name):
    problem = CASES[name]()
    P = _metric(problem)
    A = _taken(brute_force_hessian(problem), P)
    operator, n = in_metric(HessianOperator(problem), P), problem.n_parameters
    v, V = _x(n), _x(n, 6)
    _close(operator @ v, A @ v)
    _close(operator @ V, A @ V)
    _close(operator.raw(V), A @ V)
    some = torch.tensor([n - 1, 0, 2])
    _close(operator.rows(some), A[some])
    for layer in problem.layer_slices:
        _close(operator.rows(some, layer), A[some, layer.start : layer.stop])
    for rows, block in operator.blocks(torch.arange(n)):
        _close(block, A[rows])
    whole = {}
    _close(dense.of(operator, lambda numbers, rows: whole.update(zip(numbers.tolist(), rows.clone(), strict=True))), A)
    _close(torch.stack([whole[row] for row in range(n)]), A)
    gradient = HessianOperator(problem).gradient()
    _close(operator.gradient(), gradient / P.sqrt())
    _close(in_metric(operator, None) @ v, brute_force_hessian(problem) @ v)
    _close(operator.on(problem.like(data=list(problem.data))) @ v, A @ v)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("room", [2**19, 40], ids=["whole", "in small panels"])
@pytest.mark.parametrize("name", CASES)
def test_streamed_rows(name, room, device, monkeypatch):
    """On the CPU, by the ways of both devices; neurons in another order too."""
    monkeypatch.setattr(capacity, "CPU", replace(capacity.of(torch.device(device)), panel_numbers=room))
    problem = CASES[name]()
    P = _metric(problem)
    A = _taken(brute_force_hessian(problem), P)
    operator = in_metric(HessianOperator(problem), P)
    space = exact.neuron_space(operator)
    orders = [torch.randperm(neuron.outputs) for neuron in space.layers]
    sums = torch.stack([A[:, layer.start : layer.stop].abs().sum(1) for layer in problem.layer_slices], dim=1)
    for one in (space, space.reordered(orders)):
        found = exact.row_statistics(operator, one)
        _close(found.diagonal, A.diagonal())
        _close(found.sums, sums)
    assert exact.row_statistics(operator, space).certificate < 1e-10


def test_a_space_without_the_metric_is_no_space_of_an_operator_in_it():
    problem = CASES["several batches"]()
    space = exact.neuron_space(HessianOperator(problem))
    assert space.certificate(in_metric(HessianOperator(problem), _metric(problem))) > 0.1


@pytest.mark.parametrize("kind", [GaussNewtonOperator, FisherOperator])
def test_matrices_of_the_output(kind):
    problem = CASES["several batches"]()
    P, n = _metric(problem), problem.n_parameters
    total = torch.zeros(n, n, dtype=torch.float64)
    for weight, (x, _) in zip(problem.batch_weights, problem.data, strict=True):
        for one in x:  # J'(diag p - pp')J of each sample, by autograd row by row
            z = problem.model(one)
            J = torch.stack([
                torch.cat([part.flatten() for part in torch.autograd.grad(entry, problem.parameters, retain_graph=True)])
                for entry in z
            ])  # fmt: skip
            p = z.softmax(0).detach()
            total += weight / len(x) * J.T @ (p.diag() - torch.outer(p, p)) @ J
    A = _taken(total, P)
    operator = in_metric(kind(problem), P)
    _close(operator @ torch.eye(n, dtype=torch.float64), A)
    compared = in_metric(kind(problem, check=False), P).compared()
    assert compared.error < 1e-6 < compared.allowed


def test_eigenvalues_by_the_public_eigensolver():
    problem = CASES["residual and product"]()
    P = _metric(problem)
    values = np.linalg.eigvalsh(_taken(brute_force_hessian(problem), P).numpy())
    found = eigsh(in_metric(HessianOperator(problem), P), lowest=2, highest=2, tol=1e-8)
    np.testing.assert_allclose(found.values, [*values[:2], *values[-2:]], rtol=1e-9)


def test_signs_of_eigenvalues_do_not_hang_on_the_metric():
    """Sylvester's law of inertia."""
    problem = CASES["no bias"]()
    counts = set()
    for decades in (0.0, 2.0, 4.0):
        values = torch.linalg.eigvalsh(dense.of(in_metric(HessianOperator(problem), _metric(problem, decades))))
        counts.add((int((values > 1e-9).sum()), int((values < -1e-9).sum())))
    ((positive, negative),) = counts
    assert min(positive, negative) > 0


def test_differences_stand_in_for_a_missing_derivative():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * (1 - x.tanh() ** 2)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x, by=Once.apply):
            return self.b(by(self.a(x)))

    model, x, y = Net().double(), _x(6, 3), _x(6, 2)
    problem = Problem(model, data=[(x, y)], objective=lambda m, b: (m(b[0]) - b[1]).square().mean())
    smooth = Problem(model, data=[(x, y)], objective=lambda m, b: (m(b[0], torch.tanh) - b[1]).square().mean())
    P = _metric(problem)
    operator = in_metric(HessianOperator(problem, check=False), P)
    checks = examine(operator)
    assert operator.missing is not None
    assert not checks.failed
    v = _x(problem.n_parameters)
    expected = _taken(HessianOperator(smooth) @ torch.eye(problem.n_parameters, dtype=torch.float64), P) @ v
    _close(operator @ v, expected, 1e-7)
    _close(operator.gradient(), HessianOperator(smooth).gradient() / P.sqrt())


def test_untouched_rows_are_left_out_of_the_metric_too():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(40, 3), nn.Linear(3, 3)

        def forward(self, ids):
            return self.out(torch.tanh(self.table(ids).mean(1)))

    problem = Problem(Tokens().double(), data=[(torch.tensor([[1, 5], [7, 5]]), _classes(2))], loss="ce")
    P = _metric(problem)
    part = support(problem, 20)
    assert part.untouched == 37 * 3
    operator = in_metric(HessianOperator(part.problem), part.metric(P))
    A = _taken(brute_force_hessian(problem), P)
    _close(part.dense(operator), A[part.kept][:, part.kept])


def test_self_checks_of_products_in_a_metric():
    problem = CASES["several batches"]()
    plain, operator = (
        HessianOperator(problem, check=False),
        in_metric(HessianOperator(problem, check=False), _metric(problem)),
    )
    found, checks = examine(operator), examine(plain)
    assert found.checks["metric_symmetry"] < 1e-12
    assert {name: found.checks[name] for name in checks.checks} == checks.checks
    assert not found.failed
    in_metric(HessianOperator(problem), _metric(problem)) @ _x(problem.n_parameters)  # looks at the point by itself


def test_rounding_that_a_metric_magnifies_is_measured():
    """A key bias has no gradient but for rounding; where P is tiny there, rounding becomes curvature."""
    torch.manual_seed(1)
    layer = nn.MultiheadAttention(4, 1, batch_first=True)
    net = nn.Linear(4, 3)
    model = nn.ModuleDict({"attention": layer, "out": net})
    x = torch.randn(3, 5, 4)

    def loss(m, batch):
        return nn.functional.cross_entropy(m["out"](m["attention"](batch, batch, batch)[0].mean(1)), _classes(3))

    problem = Problem(model, data=[x], objective=loss)
    keys = slice(48 + 4, 48 + 8)
    P = torch.ones(problem.n_parameters)
    even = in_metric(HessianOperator(problem), P)
    assert even.precision < 1e-5
    P[keys] = 1e-12
    assert uneven(in_metric(HessianOperator(problem), P)) > 30 * even.precision
    assert in_metric(HessianOperator(problem), P).precision > 30 * even.precision


@pytest.mark.parametrize(
    ("metric", "match"),
    [
        (torch.ones(3), "43 numbers"),
        (torch.zeros(43), "43 of its 43"),
        (torch.full((43,), -1.0), "positive"),
        (torch.full((43,), float("nan")), "positive"),
        (torch.full((43,), 1e-100, dtype=torch.float64), "beyond torch.float32"),
    ],
)
def test_what_is_no_metric(metric, match):
    problem = Problem(
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), data=[(_x(7, 4).float(), _classes(7))], loss="ce"
    )
    with pytest.raises(ValueError, match=match):
        in_metric(HessianOperator(problem), metric)


def test_an_infinite_entry_holds_a_parameter():
    problem = CASES["several batches"]()
    P = _metric(problem)
    P[3], P[20] = torch.inf, torch.inf
    A = _taken(brute_force_hessian(problem), P)
    assert not A[3].any()
    _close(dense.of(in_metric(HessianOperator(problem), P)), A)


def test_questions_of_a_problem_refuse_an_operator_in_a_metric():
    problem = CASES["several batches"]()
    for ask in (hessdiag.eigs, hessdiag.spectrum, hessdiag.bounds, hessdiag.diag_share, hessdiag.trust_radius):
        with pytest.raises(SpecError, match="metric="):
            ask(in_metric(HessianOperator(problem), _metric(problem)))
