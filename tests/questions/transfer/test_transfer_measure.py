"""`transfer`: a standard network fails and a muP one passes; refusals, repetition, and what an interrupt leaves."""

import pytest
import torch

import hessdiag
from hessdiag.errors import ComputeError, SpecError
from hessdiag.nets.gpt import GPT, sentences
from hessdiag.nets.mlp import MLP
from hessdiag.nets.mup import multiplier
from hessdiag.questions.transfer import network
from hessdiag.questions.transfer.measure import transfer

F64 = torch.float64


def builder(parametrization="standard", **sizes):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 16, generator=generator, dtype=F64), torch.randn(32, 2, generator=generator, dtype=F64)

    def build(width, seed):
        shape = {"depth": 3, "width": width, "in_features": 16, "out_features": 2} | sizes
        return hessdiag.Problem(MLP(**shape, seed=seed, parametrization=parametrization), data=[(x, y)], loss="mse")

    return build


def rates(found, name):
    return {line.role: getattr(line, name) for line in found.layers}


def test_a_standard_network_fails_under_gradient_descent_and_the_table_of_mup_is_what_would_mend_it():
    found = transfer(builder(), widths=[32, 128], seeds=5)
    assert found.transfers is False
    assert found.slopes.lambda_max.slope == pytest.approx(0.8, abs=0.2)
    assert found.slopes.lambda_max_weighted == found.slopes.lambda_max
    assert found.multipliers == "groups"
    assert rates(found, "mended_rate") == {"input": 1, "hidden": pytest.approx(0, abs=1e-9), "output": -1}
    assert rates(found, "mended_weight") == {"input": None, "hidden": None, "output": -1}
    assert rates(found, "activation")["input"].held == "drifts"
    assert found.sizes[0].largest_lr == pytest.approx(2 / found.sizes[0].lambda_max)


def test_a_mup_network_passes_under_gradient_descent_with_the_rates_of_its_table():
    found = transfer(builder("mup"), widths=[64, 256], seeds=8)
    assert found.transfers is True
    assert found.multipliers == "mup"
    assert found.slopes.lambda_max.slope > 0.8  # raw, which the optimizer does not see
    assert abs(found.slopes.lambda_max_weighted.slope) < 0.1
    powers = {role: round(power, 9) + 0.0 for role, power in rates(found, "rate").items()}
    assert powers == {"input": 1, "hidden": 0, "output": -1}
    assert rates(found, "initial_weight")["output"] == pytest.approx(-1, abs=0.05)
    assert not any(finding.level in ("warn", "bad") for finding in found.findings)


def test_adam_wants_other_rates():
    standard = transfer(builder(), widths=[32, 128], seeds=5, optimizer="adam")
    assert standard.transfers is False
    assert rates(standard, "mended_rate") == {"input": pytest.approx(0, abs=1e-9), "hidden": -1, "output": -1}
    assert rates(standard, "activation")["hidden"].held == "drifts"
    mup = transfer(builder("mup"), widths=[64, 256], seeds=5, optimizer="adam")
    assert mup.transfers is True
    assert rates(mup, "rate")["hidden"] == pytest.approx(-1, abs=1e-9)
    assert mup.weighted_at == "after the steps"


def test_rates_of_sgd_do_not_serve_adam():
    def make(model):
        base = builder("mup")(64, 0).model
        groups = [
            {"params": [one], "lr": 1e-3 * multiplier("sgd", small.shape, one.shape)}
            for small, one in zip(base.parameters(), model.parameters(), strict=True)
        ]
        return torch.optim.Adam(groups, lr=1e-3)

    found = transfer(builder("mup"), widths=[64, 128], seeds=3, optimizer=make)
    assert found.multipliers == "groups"
    assert rates(found, "rate") == {
        "input": pytest.approx(1),
        "hidden": pytest.approx(0, abs=1e-9),
        "output": pytest.approx(-1),
    }
    assert found.transfers is False


def test_of_a_gpt_layers_are_told_apart_and_its_table_is_that_of_adam():
    text = sentences(4, 9, 12, seed=0)

    def build(width, seed):
        model = GPT(layers=2, width=width, heads=2, vocabulary=12, context=8, seed=seed, parametrization="mup")
        return hessdiag.Problem(model, data=[(text[:, :-1], text[:, 1:])], loss="ce")

    found = transfer(build, widths=[16, 32], seeds=2, optimizer="adam", steps=2)
    lines = {line.name: (line.role, line.tensors, round(line.rate, 6) + 0.0) for line in found.layers}
    assert lines["token"] == lines["place"] == ("input", 1, 0)
    assert lines["blocks.*.attention.q_proj"] == ("hidden", 2, -1)
    assert lines["head"] == ("output", 1, -1)
    assert lines["all bias vectors"] == ("vector", 17, 0)
    assert [line.name for line in found.layers][-2:] == ["all weight vectors", "all bias vectors"]


