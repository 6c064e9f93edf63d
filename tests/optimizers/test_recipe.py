"""Optimizers by name: every spelling of one gives the one that torch makes, and what is wrong is said."""

import copy
import sys

import pytest
import torch
from torch import nn

from hessdiag import optimizers
from hessdiag.errors import LoadError, SpecError
from hessdiag.optimizers import EllipsoidalTrustRegion, classes, registry
from hessdiag.optimizers.joint import main_of
from hessdiag.optimizers.recipe import recipe, settings_of
from hessdiag.optimizers.update import forget_gradients, take_step
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.measure import check


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def group(spec, lr=None, **more):
    return recipe(spec, lr, **more).build(model()).param_groups[0]


@pytest.mark.parametrize(
    ("spec", "kind", "settings"),
    [
        ("adam", torch.optim.Adam, {"lr": 1e-3, "eps": 1e-8}),
        ("Adam", torch.optim.Adam, {"lr": 1e-3}),
        ("adam(lr=1e-4,eps=1e-2)", torch.optim.Adam, {"lr": 1e-4, "eps": 1e-2}),
        ("sgd(momentum=0.9, lr=0.25)", torch.optim.SGD, {"lr": 0.25, "momentum": 0.9}),
        ("torch.optim:AdamW(weight_decay=0.1)", torch.optim.AdamW, {"weight_decay": 0.1}),
        ("torch.optim.AdamW(betas=(0.8, 0.99))", torch.optim.AdamW, {"betas": (0.8, 0.99)}),
        ("builtin:rmsprop", torch.optim.RMSprop, {"lr": 1e-2}),
        ("ada_grad", torch.optim.Adagrad, {"eps": 1e-10}),
    ],
)
def test_spellings(spec, kind, settings):
    made = recipe(spec, None)
    optimizer = made.build(model())
    assert type(optimizer) is kind
    assert made.given
    assert {key: optimizer.param_groups[0][key] for key in settings} == settings


def test_lr_wins_over_the_specs_own():
    assert group("adam(lr=1e-4)", 0.5)["lr"] == 0.5


def test_lr_alone_is_plain_gradient_descent():
    made = recipe(None, 0.5)
    optimizer = made.build(model())
    assert type(optimizer) is torch.optim.SGD
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (0.5, 0)
    assert made.given
    assert made.name == "plain gradient descent, SGD(lr=0.5)"


def test_without_one_the_usual_stands_in():
    made = recipe(None, None)
    assert not made.given
    assert made.name == "Adam(lr=0.001, eps=1e-08)"


def test_an_assumed_learning_rate_is_said():
    assert group("sgd")["lr"] == 0.1
    assert "0.1 was assumed" in recipe("sgd", None).assumed
    assert recipe("sgd", 0.3).assumed == ""
    assert recipe("adam", None).assumed == ""  # the same in every version of torch


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rmprop", "Did you mean rmsprop?"),
        ("liyon", "train.py:make"),
        ("tr-rmsprob", "Did you mean tr-rmsprop?"),
        ("adam(learning_rate=0.1)", "Did you mean lr?"),
        ("adam(momentum=0.9)", "It takes lr, betas, eps"),
        ("adam(eps=-1)", "Invalid epsilon"),
        ("adam(0.1)", "positional"),
        ("adam(lr=__import__('os').getcwd())", "not a literal"),
        ("adam(lr=1e-3", "not NAME or NAME(key=LITERAL"),
        ("net.pt", "is a file"),
        ("hf:adam", "is no optimizer"),
    ],
)
def test_what_is_no_optimizer(spec, said):
    with pytest.raises(SpecError) as error:
        recipe(spec, None)
    assert said in str(error.value)


@pytest.mark.parametrize("lr", [0.0, -1.0, float("inf"), float("nan")])
def test_a_learning_rate_is_positive(lr):
    with pytest.raises(SpecError):
        recipe("adam", lr)


