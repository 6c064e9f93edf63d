"""`vanishing_of`: any network, against the exact formulas of fully connected ones and against dense Hessians."""

import json
import math
from functools import partial

import pytest
import torch
from torch import nn

from hessdiag import HessianOperator, Problem, hessian
from hessdiag.errors import ComputeError, SpecError
from hessdiag.nets.activations import activation
from hessdiag.nets.ensemble import Ensemble
from hessdiag.nets.mlp import MLP
from hessdiag.nets.reinitialize import reinitialize
from hessdiag.numbers import number, ratio, times
from hessdiag.problem.describe import describe
from hessdiag.questions.documents import document
from hessdiag.questions.vanishing import mlp_norms
from hessdiag.questions.vanishing.models import vanishing_of
from hessdiag.questions.vanishing.view import view
from tests import once

WIDTH, SAMPLES = 8, 4


def half_squares(output, target):
    return (output - target).square().sum() / (2 * len(output))


def of_ensemble(depth, index, init="he_normal"):
    """The network number `index` of an ensemble, as a problem, and its sample."""
    sample = Ensemble(depth, WIDTH, init, SAMPLES).draw(index, 1)
    model = MLP(depth=depth, width=WIDTH)
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), sample.weights, strict=True):
            parameter.copy_(weight[0])
    return Problem(model, [(sample.x[0], sample.y[0])], half_squares), sample


def random_mlp(depth, seed):
    """A fresh network with fresh data, of the law that `vanishing` draws from."""
    return of_ensemble(depth, seed % 1000)[0]


def test_norms_are_those_of_the_exact_formulas():
    measured = vanishing_of(lambda depth, seed: of_ensemble(depth, 3)[0], depth=[2, 6], seeds=2)
    for entry in measured.depths:
        _, sample = of_ensemble(entry.depth, 3)
        state = mlp_norms.run(sample.weights, sample.x, sample.y, activation("relu"), 1 / SAMPLES)
        gradient = mlp_norms.gradient_norms2(state).sqrt()[0]
        diagonal, above, _ = mlp_norms.hessian_norms2(sample.weights, state, 1 / SAMPLES)
        total = math.sqrt(float(diagonal.sum() + 2 * above.sum()))
        assert entry.gradient_norm.median == pytest.approx(float(gradient.norm()), rel=1e-10)
        if entry.hessian_method == "exact":
            assert entry.hessian_norm.median == pytest.approx(total, rel=1e-10)
            assert entry.hessian_diagonal_blocks_norm.median == pytest.approx(float(diagonal.sum().sqrt()), rel=1e-10)
    assert [entry.hessian_method for entry in measured.depths] == ["exact", "hvp"]
    assert [layer.gradient_norm.median for layer in measured.layers] == pytest.approx(gradient.tolist(), rel=1e-10)


def test_block_norms_from_probes_have_the_right_mean_and_error():
    """The same network under many probes: logs of the means within four standard errors of the dense Hessian's."""
    problem, _ = of_ensemble(5, 7)
    H = hessian(problem)
    own = sum(H[s.start : s.stop, s.start : s.stop].square().sum() for s in problem.layer_slices)
    measured = vanishing_of(lambda depth, seed: problem, depth=[5], seeds=40)
    (entry,) = measured.depths
    for norm, square in (
        (entry.hessian_norm, H.square().sum()),
        (entry.hessian_diagonal_blocks_norm, own),
        (entry.hessian_offdiagonal_blocks_norm, H.square().sum() - own),
    ):
        assert abs(norm.rms - math.sqrt(square)) <= 4 * norm.rms * norm.log_median_stderr
    spread = entry.hessian_norm.log_median_stderr * math.sqrt(40) / 1.2533
    assert entry.hessian_probe_error == pytest.approx(spread, rel=0.5)
    assert measured.same_weights
    assert any("same weights" in finding.says for finding in measured.findings)


def test_medians_are_those_of_the_fully_connected_ensemble():
    from hessdiag import vanishing

    exact = vanishing(depth=[12], width=WIDTH, init="he_normal", seeds=400, hessian_seeds=100, batch=SAMPLES)
    found = vanishing_of(random_mlp, depth=[12], seeds=40, init="he_normal", seed=5)
    for name in ("gradient_norm", "hessian_norm", "hessian_diagonal_blocks_norm"):
        a, b = getattr(exact.depths[0], name), getattr(found.depths[0], name)
        assert abs(a.log_median - b.log_median) <= 4 * math.hypot(a.log_median_stderr, b.log_median_stderr), name


