import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from hessdiag.errors import ComputeError, SpecError
from hessdiag.nets.ensemble import Ensemble
from hessdiag.nets.initializers import draw, law
from hessdiag.questions.documents import document
from hessdiag.questions.vanishing.measure import depth_grid, vanishing
from hessdiag.questions.vanishing.rates import rates
from hessdiag.questions.vanishing.result import QUANTITIES, statistics_of
from hessdiag.questions.vanishing.statistics import norm_statistics


@pytest.mark.parametrize(
    ("init", "activation"),
    [
        ("he_normal", "relu"),
        ("xavier_normal", "linear"),
        ("lecun_normal", "relu"),
        ("he_normal", "leaky_relu"),
    ],
)
def test_medians_agree_with_the_exact_law(init, activation):
    measured = vanishing(depth=48, width=16, init=init, activation=activation, seeds=400, hessian_seeds=2, batch=2)
    assert [entry.depth for entry in measured.agreement] == [2, 4, 8, 16, 32, 48]
    assert max(abs(entry.z) for entry in measured.agreement) <= 4
    rate = measured.rates["vjp"]
    assert abs(rate.per_layer - rate.theory_per_layer) <= 4 * rate.per_layer_stderr


@pytest.mark.parametrize("init", ["lecun", "he_uniform"])
def test_uniform_weights_follow_the_corrected_rate(init):
    rate = vanishing(depth=32, width=32, init=init, seeds=400, hessian_seeds=2, batch=1).rates["vjp"]
    assert abs(rate.per_layer - rate.theory_per_layer) <= 4 * rate.per_layer_stderr


def test_root_mean_squares_agree_with_exact_expectations():
    measured = vanishing(depth=2, width=24, init="he_normal", seeds=3000, hessian_seeds=400, batch=1)
    (entry,) = measured.depths
    assert set(entry.theory_rms) == set(QUANTITIES) - {"first_layer_gradient", "last_layer_gradient"}
    for quantity in entry.theory_rms:
        assert statistics_of(entry, quantity).rms == pytest.approx(entry.theory_rms[quantity], rel=0.06), quantity


def test_the_error_of_a_trace_is_how_far_such_means_scatter():
    runs = [vanishing(depth=2, width=6, seeds=40, hessian_seeds=40, batch=2, seed=seed).depths[0] for seed in range(60)]
    scatter = np.std([run.hessian_trace for run in runs], ddof=1)
    assert scatter == pytest.approx(np.median([run.hessian_trace_stderr for run in runs]), rel=0.4)


@pytest.mark.parametrize(("init", "activation"), [("he_uniform", "relu"), ("xavier_normal", "leaky_relu")])
def test_traces_agree_with_their_exact_mean_for_any_law_and_batch(init, activation):
    measured = vanishing(depth=4, width=12, init=init, activation=activation, seeds=300, hessian_seeds=300, batch=3)
    for entry in measured.depths:
        assert abs(entry.hessian_trace - entry.theory_trace) < 4 * entry.hessian_trace_stderr
    assert (
        vanishing(depth=2, width=4, activation="tanh", seeds=4, hessian_seeds=4, batch=2).depths[0].theory_trace is None
    )


def test_layers_stand_beside_their_exact_root_mean_squares():
    measured = vanishing(depth=2, width=32, init="he_normal", seeds=1500, hessian_seeds=1500, batch=1)
    for layer in measured.layers:
        assert layer.gradient_norm.rms == pytest.approx(layer.theory_rms["gradient"], rel=0.05)
        assert layer.hessian_block_norm.rms == pytest.approx(layer.theory_rms["hessian_block"], rel=0.05)
    whole = measured.depths[-1].theory_rms["gradient"]
    assert math.hypot(*(layer.theory_rms["gradient"] for layer in measured.layers)) == pytest.approx(whole)
    assert vanishing(depth=2, width=4, seeds=4, hessian_seeds=4, batch=2).layers[0].theory_rms is None


