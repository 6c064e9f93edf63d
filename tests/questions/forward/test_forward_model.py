"""Signals in the user's own network: against copies of it that really hold the weights, and against exact laws."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag import load_problem
from hessdiag.errors import ComputeError, SpecError
from hessdiag.nets.convnet import LeNet
from hessdiag.nets.initializers import fans
from hessdiag.nets.mlp import MLP
from hessdiag.problem.load import ProblemRequest
from hessdiag.problem.problem import Problem
from hessdiag.questions.forward.model import forward_model
from hessdiag.questions.forward.model_norms import model_log_ratios
from hessdiag.questions.forward.model_weights import initialized, scales_of, unit_weights, weight_layers


def problem_of(model, *shape, dtype=torch.float64):
    x = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return Problem(model, data=[(x, torch.zeros(1)), (2 * x[:1], torch.zeros(1))], objective=lambda m, b: m(b[0]).sum())


@pytest.mark.parametrize("init", ["xavier_uniform", "he_normal", "orthogonal"])
def test_ratios_are_those_of_a_copy_with_these_weights(init):
    model = LeNet(size=16)
    problem = problem_of(model, 3, 3, 16, 16)
    before = [parameter.clone() for parameter in model.parameters()]
    layers = weight_layers(model)
    kind = {"xavier_uniform": "uniform", "he_normal": "normal", "orthogonal": None}[init]
    scales = scales_of(init, layers, None)
    found = model_log_ratios(problem, layers, [scales], kind, seeds=2, seed=3, advance=lambda count: None)
    names, logs = found.names, found.logs
    assert names == ("conv1", "conv2", "fc1", "fc2", "fc3")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    for network in range(2):
        twin, unit = copy.deepcopy(model), unit_weights(layers, kind, 3, network)
        outputs = {name: [] for name in names}
        for name, layer in weight_layers(twin).items():
            with torch.no_grad():
                layer.weight.copy_(unit[name] * scales[name])
                layer.bias.zero_()
            layer.register_forward_hook(lambda _, __, output, kept=outputs[name]: kept.append(output.flatten()))
        with torch.no_grad():
            for x, _ in problem.data:
                twin(x)
        x = torch.cat([x.flatten() for x, _ in problem.data]).square().mean()
        expected = [0.5 * float((torch.cat(outputs[name]).square().mean() / x).log()) for name in names]
        assert np.allclose(logs[0, network], expected, rtol=0, atol=1e-12)


def test_variances_are_those_of_torch_s_own_initializations():
    layer = nn.Conv2d(6, 50, 5, groups=2)
    fan_in, fan_out = fans(layer.weight.shape)
    assert (fan_in, fan_out) == nn.init._calculate_fan_in_and_fan_out(layer.weight)
    drawn = unit_weights({"c": layer}, "normal", 0, 0)["c"] * scales_of("xavier_normal", {"c": layer}, None)["c"]
    assert float(drawn.var()) == pytest.approx(2 / (fan_in + fan_out), rel=4 * math.sqrt(2 / drawn.numel()))


def test_a_linear_network_has_the_exact_median():
    problem = problem_of(MLP(depth=16, width=8, activation="linear"), 1, 8)
    last = forward_model(problem, init="xavier_normal", seeds=300).inits[0].last
    assert abs(last.log_median + 2.03599 / 2) < 4 * last.log_median_stderr


def test_what_is_no_weight_layer_stays_and_biases_are_zero():
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)).double()
    with torch.no_grad():
        model[1].weight.fill_(3.0)
    problem = problem_of(model, 5, 4)
    measured = forward_model(problem, init="he_normal", seeds=10)
    state = initialized(problem, measured.inits[0], seed=0)
    assert torch.equal(state["1.weight"], model[1].weight)
    assert state["0.bias"].abs().max() == 0
    assert not torch.equal(state["0.weight"], model[0].weight)
    json.loads(measured.to_json())
    assert (measured.theory, measured.checks) == (None, {})


def test_a_solved_gain_keeps_the_signal_of_fresh_networks():
    problem = problem_of(MLP(depth=4, width=12, activation="tanh"), 8, 12)
    entry = forward_model(problem, init="xavier_normal", seeds=100, solve="median").inits[0]
    assert entry.solution.method == "bisection"
    assert abs(entry.solution.z) < 4
    state = initialized(problem, entry, seed=5)
    assert float(state["0.weight"].var()) == pytest.approx(entry.solution.gain**2 / 12, rel=4 * math.sqrt(2 / 144))


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    model[2].weight, model[2].bias = model[0].weight, model[0].bias
    problem = problem_of(model, 3, 4)
    measured = forward_model(problem, init="he_normal", seeds=5)
    state = initialized(problem, measured.inits[0], seed=0)
    assert torch.equal(state["0.weight"], state["2.weight"])
    assert not torch.equal(state["0.weight"], model[0].weight)
    assert state["2.bias"].abs().max() == 0


def test_same_seed_same_bits_and_an_interrupt_keeps_what_is_whole():
    problem = problem_of(MLP(depth=2, width=4), 3, 4)
    one, two, other = (forward_model(problem, seeds=5, seed=seed).inits for seed in (1, 1, 2))
    assert one == two
    assert one != other
    calls = []

    def stop(done, total, what):
        calls.append(done)
        if done == 8:
            raise KeyboardInterrupt

    measured = forward_model(problem, seeds=5, progress=stop)
    assert (measured.status, [entry.seeds for entry in measured.inits]) == ("interrupted", [5, 3])


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SpecError, match="no Linear or Conv"):
        forward_model(problem_of(nn.LayerNorm(4).double(), 3, 4))
    problem = problem_of(MLP(depth=2, width=4), 3, 4)
    for options in ({"seeds": 1}, {"init": "zeros"}, {"solve": "mean"}):
        with pytest.raises(SpecError):
            forward_model(problem, **options)
    blank = Problem(
        MLP(depth=2, width=4), data=[(torch.zeros(2, 4).double(), torch.zeros(2))], objective=lambda m, b: 0
    )
    idle = nn.Sequential(nn.LayerNorm(4)).double()
    idle.linear, idle.forward = nn.Linear(4, 4).double(), lambda x: x * idle.linear.bias
    with pytest.raises(ComputeError, match="is called"):
        forward_model(problem_of(idle, 3, 4), seeds=2)
    with pytest.raises(ComputeError, match="no signal"):
        forward_model(blank, seeds=2)


def test_a_loaded_problem_is_measured():
    problem = load_problem(ProblemRequest("builtin:convnet(size=8)", device="cpu"))
    measured = forward_model(problem, init=["lecun", "he_uniform"], seeds=4)
    assert [entry.name for entry in measured.inits[1].layers] == ["conv1", "conv2", "fc"]


class Encoder(nn.Module):
    """torch's own encoder, which in eval mode hands nested tensors to its layers where tokens are padding."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens):
        hidden = self.encoder(self.table(tokens), src_key_padding_mask=tokens == 0)
        return self.head(hidden[:, 0])


