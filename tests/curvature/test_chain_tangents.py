"""Tangents of chains of linear layers by hand, against those that autograd takes; and what is left to it."""

import pytest
import torch
from torch import Tensor, nn

from hessdiag.curvature import exact, neuron_space
from hessdiag.curvature.chains.layer_chain import NotAChainError
from hessdiag.curvature.chains.tangents import ChainTangents
from hessdiag.curvature.dense import hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError, neuron_layers
from hessdiag.problem.problem import Problem
from tests.reference import Backwards, brute_force_hessian


def problem_of(between: nn.Module, loss: str = "ce", samples: tuple[int, ...] = (7,), outputs: int = 3) -> Problem:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(4, 5), between, nn.Linear(5, 6, bias=False), between, nn.Linear(6, 5), nn.Linear(5, outputs)
    ).double()
    data = [
        (torch.randn(n, 4).double(), torch.arange(n) % outputs if loss == "ce" else torch.randn(n, outputs).double())
        for n in samples
    ]
    return Problem(model, data=data, loss=loss)


def assert_alike(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("samples", [(7,), (4, 3, 1)], ids=["one batch", "three"])
@pytest.mark.parametrize("loss", ["ce", "mse"])
@pytest.mark.parametrize("between", [nn.Tanh(), nn.ReLU(), nn.Softplus(), nn.Identity()], ids=repr)
def test_tangents_are_those_of_autograd(between, loss, samples):
    problem = problem_of(between, loss, samples)
    layers = neuron_layers(problem)
    by_hand, by_autograd = ChainTangents(problem, layers), neuron_space._Graphs(problem, layers)
    assert_alike(by_hand.inputs, by_autograd.inputs)
    assert_alike(by_hand.cotangents, by_autograd.cotangents)
    for lower, layer in enumerate(layers):
        for neurons in (torch.arange(layer.outputs), torch.tensor([2, 0]), torch.tensor([1])):
            for found, expected in zip(
                by_hand.tangents(lower, neurons), by_autograd.tangents(lower, neurons), strict=True
            ):
                assert_alike(found, expected)


@pytest.mark.parametrize("loss", ["linear", "of one output"])
def test_losses_that_bend_little_or_not_at_all(loss):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    functions = {"linear": lambda m, x: m(x).mean(), "of one output": lambda m, x: m(x)[:, 0].exp().mean()}
    problem = Problem(model, data=[torch.randn(6, 4).double()], objective=functions[loss])
    truth = brute_force_hessian(problem)
    assert float((hessian(problem) - truth).norm()) <= 1e-13 * float(truth.norm())


def test_a_loss_that_mixes_samples_is_told_from_a_product():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    problem = Problem(
        model, data=[torch.randn(6, 4).double()], objective=lambda m, x: (z := m(x)).square().mean().sqrt() + z.mean()
    )
    ChainTangents(problem, neuron_layers(problem))  # the layers are a chain
    with pytest.raises(NotInNeuronSpaceError, match="mixes samples"):
        exact.neuron_space(HessianOperator(problem))
    truth = brute_force_hessian(problem)
    assert float((hessian(problem) - truth).norm()) <= 1e-12 * float(truth.norm())


def test_layers_in_another_order_and_sequences_are_no_such_chain():
    torch.manual_seed(3)
    backwards = Problem(Backwards().double(), data=[(torch.randn(7, 4).double(), torch.arange(7) % 3)], loss="ce")
    with pytest.raises(NotAChainError, match="another order"):
        ChainTangents(backwards, neuron_layers(backwards))
    tokens = Problem(
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double(),
        data=[torch.randn(6, 2, 4).double()],
        objective=lambda m, x: m(x).logsumexp((1, 2)).pow(2).mean(),
    )
    with pytest.raises(NotAChainError, match="one vector per sample"):
        ChainTangents(tokens, neuron_layers(tokens))
    for problem in (backwards, tokens):
        truth = brute_force_hessian(problem)
        assert float((hessian(problem) - truth).norm()) <= 1e-12 * float(truth.norm())