def test_root_mean_squares_count_the_dead_as_theory_does():
    """Width 3: a sixth of the networks is dead at depth 2, and most of them at depth 8."""
    measured = vanishing(depth=[2, 4, 8], width=3, init="he_uniform", seeds=20_000, hessian_seeds=2, batch=1)
    for entry in measured.depths:
        dead = entry.dead_fraction
        assert dead == pytest.approx(1 - (1 - 2.0**-3) ** (entry.depth - 1), abs=0.015)
        theory = entry.theory_rms["vjp"]
        assert entry.vjp_norm.rms == pytest.approx(theory, rel=0.1)
        assert entry.vjp_norm.rms / math.sqrt(1 - dead) > 1.03 * theory  # of live networks alone


def test_lecun_vanishes_and_diagonal_blocks_at_the_squared_rate():
    measured = vanishing(depth=32, width=16, init="lecun", activation="linear", seeds=100, hessian_seeds=30, batch=4)
    rates = measured.rates
    assert rates["gradient"].per_layer < -0.4
    ratio = rates["hessian_diagonal_blocks"].per_layer / rates["hessian_offdiagonal_blocks"].per_layer
    assert 1.7 < ratio < 2.3
    assert measured.findings[0].level == "bad"
    assert "vanish" in measured.findings[0].says
    assert measured.depths[-1].certified_indefinite == 1.0


def test_width_equal_to_depth_holds():
    measured = vanishing(depth=32, width="same", init="he_uniform", seeds=60, hessian_seeds=6, batch=4)
    assert [entry.width for entry in measured.depths] == [2, 4, 8, 16, 32]
    assert measured.findings[0].level in ("ok", "note")
    assert measured.rates == {}


@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu", "tanh", "gelu"])
@pytest.mark.parametrize("init", ["lecun", "xavier_uniform", "he_normal", "orthogonal"])
def test_every_setting_runs(activation, init):
    measured = vanishing(depth=4, width=6, init=init, activation=activation, seeds=20, hessian_seeds=5, batch=3)
    assert measured.status == "ok"
    assert all(entry.hessian_norm.median > 0 for entry in measured.depths)
    json.loads(measured.to_json())


def test_exact_norms_match_the_dense_share_of_small_networks():
    measured = vanishing(depth=2, width=4, seeds=40, hessian_seeds=40, batch=3)
    shares = measured.depths[0].hessian_diag_share
    assert 1 / 32 < shares.median < 1
    assert vanishing(depth=8, width=16, seeds=4, hessian_seeds=2, batch=2).depths[-1].hessian_diag_share is None


def test_wide_networks_fall_back_to_products(monkeypatch):
    exact = vanishing(depth=4, width=8, seeds=40, hessian_seeds=40, batch=3)
    monkeypatch.setattr("hessdiag.questions.vanishing.norms.EXACT_WORK", 0.0)
    estimated = vanishing(depth=4, width=8, seeds=40, hessian_seeds=40, batch=3)
    assert {entry.hessian_method for entry in estimated.depths} == {"hvp"}
    for a, b in zip(exact.depths, estimated.depths, strict=True):
        assert a.gradient_norm == b.gradient_norm
        assert abs(a.hessian_norm.log_median - b.hessian_norm.log_median) < 0.3
        assert a.hessian_diagonal_blocks_norm.median == pytest.approx(b.hessian_diagonal_blocks_norm.median, rel=1e-9)
        assert b.certified_indefinite is None


def test_same_seed_same_bits():
    found = (vanishing(depth=8, width=8, seeds=30, hessian_seeds=5, seed=s) for s in (1, 1, 2))
    one, two, other = (document(one)["result"] for one in found)
    assert one == two
    assert one["depths"][0]["gradient_norm"] != other["depths"][0]["gradient_norm"]