def test_an_encoder_with_padding_is_measured_layer_by_layer():
    """Every position counts, as in training mode without dropout, where torch has no fast path."""
    torch.manual_seed(0)
    model = Encoder().double()
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    problem = Problem(model, data=[(tokens, torch.tensor([0, 1]))], loss="ce")
    layers = weight_layers(model)
    found = model_log_ratios(
        problem, layers, [scales_of("he_normal", layers, None)], "normal", seeds=2, seed=0, advance=lambda count: None
    )
    names, logs = found.names, found.logs
    assert torch.backends.mha.get_fastpath_enabled()
    twin, sizes = copy.deepcopy(model), {}
    for module in twin.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    scales, unit = scales_of("he_normal", layers, None), unit_weights(layers, "normal", 0, 1)
    for name, layer in weight_layers(twin).items():
        with torch.no_grad():
            layer.weight.copy_(unit[name] * scales[name])
            layer.bias.zero_()

        def keep(_, inputs, output, name=name):
            sizes.setdefault("", inputs[0].square().mean())
            sizes[name] = output.square().mean()

        layer.register_forward_hook(keep)
    twin.train()(tokens)
    expected = [0.5 * float((sizes[name] / sizes[""]).log()) for name in names]
    assert len(names) == 5
    assert np.allclose(logs[0, 1], expected, rtol=0, atol=1e-12)


def test_nested_tensors_of_the_users_own_are_measured():
    """Sums over the parts of a nested tensor."""

    class Ragged(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, *parts):
            return self.a(torch.nested.nested_tensor(list(parts))).to_padded_tensor(0.0).sum()

    model = Ragged().double()
    parts = (torch.randn(2, 3).double(), torch.randn(5, 3).double())
    ragged, plain = (
        forward_model(
            Problem(m, data=[(x, torch.zeros(1))], objective=lambda m, b: m(*b[0])), seeds=3, init="he_normal"
        )
        for m, x in ((model, parts), (_Flat(model.a), (torch.cat(parts),)))
    )
    assert ragged.inits[0].layers[0].median == pytest.approx(plain.inits[0].layers[0].median, rel=1e-12)


class _Flat(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, x):
        return self.a(x).sum()