def test_the_result_has_no_theory_and_fits_a_document():
    measured = vanishing_of(random_mlp, depth=4, seeds=3)
    result = document(measured)["result"]
    json.loads(measured.to_json())
    assert measured.theory is None
    assert (result["width"], result["init"], result["activation"]) == (None, None, None)
    assert all(rate["theory_per_layer"] is None for rate in result["rates"].values())
    assert "vjp" not in result["rates"]
    assert measured.status == "ok"
    assert [layer["name"] for layer in result["layers"]] == ["0", "2", "4", "6"]


def test_the_same_seed_gives_the_same_numbers():
    found = (vanishing_of(random_mlp, depth=4, seeds=3, seed=seed) for seed in (1, 1, 2))
    one, two, other = (document(one)["result"] for one in found)
    assert one == two
    assert one != other


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupt_keeps_what_is_there(after):
    calls = []

    def stop(done, total, what):
        calls.append(done)
        if len(calls) > after + 2:
            raise KeyboardInterrupt

    measured = vanishing_of(random_mlp, depth=8, seeds=4, progress=stop)
    assert measured.status == "interrupted"
    assert [entry.seeds for entry in measured.depths] == ([3] if after == 1 else [4, 2])


def test_an_interrupt_after_the_last_network_leaves_nothing_out():
    def stop(done, total, what):
        if done == total:
            raise KeyboardInterrupt

    measured = vanishing_of(random_mlp, depth=4, seeds=2, progress=stop)
    assert [entry.seeds for entry in measured.depths] == [2, 2]
    assert measured.status == "ok"
    assert not any(finding.says.startswith("Interrupted") for finding in measured.findings)


def test_the_cost_is_said_first():
    said = []
    vanishing_of(random_mlp, depth=8, seeds=2, progress=lambda done, total, what: said.append(what))
    assert said[0].startswith("2 networks at depths 2, 4, 8, up to 512 parameters; Hessian norms of 2:")


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"depth": []}, {"seeds": 1}, {"init": "zeros"}, {"distribution": "normal"}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(SpecError):
        vanishing_of(random_mlp, **{"depth": 2, "seeds": 2, **wrong})


def overflowing(where, layer=0):
    """Networks whose forward pass (at the first layer), or only whose gradient (at the last), overflows at a depth."""

    def build(depth, seed):
        problem = random_mlp(depth, seed)
        with torch.no_grad():
            problem.parameters[layer].mul_(1e300 if depth == where else 1)
        return problem

    return build


@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("where", [2, 4, 8])
def test_a_depth_that_fails_leaves_the_others(where, layer):
    whole = vanishing_of(random_mlp, depth=8, seeds=3)
    measured = vanishing_of(overflowing(where, layer), depth=8, seeds=3, hessian_seeds=3)
    assert [entry.depth for entry in measured.depths] == [depth for depth in (2, 4, 8) if depth != where]
    assert list(measured.depths) == [entry for entry in whole.depths if entry.depth != where]
    assert [entry.depth for entry in measured.failed] == [where]
    assert measured.status == "inexact"
    assert measured.findings[0].says == f"Not every depth could be measured: {where} is missing."
    (failed,) = document(measured)["result"]["failed"]
    assert failed["depth"] == where
    assert failed["says"]


def test_a_network_that_fails_late_is_named():
    def build(depth, seed):
        calls.append(depth)
        return overflowing(4 if calls.count(4) == 3 else 0)(depth, seed)

    calls = []
    measured = vanishing_of(build, depth=4, seeds=4)
    assert (measured.failed[0].depth, measured.status) == (4, "inexact")
    assert measured.failed[0].says.startswith("network 2 of 4: ")
    assert measured.problem.parameters == measured.depths[-1].parameters == 2 * WIDTH**2