def test_same_call_draws_the_same_networks():
    few, many = (Ensemble(3, 4, "he_normal", 2).draw(0, 5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(few.weights, many.weights, strict=True))


def test_interrupt_keeps_finished_depths():
    calls = []

    def stop(done, total, what):
        calls.append(done)
        if len(calls) > 4:
            raise KeyboardInterrupt

    measured = vanishing(depth=32, width=8, seeds=20, hessian_seeds=4, progress=stop)
    assert measured.status == "interrupted"
    assert 1 <= len(measured.depths) < 5


def test_dead_networks_are_counted():
    measured = vanishing(depth=32, width=3, init="he_normal", seeds=200, hessian_seeds=10, batch=1)
    dead = 1 - (1 - 2.0**-3) ** 31
    assert measured.depths[-1].dead_fraction == pytest.approx(dead, abs=4 * math.sqrt(dead * (1 - dead) / 200))
    assert any("born dead" in entry.says for entry in measured.findings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0},
        {"width": 0},
        {"seeds": 1},
        {"batch": 0},
        {"init": "xavier"},
        {"activation": "swish"},
        {"device": "gpu"},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(SpecError):
        vanishing(**{"depth": 4, "width": 4, **wrong})


def test_depth_grid():
    assert depth_grid(128) == [2, 4, 8, 16, 32, 64, 128]
    assert depth_grid(1) == [1]
    assert depth_grid(5) == [2, 4, 5]


@pytest.mark.parametrize(
    "init",
    ["lecun", "lecun_normal", "lecun_variance", "xavier_uniform", "xavier_normal", "he_uniform", "he_normal"],
)
def test_drawn_weights_have_the_stated_law(init):
    fan_in, fan_out = 20, 30
    W = draw(init, (200, fan_out, fan_in), generator=torch.Generator().manual_seed(0)).numpy().ravel()
    stated = law(init, fan_in, fan_out)
    n = len(W)
    assert W.var() == pytest.approx(stated.variance, rel=4 * math.sqrt((stated.kurtosis - 1) / n))
    assert np.mean(W**4) / W.var() ** 2 == pytest.approx(stated.kurtosis, rel=0.03)


def test_statistics_of_norms():
    rng = np.random.default_rng(0)
    squared = np.exp(2 * rng.normal(-3, 2, 4001))
    found = norm_statistics(squared, np.ones(4001, bool))
    assert found.median == pytest.approx(np.median(np.sqrt(squared)))
    assert found.rms == pytest.approx(np.sqrt(squared.mean()))
    assert found.log_median_stderr == pytest.approx(math.sqrt(math.pi / 2) * 2 / math.sqrt(4001), rel=0.05)
    assert norm_statistics([0.0, 1.0], [False, False]).networks == 0
    assert norm_statistics([0.0, 0.0, 1.0], [True] * 3).median == 0


@pytest.mark.parametrize("networks", [17, 200])
def test_errors_of_rates_cover(networks):
    """400 ensembles of log-normal norms with known medians, at the two depths that a rate is taken between."""
    measured = vanishing(depth=8, width=2, seeds=20, hessian_seeds=2, batch=2)
    shallow, deep = measured.ends
    rng, live, z = np.random.default_rng(networks), np.ones(networks, dtype=bool), []
    for _ in range(400):
        ends = [
            replace(entry, gradient_norm=norm_statistics(np.exp(2 * rng.normal(median, spread, networks)), live))
            for entry, median, spread in ((shallow, 0.0, 0.5), (deep, -3.0, 1.5))
        ]
        rate = rates(ends, None)["gradient"]
        z.append((rate.per_layer + 3 / (deep.depth - shallow.depth)) / rate.per_layer_stderr)
    assert 0.92 <= np.mean(np.abs(z) <= 1.96) <= 0.98


def test_all_dead_is_not_called_exploding():
    measured = vanishing(depth=64, width=1, seeds=20, hessian_seeds=2, batch=2)
    assert measured.depths[-1].dead_fraction == 1
    (only,) = measured.findings
    assert only.says.startswith("100 % of networks are born dead")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"depth": 600, "init": "lecun", "activation": "tanh", "batch": 2}, "Gradients vanish: a typical"),
        ({"depth": 3000, "init": "he_normal", "activation": "linear", "batch": 1}, "Gradients explode: a typical"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_beyond_the_range_of_float64(setting, says):
    measured = vanishing(width=4, seeds=4, hessian_seeds=2, **setting)
    first = measured.findings[0]
    assert first.says.startswith(says)
    assert not any("nan" in entry.says for entry in measured.findings)
    assert all(math.isfinite(value) for value in (measured.depths[-1].theory_rms or {}).values())


def test_squares_that_lost_digits_count_as_underflow():
    assert norm_statistics([1e-310, 1e-308, 1e-280], [True] * 3).median == 0


def test_a_few_networks_do_not_judge_theory():
    assert not vanishing(depth=8, width=4, seeds=3, init="he_normal", batch=1).agreement


def test_networks_that_cannot_fit_are_refused_at_once():
    with pytest.raises(ComputeError, match=r"depth 100,000 and width 1,000 takes .* GiB"):
        vanishing(depth=100_000, width=1000)


def test_the_verdict_speaks_of_one_number():
    """The factor per layer is that between the two norms which the sentence names."""
    verdict = vanishing(depth=32, width=8, seeds=100, hessian_seeds=2, batch=2).findings
    said = next(finding for finding in verdict if finding.says.startswith("Gradients"))
    found = re.search(r"norm (\S+) at depth (\d+), (\S+) at depth (\d+): ×(\S+) ± (\S+) for each", said.because)
    start, depth, last, deepest, factor, error = map(float, found.groups())
    assert factor == pytest.approx((last / start) ** (1 / (deepest - depth)), rel=1e-3)
    assert factor < 1
    assert 0 < error < 0.02
    falls, later, sooner = re.search(r"is (\S+) times smaller at depth (\d+) than at depth (\d+)", said.says).groups()
    assert (float(later), float(sooner)) == (deepest, depth)
    assert float(falls) == pytest.approx(start / last, rel=0.01)
    assert "shrink" in said.says or "vanish" in said.says


def test_rates_are_those_of_two_medians_of_the_table():
    measured = vanishing(depth=64, width=8, seeds=40, hessian_seeds=8, batch=2)
    by_depth = {entry.depth: entry for entry in measured.depths}
    for quantity, rate in measured.rates.items():
        first, last = (statistics_of(by_depth[depth], quantity) for depth in (rate.from_depth, rate.to_depth))
        layers = rate.to_depth - rate.from_depth
        assert (rate.from_depth, rate.to_depth) == (8, 64)
        assert math.exp(rate.per_layer) == pytest.approx((last.median / first.median) ** (1 / layers), rel=1e-12)
        assert rate.per_layer_stderr * layers == pytest.approx(
            math.hypot(first.log_median_stderr, last.log_median_stderr), rel=1e-12
        )


def test_few_networks_get_no_tails():
    few, many = (norm_statistics(np.arange(1.0, n + 1), np.ones(n, bool)) for n in (19, 20))
    assert (few.q05, few.q95) == (None, None)
    assert 1 < many.q05 < many.median < many.q95 < math.sqrt(20)
    assert norm_statistics(np.arange(1.0, 31), np.arange(30) < 19).q05 is None, "of the live ones alone"


@pytest.mark.parametrize(("activation", "init"), [("tanh", "lecun"), ("gelu", "he_normal")])
def test_where_there_is_no_closed_form_the_cure_is_a_command_that_works(activation, init):
    from hessdiag.cli.main import run

    last = vanishing(depth=[2, 48], width=4, activation=activation, init=init, seeds=30, hessian_seeds=2, batch=1)
    cure = next(finding.remedy for finding in last.findings if "vanish" in finding.says)
    words = re.search(r"hessdiag (forward .* --solve median)", cure).group(1).split()
    assert words[:5] == ["forward", "--depth", "48", "--width", "4"]
    assert run([*words, "--seeds", "300", "--no-progress"]) in (0, 3)  # a bounded activation cannot keep every norm
