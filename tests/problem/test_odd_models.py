"""Models and losses whose numbers were, or would be, wrong without care. Oracle: differences of plain gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hessdiag.curvature.dense import hessian
from hessdiag.errors import ComputeError, LoadError
from hessdiag.problem.problem import Problem

torch.manual_seed(0)
F64 = torch.float64
X, Y = torch.randn(6, 3, dtype=F64), torch.randn(6, 2, dtype=F64)
CLASSES = torch.tensor([0, 0, 0, 1, 2, 2])


def _differences(loss, parameters, h=1e-6):
    rows = []
    for parameter in parameters:
        flat = parameter.data.view(-1)
        for index in range(len(flat)):
            kept, ends = flat[index].item(), []
            for side in (1, -1):
                flat[index] = kept + side * h
                ends.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(), parameters)]))
            flat[index] = kept
            rows.append((ends[0] - ends[1]) / (2 * h))
    return torch.stack(rows)


def _perceptron():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weight_norm(wrap):
    model = _perceptron()
    wrap(model[0])
    fused = torch._weight_norm
    problem = Problem(model, data=[(X, Y)], loss="mse")
    expected = _differences(lambda: functional.mse_loss(model(X), Y), problem.parameters)
    torch.testing.assert_close(hessian(problem), expected, rtol=1e-6, atol=1e-8)
    assert torch._weight_norm is fused
    assert any("weight_norm" in forced for forced in problem.kernels_forced)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 5.0], dtype=F64)),
        nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 5.0], dtype=F64), label_smoothing=0.1),
        nn.CrossEntropyLoss(ignore_index=0),
        nn.CrossEntropyLoss(reduction="sum", weight=torch.tensor([0.1, 1.0, 5.0], dtype=F64)),
    ],
)
def test_batches_weigh_as_the_loss_does(loss):
    model = nn.Linear(3, 3).double()
    whole = hessian(Problem(model, data=[(X, CLASSES)], loss=loss))
    parts = hessian(Problem(model, data=[(X[:4], CLASSES[:4]), (X[4:], CLASSES[4:])], loss=loss))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


def test_targets_of_another_order_are_not_reshaped():
    with pytest.raises(ComputeError, match="differ in shape"):
        hessian(Problem(_perceptron(), data=[(X, Y.T.contiguous())], loss="mse"))


def test_place_of_the_classes_is_not_guessed():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4))
    with pytest.raises(ComputeError, match="second or last"):
        hessian(Problem(model, data=[(torch.zeros(2, 4).long(), torch.zeros(2, 4).long())], loss="ce"))


class _Counting(nn.Module):
    """Writes to its buffer in evaluation mode too, and shares it with a child."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2).double()
        self.register_buffer("calls", torch.ones((), dtype=F64))
        self.child = nn.Module()
        self.child.register_buffer("calls", self.calls)

    def forward(self, x):
        self.calls += 1
        return torch.tanh(self.linear(x)) * self.child.calls


@pytest.mark.parametrize("train_mode", [False, True])
def test_buffers_written_to_are_left_alone(train_mode):
    model = _Counting()
    H = hessian(Problem(model, data=[(X, Y)], loss="mse", train_mode=train_mode))
    assert model.calls == 1
    assert model.calls is model.child.calls
    parameters = list(model.parameters())
    expected = _differences(lambda: functional.mse_loss(2 * torch.tanh(model.linear(X)), Y), parameters)
    torch.testing.assert_close(H, expected, rtol=1e-6, atol=1e-8)


def test_compiled_part():
    model = _perceptron()
    expected = hessian(Problem(model, data=[(X, Y)], loss="mse"))
    model[0] = torch.compile(model[0], backend="aot_eager")
    torch.testing.assert_close(hessian(Problem(model, data=[(X, Y)], loss="mse")), expected)


def test_sparse_embedding():
    tokens = torch.tensor([[0, 1], [2, 1], [3, 3]])
    torch.manual_seed(2)
    model = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Tanh(), nn.Linear(4, 2)).double()
    expected = hessian(Problem(model, data=[(tokens, Y[:3])], loss="mse"))
    model[0].sparse = True
    torch.testing.assert_close(hessian(Problem(model, data=[(tokens, Y[:3])], loss="mse")), expected)
    assert model[0].sparse


def test_sparse_bag_of_embeddings():
    tokens = torch.tensor([[0, 1], [2, 1], [3, 3]])
    torch.manual_seed(2)
    table, head = nn.Embedding(5, 2), nn.Sequential(nn.Tanh(), nn.Linear(2, 2))
    bag = nn.EmbeddingBag(5, 2, mode="sum", sparse=True, _weight=table.weight.data)
    alone = nn.Sequential(bag, head).double()
    summed = lambda model, batch: functional.mse_loss(head(model[0](batch[0]).sum(1)), batch[1])  # noqa: E731
    expected = hessian(Problem(nn.Sequential(table, head).double(), data=[(tokens, Y[:3])], objective=summed))
    found = hessian(Problem(alone, data=[(tokens, Y[:3])], loss="mse"))  # by differences
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert bag.sparse


def test_empty_parameter_is_left_out():
    model = _perceptron()
    model.empty = nn.Parameter(torch.zeros(0, dtype=F64))
    problem = Problem(model, data=[(X, Y)], loss=lambda output, target: functional.mse_loss(output, target))
    assert "empty" not in dict(problem.named_parameters)


@pytest.mark.parametrize(
    ("model", "says"), [(nn.LazyLinear(2), "lazy"), (nn.Linear(3, 2, dtype=torch.complex64), "complex")]
)
def test_parameters_without_a_real_hessian_are_refused(model, says):
    with pytest.raises(LoadError, match=says):
        Problem(model, data=[(X, Y)], loss="mse")


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_targets_do_not_broadcast(loss):
    with pytest.raises(ComputeError, match="differ in shape"):
        hessian(Problem(nn.Linear(3, 1).double(), data=[(X, Y.sigmoid())], loss=loss))