@pytest.mark.parametrize(("kept", "described"), [(False, [4]), (True, [4, 2])])
def test_networks_are_described_where_it_serves(kept, described, tmp_path, monkeypatch):
    """A description takes a hash of all weights: of every depth to be resumed by, else of the one that is shown."""
    seen = []
    monkeypatch.setattr(
        "hessdiag.questions.vanishing.models.describe",
        lambda problem: seen.append(len(problem.executed_layers)) or describe(problem),
    )
    measured = vanishing_of(random_mlp, depth=4, seeds=2, resume=tmp_path if kept else None)
    assert seen == described
    assert measured.problem.parameters == 4 * WIDTH**2


def test_when_no_depth_can_be_measured_the_first_failure_is_the_error():
    with pytest.raises(ComputeError, match="at depth 4: the "):
        vanishing_of(overflowing(4), depth=[4], seeds=2)


def test_dead_networks_are_counted():
    measured = vanishing_of(
        lambda depth, seed: Problem(MLP(depth, 2, seed=seed), [(torch.ones(1, 2).double(),) * 2], "mse"),
        depth=[12],
        seeds=40,
    )
    assert 0.2 < measured.depths[0].dead_fraction < 1
    assert measured.depths[0].gradient_norm.networks == round(40 * (1 - measured.depths[0].dead_fraction))


def test_reinitialized_layers_have_the_law_of_their_init():
    net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.Flatten(), nn.Linear(500, 40), nn.Embedding(4, 3))
    kept = net[4].weight.clone()
    with torch.no_grad():
        net[1].weight.fill_(7)
    for init, conv, linear in (("lecun", 1 / (3 * 144), 1 / 1500), ("xavier_normal", 2 / (144 + 288), 2 / 540)):
        reinitialize(net, init, torch.Generator().manual_seed(1))
        for layer, variance in ((net[0], conv), (net[3], linear)):
            assert float(layer.weight.detach().var()) == pytest.approx(variance, rel=0.1)
            assert not layer.bias.any()
    assert torch.equal(net[4].weight, kept)
    assert bool((net[1].weight == 1).all())
    reinitialize(net, "orthogonal", torch.Generator().manual_seed(1))
    W = net[3].weight
    assert torch.allclose(W @ W.T, torch.eye(40), atol=1e-5)
    with pytest.raises(SpecError):
        reinitialize(nn.Embedding(2, 2), "lecun", torch.Generator())


def test_gradient_of_the_operator_is_what_is_reported():
    problem, _ = of_ensemble(3, 1)
    measured = vanishing_of(lambda depth, seed: problem, depth=[3], seeds=2)
    assert measured.depths[0].gradient_norm.median == pytest.approx(float(HessianOperator(problem).gradient().norm()))


class Sine(nn.Module):
    def forward(self, x):
        return once.Sine.apply(x)


def test_differences_in_place_of_products_are_said():
    def build(depth, seed):
        torch.manual_seed(seed)
        layers = [layer for _ in range(depth) for layer in (nn.Linear(3, 3), Sine())]
        return Problem(
            nn.Sequential(*layers).double(), [(torch.randn(4, 3).double(), torch.ones(4, 3).double())], "mse"
        )

    measured = vanishing_of(build, depth=2, seeds=2)
    assert 0 < measured.checks["hvp_two_steps"] < measured.thresholds["hvp_two_steps"]
    assert measured.status == "ok"
    assert "products are central differences" in measured.findings[0].says


def default_relu(depth, seed, norm=None):
    """Torch's own initialization: biases keep the whole gradient up while nothing reaches the first layers."""
    torch.manual_seed(seed)
    parts = [part for _ in range(depth) for part in (nn.Linear(8, 8), *([norm(8)] if norm else []), nn.ReLU())]
    x = torch.randn(32, 8)
    return Problem(nn.Sequential(*parts[:-1]), [(x, x)], "mse", train_mode=True)


