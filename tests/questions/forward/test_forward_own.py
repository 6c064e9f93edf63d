"""The model as it is comes first: where its own signal ends is said by name and number, and healthy ones are let be."""

import dataclasses
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.documents import read
from hessdiag.questions.forward.model import forward_model
from hessdiag.questions.forward.model_norms import model_log_ratios
from hessdiag.questions.forward.model_weights import scales_of, unit_weights, weight_layers
from hessdiag.questions.forward.own import own_signal
from hessdiag.questions.forward.own_verdict import end
from hessdiag.questions.forward.verdict import findings
from hessdiag.questions.forward.view import view
from hessdiag.report.view import Table

SAMPLES = 64


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(widths, act=nn.ReLU, norm=False):
    torch.manual_seed(0)
    layers = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b))
        if i < len(widths) - 2:
            layers += [nn.BatchNorm1d(b), act()] if norm else [act()]
    return nn.Sequential(*layers)


def he(model):
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model


def problem_of(model, x=None):
    x = drawn(SAMPLES, 20) if x is None else x
    return Problem(model, data=[(x, torch.zeros(len(x), dtype=torch.long))], loss="ce")


def judged(model, x=None, **options):
    return forward_model(problem_of(model, x), seeds=10, **options)


def says(measured):
    return [(finding.level, finding.says) for finding in measured.findings]


def by_hand(rows):
    """Size and variation of signals (samples, entries), in float64."""
    rows = rows.double()
    size = rows.square().mean().sqrt()
    return float(size), float((rows - rows.mean(0)).square().mean().sqrt() / size)


# --- the numbers --------------------------------------------------------------------------------------------------


def test_sizes_and_variations_are_those_of_all_batches_together():
    model = mlp([20, 12, 5])
    x = drawn(23, 20) + 1.5
    data = [(part, torch.zeros(len(part), dtype=torch.long)) for part in (x[:16], x[16:22], x[22:])]
    own = own_signal(Problem(model, data=data, loss="ce"))
    with torch.no_grad():
        hidden = model[0](x)
        out = model(x)
    first, last = own.layers
    assert (first.input_rms, first.input_variation) == pytest.approx(by_hand(x), rel=1e-6)
    assert (first.rms, first.variation) == pytest.approx(by_hand(hidden), rel=1e-6)
    assert (last.input_rms, last.input_variation) == pytest.approx(by_hand(hidden.relu()), rel=1e-6)
    assert (own.output_rms, own.output_variation) == pytest.approx(by_hand(out), rel=1e-6)
    assert (own.samples, first.units, first.input_units, last.units) == (23, 12, 20, 5)
    assert first.highest == pytest.approx(float(hidden.max()), rel=1e-6)
    assert first.bias_mean == pytest.approx(float(model[0].bias.mean()), rel=1e-6)


def test_variations_of_fresh_networks_are_those_of_a_copy_with_these_weights():
    model = mlp([20, 12, 5]).double()
    problem = problem_of(model, drawn(SAMPLES, 20).double())
    layers = weight_layers(model)
    scales = scales_of("he_normal", layers, None)
    found = model_log_ratios(problem, layers, [scales], "normal", seeds=3, seed=4, advance=lambda count: None)
    for network in range(3):
        unit = unit_weights(layers, "normal", 4, network)
        hidden = problem.data[0][0] @ (unit["0"] * scales["0"]).T
        out = hidden.relu() @ (unit["2"] * scales["2"]).T
        expected = [by_hand(hidden)[1], by_hand(out)[1]]
        assert found.variations[0, network].tolist() == pytest.approx(expected, rel=1e-10)
    layers = forward_model(problem, init="he_normal", seeds=3, seed=4).inits[0].layers
    assert [layer.variation for layer in layers] == pytest.approx(np.median(found.variations[0], axis=0).tolist())