SCRIPT = """
import torch

def of_parameters(params, lr=0.5):
    return torch.optim.Adagrad(params, lr=lr)

def of_model(model):
    return torch.optim.SGD([{"params": model[0].parameters(), "lr": 0.4}, {"params": model[2].parameters()}], lr=0.2)

def named(named_parameters):
    return torch.optim.SGD([p for n, p in named_parameters if n.endswith("weight")], lr=0.1)

def with_schedule(params):
    optimizer = torch.optim.SGD(params, lr=0.1)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)

def fails(params):
    return 1 / 0

def other(params):
    return 3

class Sign(torch.optim.SGD):
    pass

number = 3
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(SCRIPT)
    return path


def test_a_function_of_the_parameters(script):
    assert group(f"{script}:of_parameters")["lr"] == 0.5
    assert group(f"{script}:of_parameters(lr=0.25)")["lr"] == 0.25
    assert group(f"{script}:of_parameters", 0.125)["lr"] == 0.125


def test_a_function_of_the_model_keeps_the_ratio_of_its_groups():
    def of_model(model):
        return torch.optim.SGD(
            [{"params": model[0].parameters(), "lr": 0.2}, {"params": model[2].parameters()}], lr=0.4
        )

    groups = recipe(of_model, 0.1).build(model()).param_groups
    assert [one["lr"] for one in groups] == [0.1, 0.2]


def test_what_a_function_takes_tells_what_it_is_given(script):
    assert [one["lr"] for one in recipe(f"{script}:of_model", None).build(model()).param_groups] == [0.4, 0.2]
    assert len(group(f"{script}:named")["params"]) == 2
    assert group(f"{script}:with_schedule")["lr"] == 0.1
    assert type(recipe(f"{script}:Sign", 0.1).build(model())).__name__ == "Sign"


def test_a_script_runs_once(script):
    scripts = {}
    recipe(f"{script}:of_parameters", None, scripts)
    script.write_text("raise SystemExit")
    assert recipe(f"{script}:of_parameters", None, scripts).build(model()).param_groups[0]["lr"] == 0.5


def test_functions_that_make_no_optimizer(script):
    with pytest.raises(LoadError, match="ZeroDivisionError"):
        recipe(f"{script}:fails", None).build(model())
    with pytest.raises(SpecError, match="made a int"):
        recipe(f"{script}:other", None).build(model())
    with pytest.raises(SpecError, match="is a int"):
        recipe(f"{script}:number", None)
    with pytest.raises(SpecError, match="unexpected keyword"):
        recipe(f"{script}:of_parameters(rate=1)", None).build(model())


def test_only_the_named_parameters_are_given():
    made = recipe("adam", None).build(model(), ["2.weight"])
    assert [tuple(p.shape) for p in made.param_groups[0]["params"]] == [(2, 4)]


def test_an_optimizer_that_is_there():
    mine = model()
    weights, biases = [p for p in mine.parameters() if p.ndim == 2], [p for p in mine.parameters() if p.ndim == 1]
    own = torch.optim.AdamW([{"params": weights, "weight_decay": 0.5}, {"params": biases, "lr": 0.3}], lr=0.1)
    mine(torch.ones(1, 3).double()).sum().backward()
    own.step()
    kept = copy.deepcopy(own.state_dict())
    twin = copy.deepcopy(mine)
    made = recipe(own, None, model=mine)
    optimizer = made.build(twin)
    assert made.name == "AdamW(lr=0.1, eps=1e-08, weight_decay=0.5)"
    assert [(one["lr"], one["weight_decay"]) for one in optimizer.param_groups] == [(0.1, 0.5), (0.3, 1e-2)]
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in twin.parameters() if p.ndim == 2]
    assert not optimizer.state
    assert str(own.state_dict()) == str(kept)


def test_an_optimizer_of_another_model():
    own = torch.optim.SGD(model().parameters(), lr=0.1)
    with pytest.raises(SpecError, match="none of the model's parameters"):
        recipe(own, None, model=model())


def test_other_settings():
    made = recipe("adam(eps=1e-2, weight_decay=0.5)", 0.1).with_settings(eps=1e-6, weight_decay=0.0)
    optimizer = made.build(model())
    assert [optimizer.param_groups[0][key] for key in ("lr", "eps", "weight_decay")] == [0.1, 1e-6, 0.0]
    assert made.name == "Adam(lr=0.1, eps=1e-06, weight_decay=0)"
    assert recipe("adafactor", 0.1).with_settings(eps=1e-9).build(model()).param_groups[0]["eps"] == (1e-9, 0.001)
    with pytest.raises(SpecError, match="has no setting 'eps'"):
        recipe("sgd", 0.1).with_settings(eps=1e-6).build(model())


def test_muon_takes_matrices_and_adamw_the_rest():
    """The first step of each: 0.0975 g orthogonalized for matrices, lr sign(g) for the others."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 3), nn.Conv2d(1, 2, 2), nn.Linear(3, 4), nn.Linear(4, 1, bias=False))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = recipe("muon(weight_decay=0.0)", 0.5).build(net)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    take_step(optimizer, lambda: None)
    moved = {name: p.detach() - old for (name, p), old in zip(net.named_parameters(), before, strict=True)}
    assert main_of(optimizer).param_groups[0]["lr"] == 0.5
    for index, name in enumerate(("0.weight", "1.weight", "1.bias", None, "2.bias")):
        if name is not None:
            undecayed = moved[name] + 1e-3 * 0.01 * before[index]
            assert undecayed.abs().max() == pytest.approx(1e-3, rel=1e-3)
    assert torch.linalg.matrix_norm(moved["3.weight"], 2) == pytest.approx(0.5 * 0.69, abs=0.01)
    assert "4 of 6 tensors" in optimizer.said
    assert optimizer.param_groups[-1]["lr"] == 1e-3
    assert recipe("muon", None).with_settings(lr=0.25).build(net).param_groups[-1]["lr"] == 1e-3
    forget_gradients(optimizer)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_check_says_what_muon_does_not_step():
    problem = Problem(model(), data=[(torch.ones(4, 3).double(), torch.ones(4, 2).double())], loss="mse")
    assert any("AdamW(lr=0.001) steps 2 of 4" in said for said in check(problem, optimizer="muon").not_looked_at)