def test_what_reaches_the_first_layer_is_in_headline_and_verdict():
    measured = vanishing_of(default_relu, depth=[4, 24], seeds=4, hessian_seeds=2)
    shallow, deep = measured.depths
    whole = deep.gradient_norm.median / shallow.gradient_norm.median
    assert 0.3 < whole < 3, "which would be a factor of one per layer"
    first, last = measured.layers[0], measured.layers[-1]
    low, high = (layer.gradient_norm.median / math.sqrt(72) for layer in (first, last))
    assert deep.first_layer_gradient_norm == first.gradient_norm
    assert deep.last_layer_gradient_norm == last.gradient_norm
    per_layer = (deep.first_layer_gradient_norm.median / shallow.first_layer_gradient_norm.median) ** (1 / 20)
    value, said = view(measured).headline
    assert float(value.split()[0].lstrip("×")) == pytest.approx(per_layer, rel=1e-3)
    assert per_layer < 0.5
    assert f"a typical entry is {number(low)} there, {times(high / low)} smaller than in the last layer" in said
    found = measured.findings[0]
    assert found.level == "bad"
    assert found.says == (
        "The gradient does not reach the first layers: a typical parameter of 0, the first, gets a gradient "
        f"{times(high / low)} smaller than one of 46, the last."
    )
    assert found.because.startswith(f"{number(low)} against {number(high)} in layers 1 and 24 of 24")
    assert (
        f"not Adam or RMSprop as they are: their eps of 1e-8 makes steps {times(1 + 1e-8 / low)} smaller"
        in found.remedy
    )
    hidden = next(finding for finding in measured.findings if "hides" in finding.says)
    assert hidden.level == "note"
    assert f"{times(max(whole, 1 / whole))} " in hidden.says


def test_one_depth_alone_says_what_reaches_the_first_layer():
    measured = vanishing_of(default_relu, depth=[24], seeds=2, hessian_seeds=2)
    value, said = view(measured).headline
    low, high = (layer.gradient_norm.median for layer in (measured.layers[0], measured.layers[-1]))
    assert value == ratio(low, high)
    assert said.startswith("of the last layer's gradient is what the first layer gets at depth 24")


def test_gradients_that_explode_on_the_way_back_are_told_from_those_that_vanish():
    measured = vanishing_of(partial(default_relu, norm=nn.BatchNorm1d), depth=[4, 48], seeds=3, hessian_seeds=2)
    found = measured.findings[0]
    assert found.says.startswith("Gradients explode on the way back: a typical parameter of 0, the first layer, gets")
    assert "each alone explodes" in found.remedy
    assert "times larger than in the last layer" in view(measured).headline[1]


def test_layers_that_are_reached_alike_are_judged_by_the_whole():
    measured = vanishing_of(random_mlp, seeds=3, depth=[2, 4])
    assert not any("first layers" in finding.says or "hides" in finding.says for finding in measured.findings)
    kept = measured.layers[0].gradient_norm.median / measured.layers[-1].gradient_norm.median
    said = view(measured).headline[1]
    assert "the median gradient norm goes from" in said
    assert said.endswith(f"at depth 4 the first layer's gradient is {ratio(kept, 1.0)} the last layer's")


def test_layers_are_counted_as_they_are_executed():
    """A scalar of the loss with a gradient of another size, registered first, is no layer that is not reached."""

    class Backwards(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1e4))
            self.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(depth))

        def forward(self, x):
            for layer in reversed(self.layers):
                x = layer(x)
            return x * self.scale

    def build(depth, seed):
        torch.manual_seed(seed)
        x = torch.randn(6, 4).double()
        return Problem(Backwards(depth).double(), [(x, x)], "mse")

    measured = vanishing_of(build, depth=[2, 3], seeds=3)
    assert [layer.name for layer in measured.layers] == ["layers.2", "layers.1", "layers.0", "scale"]
    assert [(layer.layer, layer.depth) for layer in measured.layers] == [(1, 1), (2, 2), (3, 3), (4, None)]
    assert not measured.unevenly_reached
    scale, first = measured.layers[3].gradient_norm.median, measured.layers[0].gradient_norm.median
    assert first / 4 > 100 * scale  # so that it would have been one


def test_a_model_that_differentiates_in_its_forward_pass():
    """Forces of an energy: torch's counter of operations cannot look into a derivative inside a module."""

    class Forces(nn.Module):
        def __init__(self):
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()

        def forward(self, x):
            x = x.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]

    torch.manual_seed(0)
    problem = Problem(Forces(), [(torch.randn(5, 2).double(), torch.randn(5, 2).double())], "mse")
    found = vanishing_of(lambda depth, seed: problem, depth=[1], seeds=2).depths[0]
    assert found.hessian_norm.median == pytest.approx(float(hessian(problem).norm()), rel=1e-10)
