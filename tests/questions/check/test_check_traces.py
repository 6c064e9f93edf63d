"""A watched pass leaves no trace, turns failures into readings, and reads modes and ranges."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from hessdiag.errors import ComputeError
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.watch import passed
from hessdiag.questions.check.watching.owned import owned
from tests.architectures.table import CASES

F64 = torch.float64


def check(model, batch, loss="ce", **options):
    return passed(Problem(model, data=[batch], loss=loss, **options), seed=0)[0]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)
    )


BATCH = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class TestTraces:
    def test_nothing_is_left_behind(self):
        model = network().train()
        model[1].eval()
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        state = copy.deepcopy(model.state_dict())
        random = torch.random.get_rng_state()
        first = check(model, BATCH)
        assert torch.equal(random, torch.random.get_rng_state())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(bool((parameter.grad == 0.5).all()) for parameter in model.parameters())
        assert [module.training for module in model] == [True, False, True, True, True, True]
        for module in model.modules():
            assert not {**module._forward_hooks, **module._forward_pre_hooks, **module._backward_hooks}
        assert not BATCH[0].requires_grad
        assert check(model, BATCH) == first

    def test_nothing_is_left_behind_after_a_failure(self):
        model = network()
        with pytest.raises(ComputeError, match="do not fit"):
            check(model, (BATCH[0][:, :1], BATCH[1]))
        for module in model.modules():
            assert not {**module._forward_hooks, **module._forward_pre_hooks}

    def test_the_gradient_is_that_of_the_mode_that_the_model_is_in(self):
        model = network().train()
        dropped = check(model, BATCH).layers[-1].input_rms
        assert check(model.eval(), BATCH).layers[-1].input_rms != dropped


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in CASES if "tiny" not in name])
def test_no_architecture_is_refused_and_none_is_changed(name):
    problem = CASES[name]().problem
    model = problem.model
    tensors = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    state = {key: value.clone() for key, value in tensors.items()}
    random = torch.random.get_rng_state()
    found = passed(problem, seed=0)[0]
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in tensors.items())
    assert found.output.loss is not None
    with problem.evaluation():
        value = problem.objective_function(problem.model, problem.data[0])
        slopes = torch.autograd.grad(value, problem.parameters, allow_unused=True)
    reached = {name for (name, _), slope in zip(problem.named_parameters, slopes, strict=True) if slope is not None}
    for layer in owned(problem.model):
        own = {key for key, item in model.named_parameters() if any(item is one for one in layer.parameters.values())}
        reading = next((one for one in found.layers if one.layer == layer.layer), None)
        if reading is not None and own & {key for key, _ in problem.named_parameters}:
            assert reading.reached is bool(own & reached), layer.layer


class TestFailures:
    def test_a_loss_without_a_graph(self):
        found = check(network(), BATCH, lambda o, t: F.cross_entropy(o.detach(), t))
        assert not any(layer.reached for layer in found.layers)
        assert all(layer.gradient_rms is None for layer in found.layers)
        assert not found.output.depends_on_output
        assert any(what.startswith("gradients: the loss has no graph") for what in found.not_looked_at)

    def test_a_part_that_is_detached(self):
        class Cut(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

            def forward(self, x):
                return self.second(self.first(x).detach())

        found = check(Cut(), (torch.randn(8, 4), torch.arange(8) % 3))
        assert [layer.reached for layer in found.layers] == [False, True]

    def test_a_backward_pass_that_fails(self):
        class Failing(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, slope):
                raise RuntimeError("no way back")

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(4, 3)

            def forward(self, x):
                return Failing.apply(self.linear(x))

        found = check(Model(), (torch.randn(8, 4), torch.arange(8) % 3))
        assert not found.layers[0].reached
        assert any("no way back" in what for what in found.not_looked_at)

    @pytest.mark.parametrize(("scale", "first"), [(1e30, "2"), (math.nan, "0")], ids=["overflow", "not a number"])
    def test_where_numbers_stop_being_finite(self, scale, first):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
        with torch.no_grad():
            model[0].weight.mul_(scale)
            model[2].weight.mul_(1e10)
        found = check(model, (torch.randn(8, 4), torch.arange(8) % 3))
        assert found.output.loss is None
        assert found.numbers.not_finite == first
        assert found.trained is None
        healthy = check(network(), BATCH)
        assert healthy.numbers.not_finite is None
        assert healthy.output.loss is not None

    def test_an_infinite_loss_of_finite_outputs(self):
        found = check(nn.Linear(4, 3), (torch.randn(8, 4), torch.arange(8) % 3), lambda o, t: o.sum() / 0)
        assert found.output.loss is None
        assert found.output.rms is not None

    def test_one_sample(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        found = check(model, (torch.randn(1, 4), torch.tensor([1])))
        assert all(layer.signal_variation is None and layer.cosine is None for layer in found.layers)
        assert all(layer.signal_rms is not None for layer in found.layers)
        assert found.inputs[0].variation is None
        assert "differences between samples: the batch has only one" in found.not_looked_at

    @pytest.mark.filterwarnings("ignore")
    def test_layers_that_cannot_be_looked_into(self):
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        batch = torch.randn(8, 4), torch.arange(8) % 3
        whole, part = torch.jit.script(plain), nn.Sequential(torch.jit.script(plain[:2]), plain[2])
        expected = sorted(layer.gradient_rms for layer in check(plain, batch).layers)
        for model in (whole, part):
            found = check(model, batch)
            assert sorted(layer.gradient_rms for layer in found.layers) == pytest.approx(expected, rel=1e-6)
            assert all(layer.reached and layer.calls for layer in found.layers)
            assert any("TorchScript" in what for what in found.not_looked_at)

    def test_a_layer_within_vmap(self):
        class Mapped(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(4, 3)

            def forward(self, x):
                return torch.vmap(self.linear)(x)

        found = check(Mapped(), (torch.randn(8, 4), torch.arange(8) % 3))
        assert (found.layers[0].reached, found.layers[0].output_rms) == (True, None)
        assert found.output.rms is not None

    def test_no_scalar(self):
        with pytest.raises(ComputeError, match="scalar"):
            check(nn.Linear(4, 3), (torch.randn(8, 4), torch.arange(8) % 3), lambda o, t: o)


class TestModes:
    def test_statistics_that_were_never_learnt(self):
        model = network().eval()
        x = 5 * BATCH[0] + 3
        norm = check(model, (x, BATCH[1])).modes[0]
        taken = model[0](x).detach().transpose(0, 1).flatten(1).double()
        eps = model[1].eps
        means = 1 + float((taken.mean(1) / (1 + eps) ** 0.5).square().mean().sqrt())
        ratios = (taken.var(1, correction=0) + eps).sqrt() / (1 + eps) ** 0.5
        expected = max(means, float(ratios.log().square().mean().sqrt().exp()))
        assert (norm.layer, norm.kind, norm.training, norm.tracked) == ("1", "BatchNorm2d", False, 0)
        assert norm.mismatch == pytest.approx(expected, rel=1e-5)
        assert norm.mismatch > 2
        assert norm.samples == 8 * 16

    def test_statistics_that_were_learnt(self):
        model = network().train()
        model[1].momentum = None  # a plain mean
        model(BATCH[0])
        for mode in (True, False):
            norm = check(model.train(mode), BATCH).modes[0]
            assert (norm.training, norm.tracked) == (mode, 1)
            assert norm.mismatch == pytest.approx(1, abs=0.01)  # of one batch, but for n - 1

    def test_dropout_by_modules_and_functions(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.drop, self.head = nn.Linear(4, 8), nn.Dropout(0.25), nn.Linear(8, 3)
                self.cell = nn.LSTM(8, 8, 2, dropout=0.3, batch_first=True)

            def forward(self, x):
                x = F.dropout(self.drop(self.first(x)), 0.75, training=self.training)
                return self.head(self.cell(x[:, None])[0][:, 0])

        found = check(Model().train(), (torch.randn(8, 4), torch.arange(8) % 3)).modes
        assert {(mode.layer, mode.kind, mode.training, mode.drop) for mode in found} == {
            ("drop", "Dropout", True, 0.25),
            ("cell", "LSTM", True, 0.3),
            ("dropout", "function", True, 0.75),
        }
        found = check(Model().eval(), (torch.randn(8, 4), torch.arange(8) % 3)).modes
        assert not any(mode.training for mode in found)

    def test_instance_norm_matters_where_it_keeps_statistics(self):
        for keeps in (True, False):
            model = nn.Sequential(nn.InstanceNorm2d(2, track_running_stats=keeps), nn.Flatten(), nn.Linear(72, 3))
            assert len(check(model, BATCH).modes) == keeps


class TestRanges:
    def test_zeros_that_float16_makes(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        with torch.no_grad():
            model[2].weight.mul_(1e-6)
        batch = torch.randn(8, 4), torch.arange(8) % 3
        wide = check(model, batch).numbers
        assert (wide.dtype, wide.zero_share) == ("float32", 0.0)
        half = copy.deepcopy(model).half()
        narrow = check(half, (batch[0].half(), batch[1])).numbers
        own, exact = (
            torch.autograd.grad(F.cross_entropy(one(x), batch[1]), list(one.parameters()))
            for one, x in ((half, batch[0].half()), (copy.deepcopy(half).float(), batch[0].half().float()))
        )
        lost = sum(int(((a == 0) & (b != 0)).sum()) for a, b in zip(own, exact, strict=True))
        small = sum(int(((a != 0) & (a.abs() < torch.finfo(torch.float16).tiny)).sum()) for a in own)
        entries = sum(a.numel() for a in own)
        assert narrow.zero_share == pytest.approx(lost / entries)
        assert narrow.zero_share > 0.1
        assert narrow.subnormal_share == pytest.approx(small / entries)

    def test_zeros_of_dead_units_are_not_those_of_a_dtype(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        nn.init.constant_(model[0].bias, -100.0)
        assert check(model, (torch.randn(8, 4), torch.arange(8) % 3)).numbers.zero_share == 0.0
        half = model.half()
        assert check(half, (torch.randn(8, 4).half(), torch.arange(8) % 3)).numbers.zero_share == 0.0

    def test_the_largest_output(self):
        model = nn.Linear(4, 3).double()
        x = torch.randn(8, 4, dtype=F64)
        found = check(model, (x, torch.arange(8) % 3)).numbers
        assert found.largest == pytest.approx(float(model(x).abs().max().detach()) / torch.finfo(F64).max, rel=1e-9)