def test_muon_alone_where_all_are_matrices():
    net = nn.Linear(3, 3, bias=False)
    assert type(recipe("muon", 0.1).build(net)) is torch.optim.Muon
    with pytest.raises(SpecError, match="none are trained here"):
        recipe("muon", 0.1).build(nn.Conv2d(1, 1, 1))


def test_optimizers_of_the_package_when_it_is_there():
    package = pytest.importorskip("pytorch_optimizer")
    for spec, kind in (("soap(lr=0.25)", package.SOAP), ("Lion", package.Lion), ("schedule_free_adamw", None)):
        made = recipe(spec, None).build(model())
        assert type(made) is (kind or package.ScheduleFreeAdamW)
    assert group("soap", 0.25)["lr"] == 0.25
    assert type(recipe("adafactor", None).build(model())) is torch.optim.Adafactor
    with pytest.raises(SpecError, match="takes no 'momentun'"):
        recipe("shampoo(momentun=0.1)", None)


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr(classes, "PACKAGE", "no_such_package")
    with pytest.raises(LoadError, match="SOAP is an optimizer of the package no_such_package") as error:
        recipe("soap", None)
    assert error.value.hint == "pip install no_such_package"
    with pytest.raises(SpecError, match="no optimizer 'sopa'"):
        recipe("sopa", None)


OWN = """
from hessdiag.optimizers.closure import ClosureOptimizer

class Halving(ClosureOptimizer):
    def __init__(self, params, metric="ball", preset="robust", factor=0.5):
        if factor <= 0:
            raise ValueError("factor must be positive")
        super().__init__(params, {"metric": metric, "preset": preset, "factor": factor})
"""


