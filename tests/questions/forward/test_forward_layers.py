"""A gain for each layer: against exact medians, against plain products, and on networks that were never seen."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.errors import ComputeError, SpecError
from hessdiag.nets.activations import activation
from hessdiag.nets.mlp import MLP
from hessdiag.problem.problem import Problem
from hessdiag.questions.forward.layers import iterated_layer_gains, scaled_layer_gains, sequential_layer_gains
from hessdiag.questions.forward.measure import forward, initialized
from hessdiag.questions.forward.model import forward_model
from hessdiag.questions.forward.model_weights import initialized as model_initialized
from hessdiag.questions.forward.norms import log_ratios, ratio_statistics
from hessdiag.theory.gaussian_nets import median_log_norm2
from tests.questions.forward.gain_errors import solved_log_stderr

SMALL = {"depth": 6, "width": 5, "seeds": 300, "seed": 2}


def sequential(target, name, distribution, seed=2, **changes):
    setting = SMALL | {"seed": seed} | changes
    options = {"device": torch.device("cpu"), "advance": lambda count: None}
    return sequential_layer_gains(target, distribution, phi=activation(name), **setting, **options)


def problem_of(model, *shape):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Problem(model, data=[(x, torch.zeros(1))], objective=lambda m, b: m(b[0]).sum())


@pytest.mark.parametrize(
    ("init", "name", "slope", "scale"),
    [("he_normal", "relu", 0.0, math.sqrt(2)), ("lecun_normal", "linear", 1.0, 1.0)],
)
def test_exact_gains_make_every_exact_median_one(init, name, slope, scale):
    entry = forward(depth=12, width=8, init=init, activation=name, seeds=1000, solve="median", per_layer=True).inits[0]
    found = entry.solution
    assert (found.method, found.gain_stderr) == ("exact", None)
    variances = [(scale * layer.gain) ** 2 / 8 for layer in found.layers]
    for layer in range(1, 13):
        assert median_log_norm2([8] * layer, variances[:layer], slope) == pytest.approx(0, abs=1e-9)
    assert abs(found.z) < 4
    assert found.z == max((layer.z for layer in found.layers), key=abs)
    assert found.gain == pytest.approx(math.prod(layer.gain for layer in found.layers) ** (1 / 12), rel=1e-12)


def test_the_mean_square_wants_the_same_gain_everywhere():
    entry = forward(depth=4, width=8, init="lecun", seeds=2000, solve="rms", per_layer=True).inits[0]
    assert [layer.gain for layer in entry.solution.layers] == pytest.approx([math.sqrt(6)] * 4)
    assert abs(entry.solution.z) < 4


@pytest.mark.parametrize("target", ["median", "rms"])
@pytest.mark.parametrize("distribution", ["uniform", None])
def test_one_layer_after_the_other_gives_what_one_measurement_gives(target, distribution):
    """ReLU networks pass a scale on unchanged, so that both ways must find the same gains."""
    logs = log_ratios([1.0], distribution, phi=activation("relu"), **SMALL)[0]
    scaled, stepwise = scaled_layer_gains(target, logs), sequential(target, "relu", distribution)
    for name in ("log_stderrs", "mean_log_stderr", "ratio_log_stderrs"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(stepwise, name), rtol=1e-6)
    np.testing.assert_allclose(scaled.values, stepwise.values, rtol=1e-9)


@pytest.mark.parametrize("name", ["tanh", "gelu"])
@pytest.mark.parametrize("distribution", ["normal", "uniform", None])
def test_on_the_same_networks_every_median_is_one(name, distribution):
    gains = sequential("median", name, distribution)
    logs = log_ratios([gains.values], distribution, phi=activation(name), **SMALL)[0]
    assert np.median(logs, axis=0) == pytest.approx(np.zeros(6), abs=1e-9)


def test_errors_are_the_spread_over_seeds():
    found = [sequential("median", "tanh", "normal", seed=seed, depth=4, seeds=200) for seed in range(40)]
    logs = np.log([gains.values for gains in found])
    said = np.median([gains.log_stderrs for gains in found], axis=0)
    assert logs.std(axis=0) / said == pytest.approx(np.ones(4), abs=0.5)  # 40 seeds know a spread to 11 %
    assert logs.mean(axis=1).std() == pytest.approx(np.median([gains.mean_log_stderr for gains in found]), rel=0.5)


@pytest.mark.parametrize(("init", "name"), [("xavier_normal", "tanh"), ("he_uniform", "gelu"), ("he_uniform", "relu")])
def test_fresh_networks_keep_their_norm_after_every_layer(init, name):
    entry = forward(depth=16, width=8, init=init, activation=name, seeds=800, solve="median", per_layer=True).inits[0]
    found = entry.solution
    assert found.method == ("scaling" if name == "relu" else "sequential")
    assert len(found.layers) == 16
    assert abs(found.z) < 4
    scale = {"xavier_normal": 1.0, "he_uniform": math.sqrt(2)}[init]
    gains = [[scale * layer.gain for layer in found.layers]]
    logs = log_ratios(gains, entry.distribution, depth=16, width=8, phi=activation(name), seeds=800, seed=77)[0]
    for layer, values in zip(found.layers, logs.T, strict=True):
        again = ratio_statistics(values)
        error = math.hypot(again.log_median_stderr, solved_log_stderr(layer))
        assert abs(again.log_median) < 4 * error, layer.layer


def test_saved_weights_are_scaled_layer_by_layer():
    setting = {"depth": 3, "width": 6, "init": "xavier_normal", "activation": "tanh", "seeds": 60, "solve": "median"}
    one, each = (forward(**setting, per_layer=flag).inits[0] for flag in (False, True))
    same, scaled = initialized(one, seed=4), initialized(each, seed=4)
    for layer, name in enumerate(("0.weight", "2.weight", "4.weight")):
        torch.testing.assert_close(same[name] / one.solution.gain, scaled[name] / each.solution.layers[layer].gain)
    MLP(depth=3, width=6, activation="tanh").load_state_dict(scaled)


class Residual(nn.Module):
    """Convolutions of several kinds, a skip connection, normalization, a curved activation, and an idle layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm, self.late = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
        self.head, self.idle = nn.Linear(4, 3), nn.Linear(2, 2)

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h = h + self.norm(torch.tanh(self.inner(h)))
        return self.head(torch.relu(self.late(h)).mean((2, 3)))