def test_over_depths_the_first_and_the_last_layer_are_told_from_those_between():
    def build(depth, seed):
        return builder(depth=depth)(16, seed)

    found = transfer(build, widths=[3, 6, 12], varied="depth", seeds=2)
    assert [(line.role, line.tensors) for line in found.layers] == [("input", 1), ("hidden", 10), ("output", 1)]
    assert found.layers[1].name == "2 ... 20"
    assert rates(found, "mended_rate") == {"input": None, "hidden": None, "output": None}


def test_the_same_seed_gives_the_same_numbers_and_models_are_left_alone():
    made, before = [], []

    def build(width, seed):
        problem = builder()(width, seed)
        made.append(problem.model)
        before.append([parameter.detach().clone() for parameter in problem.model.parameters()])
        return problem

    state = torch.get_rng_state()
    first, again, other = (transfer(build, widths=[8, 16], seeds=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert (first.slopes, first.sizes, first.layers) == (again.slopes, again.sizes, again.layers)
    assert first.slopes != other.slopes
    for model, weights in zip(made, before, strict=True):
        assert all(torch.equal(one, old) for one, old in zip(model.parameters(), weights, strict=True))
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(module._forward_hooks for module in model.modules())


def test_finished_networks_are_taken_up(tmp_path, monkeypatch):
    first = transfer(builder(), widths=[8, 16], seeds=2, resume=tmp_path)
    monkeypatch.setattr(network, "measured", lambda *_: pytest.fail("measured again"))
    again = transfer(builder(), widths=[8, 16], seeds=2, resume=tmp_path)
    assert (again.slopes, again.lr, again.resumed_pieces) == (first.slopes, first.lr, 5)
    with pytest.raises(SpecError, match="steps"):
        transfer(builder(), widths=[8, 16], seeds=2, steps=2, resume=tmp_path)


def test_an_interrupt_keeps_finished_widths(monkeypatch):
    whole, measured, left = transfer(builder(), widths=[8, 16, 32], seeds=2), network.measured, [5]

    def interrupted(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return measured(*args)

    monkeypatch.setattr(network, "measured", interrupted)
    found = transfer(builder(), widths=[8, 16, 32], seeds=2)
    assert (found.status, found.widths, found.asked) == ("interrupted", (8, 16), (8, 16, 32))
    assert found.sizes == whole.sizes[:2]
    assert found.problem.parameters == 16 * 16 + 16 * 16 + 16 * 2  # of the largest that was measured
    assert "up to 16" in next(finding.says for finding in found.findings if "Interrupted" in finding.says)


def test_a_learning_rate_that_explodes_is_said_and_has_no_slope():
    found = transfer(builder(), widths=[8, 32], seeds=2, lr=50.0)
    assert found.transfers is False
    assert found.sizes[1].diverged == 2
    assert found.slopes.activation.slope is None
    assert found.slopes.lambda_max.slope is not None
    assert "diverges" in found.findings[0].says


@pytest.mark.parametrize(
    ("build", "options", "error", "says"),
    [
        (builder(), {"widths": [8]}, SpecError, "between two widths"),
        (builder(), {"widths": [0, 8]}, SpecError, "--widths must be at least 1"),
        (builder(), {"widths": [4, 8], "seeds": 1}, SpecError, "--seeds must be at least 2"),
        (builder(), {"widths": [4, 8], "tolerance": 0.0}, SpecError, "positive slope"),
        (builder(), {"widths": [4, 8], "optimizer": "muon", "multipliers": "mup"}, SpecError, "none for Muon"),
        (builder(), {"widths": [4, 8], "optimizer": "tr-rmsprop"}, SpecError, "differentiates the loss itself"),
        (builder(), {"widths": [2, 4], "varied": "depth", "multipliers": "mup"}, SpecError, "muP's table is of widths"),
        (lambda width, seed: builder(depth=width)(8, seed), {"widths": [2, 4]}, ComputeError, "have other parameters"),
        (lambda width, seed: builder()(8, seed), {"widths": [2, 4]}, ComputeError, "nothing grows"),
    ],
)
def test_what_cannot_be_measured_is_refused(build, options, error, says):
    with pytest.raises(error, match=says):
        transfer(build, **options)


def test_networks_that_are_one_and_the_same_for_all_seeds_are_refused():
    build = builder()
    with pytest.raises(SpecError, match="every seed gives the same weights"):
        transfer(lambda width, seed: build(width, 0), widths=[8, 16], seeds=2)