class TimeMajor(nn.Module):
    def __init__(self):
        super().__init__()
        self.r, self.o = nn.GRU(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.o(self.r(x)[0])[-1]


def test_samples_are_found_behind_time_and_among_windows():
    torch.manual_seed(0)
    model, x = TimeMajor(), drawn(7, 9, 3)
    own = own_signal(Problem(model, data=[(x, torch.zeros(9, dtype=torch.long))], loss="ce"))
    assert own.layers[0].input_variation == pytest.approx(by_hand(x.movedim(1, 0).flatten(1))[1], rel=1e-6)
    with torch.no_grad():
        hidden = model.r(x)[0]
    assert own.layers[1].input_variation == pytest.approx(by_hand(hidden.movedim(1, 0).flatten(1))[1], rel=1e-6)
    flat = nn.Sequential(nn.Flatten(0, 1), nn.Linear(3, 2), nn.Unflatten(0, (9, 7)), nn.Flatten())
    x = drawn(9, 7, 3)
    own = own_signal(Problem(flat, data=[(x, torch.zeros(9, dtype=torch.long))], loss="ce"))
    assert own.layers[0].input_variation == pytest.approx(by_hand(x.flatten(1))[1], rel=1e-6)


# --- what is wrong is said first, by name and number ----------------------------------------------------------------


def test_a_dead_layer_is_the_headline_the_first_table_and_the_verdict():
    model = he(mlp([20, 16, 16, 5]))
    nn.init.constant_(model[2].bias, -9.0)
    measured = judged(model)
    (finding,) = measured.findings
    assert finding.level == "bad"
    assert "Layer 2 is dead" in finding.says
    assert "16 units" in finding.says
    assert f"{SAMPLES} samples" in finding.says
    assert "-9.00" in finding.because
    shown = view(measured)
    assert shown.headline[0] == "0"
    assert "layer 2" in shown.headline[1]
    tables = [block for block in shown.blocks if isinstance(block, Table)]
    assert "own weights" in tables[0].title
    assert tables[0].rows[2][tables[0].columns.index("zero in")] == "100 %"
    assert all(table.title.startswith("Experiment, ") for table in tables[1:])


def test_a_dead_last_activation_is_said():
    model = nn.Sequential(*mlp([20, 16, 5]), nn.ReLU())
    nn.init.constant_(model[2].bias, -9.0)
    assert [(level, "Layer 2 is dead" in text) for level, text in says(judged(model))] == [("bad", True)]


class Branched(nn.Module):
    """A residual branch whose inside can be switched off."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.o = nn.Linear(20, 16), nn.Linear(16, 12), nn.Linear(12, 16), nn.Linear(16, 5)

    def forward(self, x):
        h = self.a(x)
        return self.o(torch.relu(h + self.c(torch.relu(self.b(h)))))


def test_a_dead_branch_is_a_warning_for_the_signal_goes_around_it():
    model = Branched()
    nn.init.constant_(model.b.bias, -9.0)
    assert [(level, "Layer b is dead" in text) for level, text in says(judged(model))] == [("warn", True)]
    assert [level for level, _ in says(judged(Branched()))] == ["ok"]


def test_a_signal_that_samples_share_is_lost_and_the_experiment_names_what_keeps_it():
    measured = judged(mlp([20] + [16] * 29 + [5]))
    (finding,) = measured.findings
    assert finding.level == "bad"
    assert "is lost" in finding.says
    assert measured.own.output_variation < 1e-5
    assert f"{measured.own.output_variation:.1e}".split("e")[0] in finding.because
    assert "initialize with he_normal" in finding.remedy
    assert [level for level, _ in says(judged(he(mlp([20] + [16] * 29 + [5]))))] == ["ok"]


def test_where_no_initialization_helps_none_is_advised():
    measured = judged(mlp([20] + [16] * 9 + [5], nn.Sigmoid))
    (finding,) = measured.findings
    assert (finding.level, "is lost" in finding.says) == ("bad", True)
    assert finding.remedy.startswith("none of lecun, xavier_normal, he_normal keeps it")


def test_the_layer_that_loses_it_at_once_is_named():
    model = mlp([20, 16, 16, 5], nn.Tanh)
    nn.init.constant_(model[2].bias, 30.0)  # saturated: the same for all samples
    (finding,) = judged(model).findings
    assert (finding.level, "at layer 2" in finding.says) == ("bad", True)


def test_a_weak_signal_is_a_warning():
    model = mlp([20, 16, 16, 5], nn.Tanh)
    with torch.no_grad():
        model[2].weight.mul_(0.015)
        model[4].weight.mul_(0.02)
        model[2].bias.fill_(1.0)
    measured = judged(model)
    assert 1e-3 < end(measured.own) < 1e-2
    assert [(level, "hardly gets through" in text) for level, text in says(measured)] == [("warn", True)]


def test_batch_norm_is_measured_as_the_model_came():
    model = mlp([20] + [16] * 14 + [5], norm=True)
    fresh = judged(model.train())
    assert (fresh.own.batch_statistics, fresh.own.unseen_norms) == (14, 0)
    assert [level for level, _ in says(fresh)] == ["ok"]
    assert all(module.training for module in model.modules())
    assert float(model[1].running_mean.abs().max()) == 0
    idle = judged(model.eval())
    assert (idle.own.batch_statistics, idle.own.unseen_norms) == (0, 14)
    (finding,) = idle.findings
    assert (finding.level, "14 BatchNorm layers" in finding.says) == ("bad", True)
    assert "--train-mode" in finding.remedy
    x = drawn(SAMPLES, 20)
    for _ in range(60):
        model.train()(x)
    assert [level for level, _ in says(judged(model.eval()))] == ["ok"]


def test_units_that_are_copies_are_said():
    model = mlp([20, 16, 16, 5])
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.05)
    (finding,) = judged(model).findings
    assert finding.level == "bad"
    assert "All 16 units of layer 0 are copies" in finding.says
    with torch.no_grad():
        model[0].weight[3] *= 1.001
    assert "layer 2" in judged(model).findings[0].says


def test_a_layer_that_is_far_too_large_is_named_with_its_factor():
    model = he(mlp([20, 16, 16, 5]))
    with torch.no_grad():
        model[2].weight.mul_(200)
    measured = judged(model)
    (finding,) = measured.findings
    layer = measured.own.layers[1]
    gain = layer.rms * layer.variation / (layer.input_rms * layer.input_variation)
    assert finding.level == "bad"
    assert f"at layer 2, which multiplies it by {gain:.0f}" in finding.says
    assert f"divide the weights of 2 by {gain:.2g}".split("e")[0][:30] in finding.remedy


def test_growth_and_fading_over_many_layers_are_said():
    grown, faded = he(mlp([20] + [16] * 11 + [5])), he(mlp([20] + [16] * 11 + [5]))
    with torch.no_grad():
        for layer in range(0, 22, 2):
            grown[layer].weight.mul_(2.5)
            faded[layer].weight.mul_(0.4)
    (finding,) = judged(grown).findings
    assert (finding.level, "explodes in the model as it is over 12 layers" in finding.says) == ("bad", True)
    (finding,) = judged(faded).findings
    assert (finding.level, "fades" in finding.says) == ("warn", True)
    with torch.no_grad():
        for layer in range(0, 22, 2):
            faded[layer].weight.mul_(0.3)
    (finding,) = judged(faded).findings
    assert (finding.level, "fades" in finding.says) == ("bad", True)


def test_large_inputs_that_nothing_normalizes_are_said():
    x = 60 * drawn(SAMPLES, 20) + 100
    (finding,) = judged(mlp([20, 16, 16, 5]), x).findings
    size = float(x.double().square().mean().sqrt())
    assert (finding.level, f"their size is {size:.0f}" in finding.says) == ("warn", True)
    normed = nn.Sequential(nn.BatchNorm1d(20), *mlp([20, 16, 16, 5]))
    assert [level for level, _ in says(judged(normed, x))] == ["ok"]


# --- what is healthy is let be ---------------------------------------------------------------------------------------


class ZeroStart(nn.Module):
    """Harmless oddities: an output layer and a residual branch at zero, and a condition that all samples share."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.i, self.t, self.m = nn.Linear(20, 16), nn.Linear(3, 8), nn.Linear(8, 16)
        self.f, self.z, self.o = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 5)
        for layer in (self.m, self.z, self.o):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        h = self.i(x) * (1 + self.m(nn.functional.silu(self.t(torch.full((len(x), 3), 0.3)))))
        return self.o(torch.relu(h + self.z(torch.relu(self.f(h)))))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e = nn.Embedding(9, 16)
        self.t = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
        self.o = nn.Linear(16, 5)
        nn.init.normal_(self.e.weight, std=0.02)

    def forward(self, x):
        return self.o(self.t(self.e(x.abs().mul(4).long().clamp(max=8))).mean(1))