def test_a_convolutional_network_keeps_its_norm_after_every_layer():
    problem = problem_of(Residual().double(), 4, 2, 6, 6)
    entry = forward_model(problem, init="he_normal", seeds=150, solve="median", per_layer=True).inits[0]
    found = entry.solution
    assert [layer.name for layer in found.layers] == ["stem", "inner", "late", "head"]
    assert found.method == "sequential"
    assert abs(found.z) < 4
    state = model_initialized(problem, entry, seed=3)
    plain = model_initialized(problem, forward_model(problem, init="he_normal", seeds=2).inits[0], seed=3)
    for layer in found.layers:
        torch.testing.assert_close(state[f"{layer.name}.weight"], layer.gain * plain[f"{layer.name}.weight"])
    torch.testing.assert_close(state["idle.weight"], plain["idle.weight"])
    json.dumps(asdict(entry))


@pytest.mark.parametrize(("name", "passes"), [("relu", 1), ("tanh", 5)])
def test_passes_over_a_model_are_few(name, passes):
    """Where a scale passes through, one pass finds the gains; in any case, as many as there are layers."""
    start = log_ratios([1.0], "normal", phi=activation(name), **SMALL)[0]
    calls = []

    def simulate(gains):
        calls.append(gains)
        return log_ratios([gains], "normal", phi=activation(name), **SMALL)[0]

    if name == "relu":
        found = iterated_layer_gains("median", start, simulate)
        np.testing.assert_allclose(found.values, scaled_layer_gains("median", start).values, rtol=1e-9)
        assert len(calls) == passes
    else:  # measured behind a curved activation, an output is not proportional to its own gain
        with pytest.raises(ComputeError, match="share weights"):
            iterated_layer_gains("median", start, simulate)
        assert len(calls) == 7


def test_what_cannot_be_done_is_said():
    for call in (
        lambda: forward(depth=2, width=2, seeds=4, per_layer=True),
        lambda: forward_model(problem_of(MLP(depth=2, width=4), 3, 4), seeds=4, per_layer=True),
    ):
        with pytest.raises(SpecError, match="--per-layer"):
            call()
    tied = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    tied[2].weight = tied[0].weight
    with pytest.raises(ComputeError, match="share weights"):
        forward_model(problem_of(tied, 3, 4), init="he_normal", seeds=20, solve="median", per_layer=True)
    with pytest.raises(ComputeError, match="after layer 1"):
        sequential("median", "tanh", "normal", width=1, seeds=60, depth=40)
