"""No look ends the training: whatever fails is warned of once, recorded, and given up where it is hopeless."""

import warnings

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.errors import SpecError
from hessdiag.monitor import look


def parts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(16, 4), torch.randint(3, (16,))
    return model, hessdiag.Problem(model, data=[(x, y)], loss="ce")


def replaced(monkeypatch, name, function):
    monkeypatch.setattr(look, "QUANTITIES", dict(look.QUANTITIES) | {name: function})


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), ZeroDivisionError("x"), RuntimeError("y")]
)
def test_one_that_fails_is_given_up_and_the_others_go_on(monkeypatch, error):
    _, problem = parts()

    def fails(here):
        raise error

    replaced(monkeypatch, "trace", fails)
    monitor = hessdiag.Monitor(problem, 1, None, quantities=["loss", "trace", "lambda_max"])
    with pytest.warns(RuntimeWarning) as warned:
        records = [monitor.step() for _ in range(5)]
    assert len([one for one in warned if "trace failed at step 1" in str(one.message)]) == 1
    assert [bool(record.failed) for record in records] == [True] * 3 + [False] * 2
    assert records[2].gave_up == ("trace",)
    assert all(record.readings.keys() >= {"loss", "lambda_max"} for record in records)
    assert type(error).__name__ in records[0].failed["trace"]


def test_one_that_fails_now_and_then_is_tried_again(monkeypatch):
    _, problem = parts()
    whole, calls = look.QUANTITIES["trace"], []

    def sometimes(here):
        calls.append(1)
        if len(calls) % 3:
            raise RuntimeError("now")
        return whole(here)

    replaced(monkeypatch, "trace", sometimes)
    monitor = hessdiag.Monitor(problem, 1, None, quantities=["trace"])
    with pytest.warns(RuntimeWarning):
        records = [monitor.step() for _ in range(9)]
    assert [record.value("trace") is not None for record in records] == [False, False, True] * 3


def test_weights_that_are_no_numbers():
    model, problem = parts()
    monitor = hessdiag.Monitor(problem, 1, None)
    assert monitor.step().failed is None
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    with pytest.warns(RuntimeWarning, match="training goes on") as warned:
        records = [monitor.step() for _ in range(3)]
    (one,) = warned  # for there is one reason
    assert "loss, gradient_norms, lambda_max failed at step 2" in str(one.message)
    assert set(records[-1].gave_up) == {"loss", "gradient_norms", "lambda_max"}
    assert monitor.step() is None


class Once(torch.autograd.Function):
    """A step whose backward pass cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class Uncopyable(nn.Module):
    """A model that can neither be differentiated twice nor copied, so that there are no differences either."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return Once.apply(torch.tanh(self.layer(x)))

    def __deepcopy__(self, memo):
        raise RuntimeError("not me")


def test_a_model_without_a_second_derivative():
    model = Uncopyable()
    problem = hessdiag.Problem(model, data=[(torch.randn(16, 4), torch.randint(3, (16,)))], loss="ce")
    monitor = hessdiag.Monitor(problem, 1, None)
    with pytest.warns(RuntimeWarning, match="lambda_max failed"):
        records = [monitor.step() for _ in range(4)]
    assert records[2].gave_up == ("gradient_norms", "lambda_max")
    assert records[3].readings.keys() == {"loss"}
    assert records[3].failed is None


def test_warnings_that_are_errors_end_nothing(capfd):
    model, problem = parts()
    monitor = hessdiag.Monitor(problem, 1, None)
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert monitor.step().failed
    assert "training goes on" in capfd.readouterr().err


def test_a_log_that_breaks_ends_nothing():
    _, problem = parts()
    lines = []

    def log(line):
        lines.append(line)
        if len(lines) == 2:
            raise OSError(28, "No space left on device")

    monitor = hessdiag.Monitor(problem, 1, None, log=log)
    with pytest.warns(RuntimeWarning, match="nothing more is written to log: OSError"):
        records = [monitor.step() for _ in range(3)]
    assert all(record.readings for record in records)
    assert len(lines) == 2


def test_an_interrupt_is_none_of_ours(monkeypatch):
    _, problem = parts()

    def interrupted(here):
        raise KeyboardInterrupt

    replaced(monkeypatch, "loss", interrupted)
    state = torch.get_rng_state()
    monitor = hessdiag.Monitor(problem, 1, None)
    with pytest.raises(KeyboardInterrupt):
        monitor.step()
    assert torch.equal(state, torch.get_rng_state())


def test_a_schedule_that_begins_at_zero():
    model, problem = parts()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = hessdiag.Monitor(problem, 1, None, optimizer=optimizer)
    optimizer.param_groups[0]["lr"] = 0.0
    assert "learning rate" in monitor.step().readings["sharpness"].why
    optimizer.param_groups[0]["lr"] = 0.5
    reading = monitor.step().readings["sharpness"]
    assert reading.threshold == pytest.approx(4.0)  # that of now
    assert reading.value == pytest.approx(monitor.records[-1].value("lambda_max") / 4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"every": 0}, "every is a number of steps"),
        ({"budget": "5"}, "a budget is a share"),
        ({"budget": "500%"}, "a budget is a share"),
        ({"budget": -0.1}, "a budget is a share"),
        ({"quantities": ["xyz"]}, r"try: quantities=\[\"loss\"\]"),
        ({"quantities": ["lambda"]}, r"a quantity is one of[^\n]*\n  try: quantities=\[\"lambda_max\"\]"),
        ({"quantities": ["sharpness"]}, "none was given"),
        ({"optimizer": "adam"}, "is the one that trains the model"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)}, "none of the model's"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(options, says):
    _, problem = parts()
    with pytest.raises(SpecError, match=says):
        hessdiag.Monitor(problem, **options)


def test_a_model_is_no_problem():
    with pytest.raises(SpecError, match=r"hessdiag\.Problem"):
        hessdiag.Monitor(nn.Linear(1, 1))