HEALTHY = {
    "linear": lambda: nn.Linear(20, 5),
    "torch's own start": lambda: mlp([20, 32, 32, 5]),
    "six layers of it": lambda: mlp([20] + [32] * 5 + [5]),
    "he": lambda: he(mlp([20] + [32] * 20 + [5])),
    "tanh": lambda: mlp([20, 32, 32, 32, 5], nn.Tanh),
    "sigmoid": lambda: mlp([20, 32, 5], nn.Sigmoid),
    "batch norm": lambda: mlp([20] + [32] * 12 + [5], norm=True),
    "zero start": ZeroStart,
    "tokens": Tokens,
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 20)), nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_network_has_one_good_sentence_and_no_more(name):
    measured = judged(HEALTHY[name]())
    assert [level for level, _ in says(measured)] == ["ok"]
    assert "arrives" in measured.findings[0].says


def test_one_sample_tells_nothing_of_samples():
    assert [level for level, _ in says(judged(mlp([20, 8, 5]), drawn(1, 20)))] == ["note"]


def test_a_gain_of_the_experiment_is_named_so_and_never_good_beside_a_dead_layer():
    model = he(mlp([20, 16, 16, 5]))
    nn.init.constant_(model[2].bias, -9.0)
    measured = judged(model, init="he_normal", solve="median")
    assert [(level, text.split(",")[0]) for level, text in says(measured)][1:] == [("note", "Experiment")]
    assert measured.findings[0].level == "bad"


