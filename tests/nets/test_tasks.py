"""Training tasks: losses at the start, data and sizes by hand, one seed, and how they are named."""

import importlib
import inspect

import pytest
import torch

from hessdiag.errors import SpecError
from hessdiag.nets import BUILTINS, TASKS
from hessdiag.nets.tasks.deep_mlp import deep_mlp, teacher
from hessdiag.nets.tasks.losses import HalfMSE
from hessdiag.nets.tasks.task import Task
from hessdiag.optimizers.recipe import recipe
from hessdiag.optimizers.registry import OPTIMIZERS
from hessdiag.problem.load import ProblemRequest, load_problem


def load(text, **options):
    return load_problem(ProblemRequest(text, device="cpu", **options))


def weights(problem):
    return torch.cat([parameter.detach().reshape(-1) for parameter in problem.model.parameters()])


def test_no_task_has_the_name_of_a_network():
    assert not TASKS.keys() & BUILTINS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_contenders_of_a_task_are_optimizers_with_settings_that_they_take(name):
    home, _, attribute = TASKS[name][0].partition(":")
    small = {"depth": 14, "resolution": 8, "width": 4, "samples": 4}
    function = getattr(importlib.import_module(home), attribute)
    taken = inspect.signature(function).parameters
    model = function(**{key: value for key, value in small.items() if key in taken})["model"]
    for spec in model.task.contenders:
        head = spec.partition("(")[0]
        assert head in OPTIMIZERS or recipe(spec, None).build(model)


def test_deep_mlp_is_relu_layers_and_half_the_squared_error():
    task = deep_mlp(depth=3, width=5, init="lecun", samples=20, seed=4)
    inputs, targets = task["data"]
    assert [tuple(weight.shape) for weight in task["model"].parameters()] == [(5, 16), (5, 5), (5, 5), (1, 5)]
    hidden = inputs
    *hidden_layers, last = task["model"].parameters()
    for weight in hidden_layers:
        hidden = (hidden @ weight.T).clamp(min=0)
    expected = (hidden @ last.T - targets).square().sum() / (2 * 20)
    assert torch.allclose(task["loss"](task["model"](inputs), targets), expected, rtol=1e-12)


@pytest.mark.parametrize(("init", "variance"), [("he_uniform", 2 / 16), ("lecun_variance", 1 / 16), ("lecun", 1 / 48)])
def test_deep_mlp_has_the_variances_of_its_initialization(init, variance):
    model = deep_mlp(init=init)["model"]
    entries = torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])
    assert len(entries) == 31 * 16 * 16 + 16 * 16 + 16
    assert entries.var().item() == pytest.approx(variance, rel=0.05)  # 3 standard errors of a uniform's
    assert entries.abs().max().item() <= (3 * variance) ** 0.5


def test_the_teacher_has_one_hidden_layer_and_standard_targets():
    inputs, targets = teacher(512, seed=2)
    assert targets.shape == (512, 1)
    assert targets.mean().item() == pytest.approx(0, abs=1e-13)
    assert (targets.square().sum() / 511).item() == pytest.approx(1, rel=1e-12)
    doubled, _ = teacher(512, seed=2)
    assert torch.equal(inputs, doubled)
    assert not torch.equal(inputs, teacher(512, seed=3)[0])


def test_at_torchs_initialization_the_output_is_zero_and_the_loss_that_of_zero():
    problem = load("builtin:deep_mlp(init='lecun')")
    assert problem.value() == pytest.approx(0.5 * 511 / 512, rel=1e-9)
    assert problem.model.task == Task(samples=128, curvature_samples=512)


def test_half_mse_of_numbers_by_hand():
    assert HalfMSE()(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])).item() == 2.5


def test_the_seed_of_the_command_is_that_of_a_task_without_one():
    plain, named, other = load("builtin:deep_mlp", seed=3), load("builtin:deep_mlp(seed=3)"), load("builtin:deep_mlp")
    assert torch.equal(weights(plain), weights(named))
    assert torch.equal(plain.data[0][0], named.data[0][0])
    assert not torch.equal(weights(plain), weights(other))
    assert not torch.equal(plain.data[0][0], other.data[0][0])


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match="no built-in network 'deep_mpl'") as caught:
        load("builtin:deep_mpl")
    assert caught.value.hint == "builtin:deep_mlp"


def test_an_unknown_argument_is_refused_with_those_that_there_are():
    with pytest.raises(SpecError, match="unexpected keyword argument 'wid'") as caught:
        load("builtin:deep_mlp(wid=3)")
    assert caught.value.hint.startswith("deep_mlp(depth=32, width=16")


def test_a_task_takes_other_data_and_another_loss():
    problem = load("builtin:deep_mlp(depth=2, samples=8)", loss="mse")
    assert problem.loss_of_output.name == "mse"
    assert problem.value() == pytest.approx(2 * load("builtin:deep_mlp(depth=2, samples=8)").value())