@pytest.fixture
def halving(monkeypatch, tmp_path):
    """An optimizer of this package."""
    (tmp_path / "halving.py").write_text(OWN)
    monkeypatch.setattr(optimizers, "__path__", [*optimizers.__path__, str(tmp_path)])
    entry = registry.Named("halving", "Halving", {"metric": "ellipsoid"}, "halves")
    monkeypatch.setitem(registry.OPTIMIZERS, "halve-it", entry)


@pytest.mark.usefixtures("halving")
def test_optimizers_of_this_package():
    made = recipe("Halve-It(preset=paper, factor=0.25)", None)
    assert (made.own, made.name) == ("halve-it", "halve-it(preset=paper, factor=0.25)")
    found = made.build(model()).param_groups[0]
    assert (found["metric"], found["preset"], found["factor"]) == ("ellipsoid", "paper", 0.25)
    assert group("halve_it(metric='ball')")["metric"] == "ball"
    for spec, lr, said in (
        ("halve-it(facto=1)", None, "Did you mean factor?"),
        ("halve-it", 0.1, "takes no 'lr'"),
        ("halve-it(factor=-1)", None, "must be positive"),
        ("halve-it(factor=1 + 1)", None, "not a literal"),
    ):
        with pytest.raises(SpecError, match=said.replace("?", "[?]")):
            recipe(spec, lr)


@pytest.mark.parametrize(
    ("metric", "name"),
    [("uniform", "tr-uniform"), ("adagrad", "tr-adagrad"), ("diagonal", "EllipsoidalTrustRegion")],
)
def test_a_trust_region_that_is_there_is_known_by_its_metric(metric, name):
    network = model()
    assert recipe(EllipsoidalTrustRegion(network.parameters(), metric), None, model=network).own == name


@pytest.mark.usefixtures("halving")
def test_check_refuses_what_differentiates_the_loss_itself():
    problem = Problem(model(), data=[(torch.ones(4, 3).double(), torch.ones(4, 2).double())], loss="mse")
    with pytest.raises(SpecError, match="halve-it differentiates the loss itself") as error:
        check(problem, optimizer="halve-it")
    assert error.value.hint == "hessdiag escape MODEL --optimizer halve-it"


def test_settings_that_matter():
    weight = torch.zeros(1, requires_grad=True)
    assert settings_of(torch.optim.Adam([weight], lr=0.1, betas=(0.5, 0.75))) == {
        "lr": 0.1,
        "eps": 1e-8,
        "beta1": 0.5,
        "beta2": 0.75,
    }
    assert settings_of(torch.optim.Adafactor([weight], lr=0.1)) == {"lr": 0.1}  # its eps hangs on the dtype


OURS = ["adam", "adamw", "sgd", "rmsprop", "adagrad", "nadam", "adamax", "lbfgs", "adadelta"]


@pytest.mark.parametrize("name", OURS)
def test_steps_are_those_of_torch_without_its_compiler(name, monkeypatch):
    """Below what asks the compiler to keep out, a step is the same to the bit."""
    mine, theirs = model(), model()
    inputs, targets = torch.randn(8, 3).double(), torch.randn(8, 2).double()
    kind = type(recipe(name, 0.1).build(mine))

    def loss(net, optimizer):
        forget_gradients(optimizer)
        value = (net(inputs) - targets).square().mean()
        value.backward()
        return value

    own = kind(theirs.parameters(), lr=0.1)
    for _ in range(3):
        loss(theirs, own)
        own.step(lambda: loss(theirs, own))
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    ours = recipe(name, 0.1).build(mine)
    for _ in range(3):
        loss(mine, ours)
        take_step(ours, lambda: loss(mine, ours))
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    assert name == "lbfgs" or "torch._dynamo" not in sys.modules


def test_a_word_of_pythons_own_is_a_setting_without_quotes():
    assert recipe("lodo(variant=global, alpha=0.5)", None).known == {"variant": "global", "alpha": 0.5}