def test_the_verdict_needs_no_more_than_the_document():
    measured = judged(mlp([20] + [16] * 29 + [5]))
    again = read(json.loads(measured.to_json()))
    assert again == measured
    assert findings(again) == list(measured.findings)
    old = dataclasses.replace(measured, own=None)
    assert view(old).headline[0] != view(measured).headline[0]


def test_an_interrupt_before_two_networks_leaves_the_model_as_it_is():
    def stop(done, total, what):
        if done:
            raise KeyboardInterrupt

    measured = judged(he(mlp([20, 16, 16, 5])), progress=stop)
    assert (measured.status, measured.inits) == ("interrupted", ())
    assert [level for level, _ in says(measured)] == ["note", "ok"]
    assert end(measured.own) == pytest.approx(measured.own.output_variation, rel=0.5)
    assert view(measured).headline[0] != "–"


# --- gains where float32 does not hold the numbers ---------------------------------------------------------------------


def test_a_gain_is_found_in_float64_where_float32_overflows():
    deep = he(mlp([20] + [16] * 39 + [5]))
    narrow, wide = (
        forward_model(problem_of(model, x), init="he_normal", seeds=60, solve="median").inits[0]
        for model, x in (
            (deep, drawn(SAMPLES, 20)),
            (he(mlp([20] + [16] * 39 + [5])).double(), drawn(SAMPLES, 20).double()),
        )
    )
    assert narrow.solution.gain == pytest.approx(wide.solution.gain, rel=1e-4)
    assert abs(narrow.solution.z) < 4
    assert narrow.in_float64 == 50  # of the coarse search, whose widest gains overflow
    assert wide.in_float64 is None
    assert {parameter.dtype for parameter in deep.parameters()} == {torch.float32}


def test_a_signal_below_float32_is_measured_all_the_same():
    """120 layers of torch's own start lose 47 orders of magnitude: float32 would call every network dead."""
    last = judged(mlp([20] + [16] * 119 + [5]), init="lecun").inits[0]
    assert last.in_float64 == 10
    assert last.last.live == 10
    assert -140 < last.last.log_median < -90


def test_a_search_meets_no_end_in_float64():
    """At the widest gain 400 layers overflow even float64: that is more than 1, and no error."""
    deep = he(mlp([20] + [8] * 399 + [5])).double()
    found = forward_model(problem_of(deep, drawn(4, 20).double()), init="he_normal", seeds=8, solve="median").inits[0]
    assert math.isfinite(found.solution.gain)
    assert 1.0 < found.solution.gain < 1.5
