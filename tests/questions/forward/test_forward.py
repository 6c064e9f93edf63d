"""Forward norms against plain forward passes, tabulated values and closed forms."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from hessdiag.errors import ComputeError, SpecError
from hessdiag.nets.activations import activation
from hessdiag.questions.documents import read
from hessdiag.questions.forward import norms as forward_norms
from hessdiag.questions.forward.gain import log_statistic, search_gain
from hessdiag.questions.forward.measure import forward
from hessdiag.questions.forward.norms import log_ratios, ratio_statistics
from hessdiag.questions.forward.theory import exact_kurtosis
from hessdiag.questions.forward.verdict import findings
from tests.interrupts import ends_after
from tests.questions.forward.gain_errors import solved_log_stderr

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
    assert "Measurement and exact theory agree." in [finding.says for finding in measured.findings]


@pytest.mark.parametrize(("init", "name"), [("he_uniform", "relu"), ("xavier_uniform", "linear")])
def test_uniform_weights_have_an_exact_mean_square_and_no_exact_median(init, name):
    entry = forward(depth=16, width=8, init=init, activation=name, seeds=4000, seed=1).inits[0]
    assert entry.last.theory_median is None
    assert entry.last.theory_rms == pytest.approx(1.0)
    shallow = entry.layers[1]
    assert abs(shallow.rms - 1) < 4 * shallow.rms_stderr


def test_dead_networks_are_counted_and_count_as_zero_in_averages():
    entry = forward(depth=16, width=8, init="he_normal", seeds=4000, seed=2).inits[0]
    dead = 0.0607019
    assert abs(entry.last.dead_fraction - dead) < 4 * math.sqrt(dead * (1 - dead) / 4000)
    assert entry.last.theory_dead_fraction == pytest.approx(dead, rel=1e-6)
    assert abs(entry.last.z) < 4
    first = entry.layers[3]
    assert abs(first.rms - 1) < 4 * first.rms_stderr


def test_default_inits_stand_side_by_side():
    measured = forward(depth=8, width=16, seeds=50)
    assert [entry.init for entry in measured.inits] == ["lecun", "xavier_normal", "he_normal"]
    assert [entry.distribution for entry in measured.inits] == ["uniform", "normal", "normal"]
    lecun, xavier, he = (entry.last for entry in measured.inits)
    assert he.log_median - xavier.log_median == pytest.approx(4 * math.log(2), abs=1e-9)
    assert lecun.theory_rms == pytest.approx(6.0**-4)
    assert xavier.theory_rms == pytest.approx(2.0**-4)
    result = json.loads(measured.to_json())["result"]
    keys = {"layer", "median", "mean", "rms", "dead_fraction", "theory_median", "theory_rms"}
    assert keys <= set(result["inits"][0]["layers"][0])


def test_a_distribution_replaces_the_inits_own():
    entry = forward(depth=2, width=4, seeds=10, init="lecun", distribution="normal").inits[0]
    assert entry.distribution == "normal"
    assert entry.last.theory_rms == pytest.approx(1 / 6)
    assert entry.last.theory_median is not None


def test_orthogonal_linear_layers_keep_every_norm():
    entry = forward(depth=32, width=6, init="orthogonal", activation="linear", seeds=10).inits[0]
    assert entry.last.median == pytest.approx(1.0, abs=1e-12)
    assert entry.distribution is None
    assert entry.last.theory_rms is None


def test_same_seed_same_bits():
    one, two, other = (forward(depth=4, width=4, seeds=30, seed=s).inits for s in (1, 1, 2))
    assert one == two
    assert one != other


def test_verdict_names_the_gap_the_width_and_the_gain():
    said = forward(depth=128, width=32, init="he_normal", seeds=60).findings
    assert any("193 times smaller than the average says" in finding.says for finding in said)
    assert "width 244" in said[0].remedy
    assert "1.0420" in said[0].remedy


def test_an_interrupt_keeps_finished_distributions():
    calls = []

    def stop(done, total, what):
        calls.append(done)
        if done > total / 2:
            raise KeyboardInterrupt

    measured = forward(depth=4, width=4, seeds=20, progress=stop)
    assert measured.status == "interrupted"
    assert [entry.init for entry in measured.inits] == ["lecun"]


@pytest.mark.parametrize(("networks", "spread", "given"), [(1000, 0.2, True), (1000, 1.2, False), (1000, 1.5, False)])
def test_errors_of_averages_cover_or_are_not_given(networks, spread, given):
    """Log-normal ratios, whose averages are known; 400 ensembles."""
    rng, hits = np.random.default_rng(networks), {"mean": [], "rms": []}
    for _ in range(400):
        logs = rng.normal(0, spread, networks)
        found = ratio_statistics(logs)
        assert log_statistic(found, "rms")[1] == pytest.approx(
            np.exp(2 * logs).std() / (2 * found.rms**2 * networks**0.5)
        )
        for name, order in (("mean", 1), ("rms", 2)):
            error = getattr(found, f"{name}_stderr")
            if error is not None:
                hits[name].append(abs(getattr(found, name) - math.exp(order * spread**2 / 2)) <= 1.96 * error)
    assert all(0.9 <= np.mean(hit) <= 0.98 for hit in hits.values() if len(hit) > 100)
    assert (len(hits["rms"]) > 380) is given
    assert given or len(hits["rms"]) < 4  # where an ensemble without its tail looks well known


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
        {"solve": "mean"},
    ],
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(SpecError):
        forward(**{"depth": 2, "width": 2, "seeds": 4} | options)


@pytest.mark.parametrize(
    ("init", "name", "finite", "deep"),
    [("xavier_normal", "linear", 1.03199, 1.03208), ("he_normal", "relu", 1.08571, 1.08604)],
)
def test_the_gain_of_gaussian_networks_has_tabulated_values(init, name, finite, deep):
    entry = forward(depth=128, width=32, init=init, activation=name, seeds=100, solve="median").inits[0]
    found = entry.solution
    assert (found.method, found.gain_stderr) == ("exact", None)
    assert found.mean_square_growth == pytest.approx(finite, rel=5e-6)
    assert found.mean_square_growth_deep == pytest.approx(deep, rel=5e-6)
    assert found.gain == pytest.approx(math.sqrt(finite), rel=5e-6)
    assert abs(found.z) < 4


def test_the_gain_that_keeps_the_mean_square_is_exact_and_not_judged_by_a_few_networks():
    measured = forward(depth=64, width=8, init=["lecun", "he_normal"], seeds=50, solve="rms")
    lecun, he = (entry.solution for entry in measured.inits)
    assert lecun.gain == pytest.approx(math.sqrt(6))
    assert he.gain == pytest.approx(1.0)
    assert he.z is None
    assert measured.status == "ok"


def test_one_measurement_gives_the_gain_of_uniform_networks():
    entry = forward(depth=32, width=8, init="he_uniform", seeds=1000, solve="median").inits[0]
    found = entry.solution
    assert found.method == "scaling"
    assert found.gain == pytest.approx(math.exp(-entry.last.log_median / 32))
    assert found.gain_stderr == pytest.approx(found.gain * entry.last.log_median_stderr / 32)
    assert abs(found.z) < 4


@pytest.mark.parametrize(("init", "name"), [("xavier_normal", "tanh"), ("orthogonal", "tanh"), ("he_uniform", "gelu")])
def test_a_searched_gain_keeps_the_median_of_fresh_networks(init, name):
    entry = forward(depth=16, width=8, init=init, activation=name, seeds=600, solve="median").inits[0]
    found = entry.solution
    assert found.method == "bisection"
    assert abs(found.z) < 4
    assert found.gain_stderr > 0
    law_gain = {"xavier_normal": 1.0, "orthogonal": 1.0, "he_uniform": math.sqrt(2)}[init]
    distribution = entry.distribution
    logs = log_ratios(
        [found.gain * law_gain], distribution, depth=16, width=8, phi=activation(name), seeds=1000, seed=77
    )
    again = ratio_statistics(logs[0, :, -1])
    sensitivity = solved_log_stderr(found)
    assert abs(again.log_median) < 4 * math.hypot(again.log_median_stderr, sensitivity)


def test_a_search_agrees_with_the_closed_form_where_there_is_one():
    exact = forward(depth=8, width=8, init="he_normal", seeds=800, solve="median").inits[0].solution

    def simulate(gains, count):
        return log_ratios(gains, "normal", depth=8, width=8, phi=activation("relu"), seeds=count, seed=4)[:, :, -1]

    searched = search_gain("median", depth=8, seeds=800, simulate=simulate)
    assert abs(math.log(searched.value / (math.sqrt(2) * exact.gain))) < 4 * searched.log_stderr
    one = log_ratios([1.0], "normal", depth=8, width=8, phi=activation("relu"), seeds=800, seed=4)[0, :, -1]
    assert searched.value == pytest.approx(math.exp(-ratio_statistics(one).log_median / 8), rel=1e-9)


def test_a_gain_that_rests_on_a_few_networks_is_not_trusted():
    measured = forward(depth=48, width=4, init="he_normal", activation="gelu", seeds=60, solve="rms")
    assert measured.status == "inexact"
    assert any("not to be trusted" in finding.says for finding in measured.findings if finding.level == "bad")


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 48, "width": 4, "init": "he_normal", "activation": "gelu", "solve": "rms"},
        {"depth": 6, "width": 8, "init": "he_normal", "activation": "tanh", "solve": "median", "per_layer": True},
        {"depth": 4, "width": 8, "progress": ends_after(5)},
    ],
    ids=["few carriers", "layers", "interrupted"],
)
def test_a_saved_result_is_read_back_as_it_was(options, monkeypatch):
    monkeypatch.setattr(forward_norms, "CHUNK_NUMBERS", 640)
    measured = forward(**{"seeds": 60} | options)
    again = read(json.loads(measured.to_json()))
    assert again == measured
    assert findings(again) == list(measured.findings), "the verdict needs no more than the document"
    solutions = [entry.solution for entry in again.inits if entry.solution]
    assert [solution.tried for solution in solutions] == [options.get("solve") == "median"] * len(solutions)


def test_what_no_gain_can_do_is_said():
    with pytest.raises(ComputeError, match="no gain makes the median"):
        forward(depth=4, width=1, init="he_normal", activation="tanh", seeds=60, solve="median")


def test_kurtosis_of_few_numbers_and_its_error_over_repetitions():
    assert ratio_statistics(np.log([1.0, 2.0])).kurtosis == pytest.approx(8.5 / 2.5**2, rel=1e-14)
    assert ratio_statistics([0.0, -math.inf]).kurtosis == pytest.approx(2.0, rel=1e-14)  # the dead count as zero
    assert math.isnan(ratio_statistics([-math.inf]).kurtosis)
    samples = np.log(np.random.default_rng(0).uniform(0.5, 1.5, (400, 500)))
    found = [ratio_statistics(sample) for sample in samples]
    spread = np.std([one.kurtosis for one in found])
    assert np.median([one.kurtosis_stderr for one in found]) == pytest.approx(spread, rel=0.12)


@pytest.mark.parametrize(("name", "growth"), [("linear", 2), ("relu", 5)])
def test_exact_kurtosis_of_gaussian_networks_grows_by_its_closed_form(name, growth):
    """Vanishing Curvature, Eq. 6: 1 + 2/d for linear layers, at any scale; 1 + 5/d for ReLU."""
    for init in ("he_normal", "lecun_normal"):
        found = exact_kurtosis(init, name, 5, 8)
        assert found == pytest.approx((1 + growth / 8) ** np.arange(1.0, 6), rel=1e-13)
    assert exact_kurtosis("orthogonal", name, 3, 8) is None
    assert exact_kurtosis("he_normal", "tanh", 3, 8) is None


@pytest.mark.parametrize("init", ["he_uniform", "he_normal"])
@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu"])
def test_measured_fourth_moments_agree_with_the_recursion(name, init):
    """Figure 22, in networks wide enough for a sample to hold those that carry the moment."""
    for entry in forward(depth=3, width=24, init=init, activation=name, seeds=4000).inits[0].layers:
        assert abs(entry.kurtosis - entry.theory_kurtosis) < 4 * entry.kurtosis_stderr
