"""Products of chains of linear layers, against torch's own double backward; and what is left to autograd."""

import pytest
import torch
from torch import Tensor, nn

from hessdiag.curvature.chains.layer_chain import LayerChain, NotAChainError
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.problem.problem import Problem
from tests.reference import Backwards

LOSSES = {
    "ce": torch.randint(3, (7,), generator=torch.Generator().manual_seed(5)),
    "mse": torch.linspace(-1, 1, 21).view(7, 3),
}


def problem_of(*modules: nn.Module, loss: str = "ce", **more) -> Problem:
    torch.manual_seed(1)
    for module in modules:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.6)
    model = nn.Sequential(*modules).double()
    y = LOSSES[loss]
    return Problem(model, data=[(torch.randn(7, 4).double(), y.double() if loss == "mse" else y)], loss=loss, **more)


def by_autograd(problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian, every row by a backward pass of its own."""
    total: Tensor = sum(
        w * problem.evaluate(batch) for w, batch in zip(problem.batch_weights, problem.data, strict=True)
    )
    parts = torch.autograd.grad(total, problem.parameters, create_graph=True)
    gradient = torch.cat([part.flatten() for part in parts])
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(
            entry, problem.parameters, retain_graph=True, materialize_grads=True, allow_unused=True
        )])
        for entry in gradient
    ]  # fmt: skip
    return gradient.detach(), torch.stack(rows)


def compared(problem: Problem) -> HessianOperator:
    operator = HessianOperator(problem, check=False)
    gradient, truth = by_autograd(problem)
    V = torch.randn(operator.shape[0], 5, dtype=torch.float64)
    for found, expected in (
        (operator.gradient(), gradient),
        (operator @ V, truth @ V),
        (operator @ V[:, 0], truth @ V[:, 0]),
    ):
        assert float((found - expected).norm()) <= 1e-13 * float(expected.norm())
    for layer in problem.layer_slices:
        part = operator.rows(torch.arange(3), layer)
        assert torch.allclose(part, truth[:3, layer.start : layer.stop], rtol=1e-12, atol=1e-14)
    return operator


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "between",
    [nn.Tanh(), nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.ELU(), nn.Identity(),
     nn.Sequential(nn.Tanh(), nn.Sigmoid()), nn.LeakyReLU(0.2), nn.Mish(), nn.Hardtanh()],
    ids=lambda module: repr(module).replace("\n", ""),
)  # fmt: skip
def test_products_are_those_of_double_backward(between, loss):
    operator = compared(
        problem_of(nn.Linear(4, 5), between, nn.Linear(5, 6, bias=False), between, nn.Linear(6, 3), loss=loss)
    )
    assert operator.engine == "batched forward over reverse, layer by layer"


def test_one_layer_some_layers_and_several_batches():
    compared(problem_of(nn.Linear(4, 3)))
    compared(problem_of(nn.Linear(4, 3), loss="mse"))
    front = nn.Linear(4, 5)
    assert compared(problem_of(front.requires_grad_(False), nn.Tanh(), nn.Linear(5, 3))).engine.count("layer by layer")
    whole = problem_of(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = whole.data[0]
    assert compared(Problem(whole.model, data=[(x[:5], y[:5]), (x[5:], y[5:])], loss="ce")).engine.count("layer")


def test_layers_run_in_another_order_than_they_are_registered_and_on_sequences():
    def objective(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).logsumexp((1, 2)).pow(2).mean()

    torch.manual_seed(2)
    problem = Problem(Backwards().double(), data=[torch.randn(6, 2, 4).double()], objective=objective)
    assert compared(problem).engine.count("layer by layer")


def test_a_loss_that_is_linear_in_the_output():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    problem = Problem(model, data=[torch.randn(6, 4).double()], objective=lambda m, x: m(x).mean())
    assert compared(problem).engine.count("layer by layer")


class Skip(nn.Module):
    def __init__(self, change) -> None:
        super().__init__()
        self.a, self.b, self.change = nn.Linear(4, 4), nn.Linear(4, 3), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self, x)


OTHERS = {
    "around a layer": lambda m, x: m.b(torch.tanh(m.a(x)) + m.a(x)),
    "past the last layer": lambda m, x: m.b(h := torch.tanh(m.a(x))) + h[:, :3],
    "softmax between": lambda m, x: m.b(m.a(x).softmax(1)),
    "samples mixed between": lambda m, x: m.b(m.a(x).flip(0)),
    "batch normalized between": lambda m, x: m.b((h := m.a(x)) - h.mean(0)),
    "by another number": lambda m, x: m.b(m.a(x) * x),
    "weights used beside": lambda m, x: m.b(torch.tanh(m.a(x))) * m.a.weight.sum(),
    "the functional form": lambda m, x: m.b(torch.tanh(nn.functional.linear(x, m.a.weight, m.a.bias))),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_what_is_no_chain_is_left_to_autograd(change):
    torch.manual_seed(3)
    problem = Problem(Skip(change).double(), data=[(torch.randn(7, 4).double(), LOSSES["ce"])], loss="ce")
    with pytest.raises(NotAChainError):
        LayerChain(problem, problem.data[0], torch.float64)
    assert compared(problem).engine == "batched double backward"


def test_hooks_penalties_and_other_parameters_are_left_to_autograd():
    hooked = problem_of(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    hooked.model[0].register_forward_hook(lambda module, args, z: 2 * z)
    masked = problem_of(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    masked.model[0].weight.register_hook(lambda slope: 3 * slope)
    tied = nn.Linear(4, 4)
    for problem in (
        hooked,
        problem_of(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.PReLU()),
        problem_of(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)),
        problem_of(tied, nn.Tanh(), tied, nn.Tanh(), nn.Linear(4, 3)),
    ):
        assert compared(problem).engine == "batched double backward"
    with pytest.raises(NotAChainError, match="hooks"):
        LayerChain(masked, masked.data[0], torch.float64)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    def penalized(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1]) + model[0].weight.pow(4).sum()

    problem = Problem(model, data=hooked.data, objective=penalized)
    assert compared(problem).engine == "batched double backward"
