"""Which networks are raced away from a plateau: those whose gradient says that they are on one."""

import pytest
import torch
from torch import nn

from hessdiag import Problem, ProblemRequest, check, load_problem
from hessdiag.questions import documents
from hessdiag.questions.report.plateau import FLAT, no_plateau, steepness


def asked(problem, **options):
    return documents.document(check(problem, **options))["result"]


def network(depth=3, activation=nn.ReLU):
    torch.manual_seed(0)
    layers = [layer for size in (10, *[32] * (depth - 1)) for layer in (nn.Linear(size, 32), activation())]
    return nn.Sequential(*layers, nn.Linear(32, 4))


def classified(model):
    torch.manual_seed(1)
    return Problem(model, data=[(torch.randn(64, 10), torch.randint(4, (64,)))], loss="ce")


def test_what_the_gradient_does_not_leave_is_a_plateau():
    deep = network(40, nn.Tanh)
    zero = network()
    for parameter in zero.parameters():
        nn.init.zeros_(parameter)
    lecun = load_problem(ProblemRequest("builtin:mlp(depth=30, width=16, init='lecun')", device="cpu"))
    assert [no_plateau(asked(one)) for one in (classified(deep), classified(zero), lecun)] == [None] * 3


@pytest.mark.parametrize(
    ("options", "cause"),
    [({"optimizer": "sgd", "lr": 100.0}, "learning rate too high"), ({"optimizer": "sgd", "lr": 1e-7}, "updates too small")],
)  # fmt: skip
def test_what_is_stuck_on_a_slope_is_not_raced(options, cause):
    why = no_plateau(asked(classified(network()), **options))
    assert why.startswith("the gradient is no plateau's, ")
    assert cause in why


def test_healthy_and_trained_networks_are_not_raced():
    result = asked(classified(network()))
    assert no_plateau(result) == "check finds nothing that keeps the loss from falling"
    assert no_plateau(result | {"trained": True}) == "the network is trained: there is no plateau to leave"
    assert "no answer" in no_plateau(None)


def test_steepness_is_that_of_gradients_by_hand():
    """|g||w| / loss of each layer, with biases that are zero, so that a layer is its weights."""
    model = network(2)
    for layer in (model[0], model[2], model[4]):
        layer.bias = None
    problem = classified(model)
    x, y = problem.data[0]
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    by_hand = sorted(float(w.grad.norm() * w.detach().norm() / loss.detach()) for w in model.parameters())[1]
    assert steepness(asked(problem)) == pytest.approx(by_hand, rel=1e-4)
    assert by_hand > FLAT


@pytest.mark.parametrize("loss", ["NaN", None, 0.0, "Infinity"])
def test_a_loss_that_is_no_number_tells_no_steepness(loss):
    layer = {"gradient_rms": 1.0, "weight_rms": 1.0, "parameters": 3}
    assert steepness({"output": {"loss": loss}, "step": None, "layers": [layer]}) is None
    assert steepness({"output": {"loss": 1.0}, "step": None, "layers": [layer | {"gradient_rms": "NaN"}]}) is None
