"""Training is the same to the bit with and without a monitor, whatever state it is in when it is looked at."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import hessdiag

STEPS = 12


class Net(nn.Module):
    """Dropout, BatchNorm, and numbers that are drawn in every forward pass."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        drawn = torch.rand(()) * np.random.rand() * random.random()
        return self.last(self.drop(torch.tanh(self.norm(self.first(x))))) * (1 + 0.01 * drawn)


def state_of(model, optimizer):
    """All that training goes on from."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    for index, parameter in enumerate(model.parameters()):
        if parameter.grad is not None:
            tensors[f"grad {index}"] = parameter.grad.clone()
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor):
                tensors[f"{key} {index}"] = value.clone()
    tensors["torch"] = torch.get_rng_state()
    tensors["numpy"] = torch.tensor(np.random.get_state()[1].astype(np.int64))
    tensors["python"] = torch.tensor(random.getstate()[1])
    return tensors


def train(make, look, accumulate=1):
    """Train, and call `look(model, optimizer, batch)`, which gives what is called after each step."""
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    model = Net()
    x, y = torch.randn(96, 6), torch.randint(3, (96,))
    optimizer = make(model.parameters())
    after = look(model, optimizer, (x[:32], y[:32]))
    for step in range(STEPS):
        pick = torch.randint(96, (16,))
        nn.functional.cross_entropy(model(x[pick]), y[pick]).backward()
        if (step + 1) % accumulate == 0:
            optimizer.step()
        after()  # in the middle of an accumulation too, where .grad is not None
        if (step + 1) % accumulate == 0:
            optimizer.zero_grad()
    return state_of(model, optimizer)


def nothing(model, optimizer, batch):
    return lambda: None


QUANTITIES = ("loss", "gradient_norms", "lambda_max", "sharpness", "negative_curvature", "trace", "diag_share")


def watched(seen, train_mode=False, around=None):
    """A monitor that looks after every step, within some context of the user's."""

    def look(model, optimizer, batch):
        problem = hessdiag.Problem(model, data=[batch], loss="ce", train_mode=train_mode)
        monitor = hessdiag.Monitor(problem, 1, None, optimizer=optimizer, quantities=QUANTITIES)
        seen.append(monitor)

        def after():
            if around is None:
                return monitor.step()
            with around():
                return monitor.step()

        return after

    return look


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("train_mode", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
        lambda p: torch.optim.AdamW(p, lr=1e-2),
    ],
    ids=["momentum", "adamw"],
)
def test_training_is_the_same_to_the_bit(make, train_mode, accumulate):
    seen = []
    assert_same(train(make, watched(seen, train_mode), accumulate), train(make, nothing, accumulate))
    records = seen[0].records
    assert len(records) == STEPS
    assert all(record.failed is None for record in records)
    assert all(record.readings["trace"].products == 10 for record in records)


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, autocast])
def test_it_looks_within_modes_of_autograd_and_autocast(around):
    def make(parameters):
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    plain, within = [], []
    assert_same(train(make, watched(plain)), train(make, watched(within, around=around)))
    for one, other in zip(plain[0].records, within[0].records, strict=True):
        assert other.failed is None
        assert other.scalars() == one.scalars()  # in float32, whatever autocast says
    with around():
        state = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        within[0].step()
        assert state == (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
        )


def test_a_loss_whose_graph_is_alive_is_still_differentiated():
    torch.manual_seed(0)
    model = Net()
    x, y = torch.randn(32, 6), torch.randint(3, (32,))
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    loss = nn.functional.cross_entropy(model(x), y)
    monitor = hessdiag.Monitor(hessdiag.Problem(model, data=[(x, y)], loss="ce"), 1, None)
    assert monitor.step().failed is None
    loss.backward()
    assert all(torch.equal(a, b.grad) for a, b in zip(expected, model.parameters(), strict=True))


def test_modes_flags_and_hooks_stay():
    model = Net()
    model.norm.eval()  # one module in another mode than the others
    model.last.bias.requires_grad_(False)
    called = []
    model.first.weight.register_hook(lambda gradient: called.append("tensor") or 0 * gradient)
    model.first.weight.register_post_accumulate_grad_hook(lambda parameter: called.append("accumulated"))
    model.last.register_full_backward_hook(lambda *args: called.append("module"))
    model.last.register_full_backward_pre_hook(lambda *args: called.append("before"))
    x, y = torch.randn(32, 6), torch.randint(3, (32,))
    modes = [module.training for module in model.modules()]
    monitor = hessdiag.Monitor(hessdiag.Problem(model, data=[(x, y)], loss="ce"), 1, None)
    record = monitor.step()
    assert record.failed is None
    assert called == []
    assert record.readings["gradient_norms"].layers["first"] > 0  # the loss's, not what a hook makes of it
    assert [module.training for module in model.modules()] == modes
    assert not model.last.bias.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    nn.functional.cross_entropy(model(x), y).backward()
    assert sorted(called) == ["accumulated", "before", "module", "tensor"]
    assert not model.first.weight.grad.any()


def test_it_sees_the_live_weights():
    model = nn.Linear(2, 1, bias=False).double()
    problem = hessdiag.Problem(model, data=[None], objective=lambda model, batch: model.weight.pow(4).sum() / 12)
    monitor = hessdiag.Monitor(problem, 1, None, quantities=["lambda_max", "trace"])
    for size in (1.0, 3.0):  # the Hessian is diag(w^2)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[size, 0.5]]))
        record = monitor.step()
        assert record.value("lambda_max") == pytest.approx(size**2)
        assert record.value("trace") == pytest.approx(size**2 + 0.25)


def test_it_sees_what_is_frozen_on_the_way():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    problem = hessdiag.Problem(model, data=[(torch.randn(9, 4), torch.randn(9, 2))], loss="mse")
    monitor = hessdiag.Monitor(problem, 1, None)
    assert set(monitor.step().readings["gradient_norms"].layers) == {"0", "2"}
    model[0].requires_grad_(False)
    record = monitor.step()
    assert set(record.readings["gradient_norms"].layers) == {"2"}
    assert record.failed is None
