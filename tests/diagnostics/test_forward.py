"""Forward norms against plain forward passes, tabulated values and closed forms."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from hessdiag.diagnostics import forward_norms
from hessdiag.diagnostics.forward import forward
from hessdiag.diagnostics.forward_norms import log_ratios, ratio_statistics
from hessdiag.errors import SpecError
from hessdiag.nets.activations import activation

FUNCTIONS = {
    "linear": lambda a: a,
    "relu": lambda a: np.maximum(a, 0),
    "leaky_relu": lambda a: np.where(a > 0, a, 0.01 * a),
    "tanh": np.tanh,
    "gelu": lambda a: a * (1 + erf(a / math.sqrt(2))) / 2,
}


@pytest.fixture
def recorded(monkeypatch):
    """The inputs and weights that are drawn."""
    kept = {"x": [], "W": []}
    draw, randn = forward_norms.draw, torch.randn

    def keep(name, function):
        def wrapped(*args, **options):
            kept[name].append(value := function(*args, **options))
            return value

        return wrapped

    monkeypatch.setattr(forward_norms, "draw", keep("W", draw))
    monkeypatch.setattr(torch, "randn", keep("x", randn))
    return kept


@pytest.mark.parametrize("distribution", ["normal", "uniform", None])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_ratios_are_those_of_a_plain_forward_pass(name, distribution, recorded, monkeypatch):
    monkeypatch.setattr(forward_norms, "CHUNK_NUMBERS", 3 * 25)  # two chunks, of 3 and 1 networks
    gains, depth = [0.6, 1.0, 2.5], 6
    logs = log_ratios(gains, distribution, depth=depth, width=5, phi=activation(name), seeds=4, seed=3)
    if distribution is None:  # drawing an orthogonal matrix takes Gaussian numbers too
        recorded["x"] = [x for x in recorded["x"] if x.shape[-1] == 1]
    x = np.concatenate([x.numpy() for x in recorded["x"]])[..., 0]
    weights = [np.concatenate([W.numpy() for W in recorded["W"][layer::depth]]) for layer in range(depth)]
    for k, gain in enumerate(gains):
        h = x / np.linalg.norm(x, axis=1, keepdims=True)
        for layer, W in enumerate(weights):
            h = FUNCTIONS[name](gain * np.einsum("nij,nj->ni", W, h))
            with np.errstate(divide="ignore"):
                assert np.allclose(logs[k, :, layer], np.log(np.linalg.norm(h, axis=1)), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("name", "slope"), [("tanh", 1.0), ("gelu", 0.5)])
def test_norms_far_below_float64_are_those_of_the_slope_at_zero(name, slope):
    curved = log_ratios([0.01], "normal", depth=200, width=4, phi=activation(name), seeds=3)
    linear = log_ratios([0.01 * slope], "normal", depth=200, width=4, phi=activation("linear"), seeds=3)
    assert curved[0, :, -1].max() < -800
    assert np.allclose(curved[:, :, -1] - curved[:, :, 20], linear[:, :, -1] - linear[:, :, 20], atol=1e-9)


@pytest.mark.parametrize(
    ("init", "name", "depth", "width", "expected"),
    [
        ("he_normal", "relu", 128, 32, -10.52556),
        ("xavier_normal", "linear", 128, 32, -4.03091),
        ("xavier_normal", "linear", 16, 8, -2.03599),
        ("he_normal", "relu", 16, 8, -6.03266),
    ],
)
def test_medians_have_tabulated_values_and_are_measured(init, name, depth, width, expected):
    measured = forward(depth=depth, width=width, init=init, activation=name, seeds=400, seed=5)
    last = measured.inits[0].last
    assert last.theory_log_median == pytest.approx(expected / 2, abs=3e-5)
    assert last.theory_median == pytest.approx(math.exp(expected / 2), abs=1e-5)
    assert last.theory_rms == pytest.approx(1.0, rel=1e-12)
    assert abs(last.z) < 4
    assert abs(measured.inits[0].worst.z) < 4
    assert measured.verdict[-1]["says"] == "Measurement and exact theory agree."


def test_uniform_weights_have_tabulated_medians_and_an_exact_mean_square():
    """Monte Carlo references of the theory notes: -4.965 +- 0.012 (ReLU, alive) and -1.736 +- 0.006 (linear)."""
    for init, name, reference, error in (
        ("he_uniform", "relu", -4.965, 0.012),
        ("xavier_uniform", "linear", -1.736, 0.006),
    ):
        entry = forward(depth=16, width=8, init=init, activation=name, seeds=8000, seed=1).inits[0]
        found, stderr = 2 * entry.last.ratio.log_median, 2 * entry.last.ratio.log_median_stderr
        assert abs(found - reference) < 4 * math.hypot(stderr, error)
        assert entry.last.theory_median is None
        assert entry.last.theory_rms == pytest.approx(1.0)
        shallow = entry.layers[1].ratio
        assert abs(shallow.rms - 1) < 4 * shallow.rms_stderr


def test_dead_networks_are_counted_and_count_as_zero_in_averages():
    entry = forward(depth=16, width=8, init="he_normal", seeds=4000, seed=2).inits[0]
    dead = 0.0607019
    assert abs(entry.last.ratio.dead_fraction - dead) < 4 * math.sqrt(dead * (1 - dead) / 4000)
    assert abs(entry.last.z) < 4
    first = entry.layers[3].ratio
    assert abs(first.rms - 1) < 4 * first.rms_stderr


def test_default_inits_stand_side_by_side():
    measured = forward(depth=8, width=16, seeds=50)
    assert [entry.init for entry in measured.inits] == ["lecun", "xavier_normal", "he_normal"]
    assert [entry.distribution for entry in measured.inits] == ["uniform", "normal", "normal"]
    lecun, xavier, he = (entry.last for entry in measured.inits)
    assert he.ratio.log_median - xavier.ratio.log_median == pytest.approx(4 * math.log(2), abs=1e-9)
    assert lecun.theory_rms == pytest.approx(6.0**-4)
    assert xavier.theory_rms == pytest.approx(2.0**-4)
    result = measured.to_result()
    json.dumps(result)
    keys = {"layer", "median", "mean", "rms", "dead_fraction", "theory_median", "theory_rms"}
    assert keys <= set(result["inits"][0]["layers"][0])


def test_a_distribution_replaces_the_inits_own():
    entry = forward(depth=2, width=4, seeds=10, init="lecun", distribution="normal").inits[0]
    assert entry.distribution == "normal"
    assert entry.last.theory_rms == pytest.approx(1 / 6)
    assert entry.last.theory_median is not None


def test_orthogonal_linear_layers_keep_every_norm():
    entry = forward(depth=32, width=6, init="orthogonal", activation="linear", seeds=10).inits[0]
    assert entry.last.ratio.median == pytest.approx(1.0, abs=1e-12)
    assert entry.distribution is None
    assert entry.last.theory_rms is None


def test_same_seed_same_bits():
    one, two, other = (forward(depth=4, width=4, seeds=30, seed=s).to_result() for s in (1, 1, 2))
    assert one == two
    assert one != other


def test_verdict_names_the_gap_the_width_and_the_gain():
    said = forward(depth=128, width=32, init="he_normal", seeds=60).verdict
    assert "193 times smaller than the average says" in said[1]["says"]
    assert "width 244" in said[0]["try"]
    assert "1.0420" in said[0]["try"]


def test_an_interrupt_keeps_finished_distributions():
    calls = []

    def stop(done, total, what):
        calls.append(done)
        if done > total / 2:
            raise KeyboardInterrupt

    measured = forward(depth=4, width=4, seeds=20, progress=stop)
    assert measured.status == "interrupted"
    assert [entry.init for entry in measured.inits] == ["lecun"]


def test_order_statistics_give_the_error_of_a_median():
    rng = np.random.default_rng(0)
    found = [ratio_statistics(rng.standard_normal(400)) for _ in range(300)]
    spread = np.std([s.log_median for s in found])
    assert np.median([s.log_median_stderr for s in found]) == pytest.approx(spread, rel=0.15)
    assert math.isnan(ratio_statistics([0.0]).log_median_stderr)
    dead = ratio_statistics([-math.inf] * 3)
    assert (dead.live, dead.dead_fraction, dead.mean) == (0, 1.0, 0.0)
    assert math.isnan(dead.median)


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 0},
        {"width": 0},
        {"seeds": 1},
        {"init": "zeros"},
        {"init": ()},
        {"activation": "swish"},
        {"device": "x"},
    ],
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(SpecError):
        forward(**{"depth": 2, "width": 2, "seeds": 4} | options)
