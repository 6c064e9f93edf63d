"""Each cure does what it says: gains, statistics and settings, against what is computed here by hand."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hessdiag.optimizers.recipe import recipe
from hessdiag.questions.check.cures import choice
from hessdiag.questions.check.cures.branches import observed
from hessdiag.questions.check.cures.cure import Cure, Setup
from hessdiag.questions.check.cures.initialize import HEAD, matrices
from hessdiag.questions.check.readings import InputReading, LayerReading, OutputReading, StepReading, TargetReading
from hessdiag.questions.check.result import Cause, Check
from hessdiag.questions.check.training import SAMPLES, trained


def setup_of(model: nn.Module, x: Tensor, y: Tensor, loss: Callable[..., Tensor], **more: Any) -> Setup:
    def objective(model: nn.Module, batch: Any) -> Tensor:
        return loss(model(batch[0]), batch[1])

    return Setup(model, ((x, y),), objective, recipe("sgd", 0.1), **more)


def classes(model: nn.Module, n: int = 96, features: int = 20) -> Setup:
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, features, generator=source), torch.randint(5, (n,), generator=source)
    return setup_of(model, x, y, nn.functional.cross_entropy, kind="ce")


def cures(cause: str, setup: Setup, layer: str | None = None, **readings: Any) -> list[Cure]:
    found = Check(
        causes=(
            Cause(id=cause, layer=layer, value=1.0, threshold=0.5, quantity="", confidence=0.9, says="", remedy=""),
        ),
        **readings,
    )
    return choice.cures_of(found, found.causes[0], copy.deepcopy(setup))


def layers(model: nn.Module, activation: str, **more: Any) -> tuple[LayerReading, ...]:
    names = list(matrices(model))
    return tuple(
        LayerReading(
            layer=name,
            kind="Linear",
            parameters=1,
            fan_in=1,
            activation=activation if name != names[-1] else None,
            **more,
        )
        for name in names
    )


def outputs(setup: Setup, names: Sequence[str]) -> dict[str, Tensor]:
    """What layers put out for the batch."""
    seen: dict[str, Tensor] = {}
    hooks = [
        setup.model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.setdefault(name, output.detach())
        )
        for name in names
    ]
    setup.objective(setup.model, setup.data[0])
    for hook in hooks:
        hook.remove()
    return seen


def mlp(widths: Sequence[int], kind: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), kind()]
    return nn.Sequential(*parts[:-1])


def rms(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean().sqrt())


@pytest.mark.parametrize("index", [0, 1])
def test_fresh_weights_give_every_layer_unit_variance(index: int) -> None:
    setup = classes(mlp([20, *[16] * 12, 5]))
    mended = cures("signal_lost", setup, layers=layers(setup.model, "relu"))[index].apply(copy.deepcopy(setup))
    seen = outputs(mended, list(matrices(setup.model)))
    assert [rms(one) for one in seen.values()] == pytest.approx([1.0] * 12 + [HEAD], rel=1e-4)
    first = mended.model.get_submodule("0").weight
    assert isinstance(first, Tensor)
    gram = (first @ first.mT).detach()  # orthogonal rows, all of one length
    twins = gram.clone()
    if index:  # units come in pairs of opposite signs
        assert torch.allclose(first[:8], -first[8:])
        gram = gram[:8, :8]
    assert torch.allclose(gram, gram[0, 0] * torch.eye(len(gram)), atol=1e-5), twins


def test_sigmoids_are_centred() -> None:
    setup = classes(mlp([20, 16, 16, 5], nn.Sigmoid))
    mended = cures("gradient_vanishes", setup, layers=layers(setup.model, "sigmoid"))[0].apply(copy.deepcopy(setup))
    for one in outputs(mended, ["0", "2"]).values():
        assert torch.allclose(one.mean(0), torch.zeros(16), atol=1e-5)
        assert rms(one) == pytest.approx(1.0, rel=1e-4)


def test_the_code_for_fresh_weights_does_the_same() -> None:
    for kind, activation in ((nn.ReLU, "relu"), (nn.Sigmoid, "sigmoid")):
        setup = classes(mlp([20, 16, 16, 5], kind))
        cure = cures("signal_lost", setup, layers=layers(setup.model, activation))[0]
        exec(cure.code, {"torch": torch, "model": setup.model, "x": setup.data[0][0]})
        seen = outputs(setup, ["0", "2"])
        assert [rms(one) for one in seen.values()] == pytest.approx([1.0, 1.0], rel=1e-4)
        if kind is nn.Sigmoid:
            assert max(float(one.mean(0).abs().max()) for one in seen.values()) < 1e-5


class Residual(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Linear(20, 16)
        self.up = nn.ModuleList(nn.Linear(16, 32) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(32, 16) for _ in range(blocks))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(x)))
        out: Tensor = self.head(x)
        return out


def test_branches_of_residual_networks_start_small() -> None:
    setup = classes(Residual(9))
    order, ends = observed(matrices(setup.model), lambda: setup.objective(setup.model, setup.data[0]))
    assert order[:3] == ("stem", "up.0", "down.0")
    assert order[-1] == "head"
    assert ends == {f"down.{index}" for index in range(9)}
    mended = cures("signal_explodes", setup)[0].apply(copy.deepcopy(setup))
    seen = outputs(mended, ["down.0", "down.8", "up.8", "stem"])
    assert [rms(one) for one in seen.values()] == pytest.approx([1.0, 1 / 3, 1.0, 1 / 3], rel=1e-4)


def test_two_layers_added_are_no_branch() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(20, 5), nn.Linear(20, 5)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.a(x) + self.b(x)
            return out

    setup = classes(Sum())
    assert observed(matrices(setup.model), lambda: setup.objective(setup.model, setup.data[0]))[1] == frozenset()


def test_frozen_layers_are_not_drawn_anew() -> None:
    setup = classes(mlp([20, 16, 16, 5]))
    setup.model[0].requires_grad_(False)  # type: ignore[index]
    mended = cures("signal_lost", setup)[0].apply(copy.deepcopy(setup))
    same = [torch.equal(a, b) for a, b in zip(setup.model.parameters(), mended.model.parameters(), strict=True)]
    assert same == [True, True, False, False, False, False]


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2**0.5), ("tanh", 1.0), ("sigmoid", 4.0)])
def test_a_scaled_layer_has_the_gain_of_its_activation(activation: str, gain: float) -> None:
    setup = classes(mlp([20, 16, 16, 5]))
    with torch.no_grad():
        setup.model[2].weight.mul_(100)  # type: ignore[index]
    cure = cures("weight_scale", setup, "2", layers=layers(setup.model, activation))[0]
    mended = cure.apply(copy.deepcopy(setup)).model
    before, after = (model.get_submodule("2").weight for model in (setup.model, mended))
    assert isinstance(before, Tensor)
    assert isinstance(after, Tensor)
    assert rms(after) * 4 == pytest.approx(gain, rel=1e-5)  # 16 inputs
    assert torch.allclose(before / before.norm(), after / after.norm(), atol=1e-6)
    exec(cure.code, {"torch": torch, "model": setup.model})
    for name, value in setup.model.state_dict().items():
        assert torch.allclose(value, mended.state_dict()[name], rtol=1e-3), name


def test_logits_are_brought_to_a_spread_of_one() -> None:
    setup = classes(mlp([20, 16, 5]))
    with torch.no_grad():
        setup.model[2].weight.mul_(300)  # type: ignore[index]
    spread = float(setup.model(setup.data[0][0]).detach().std(1).mean())
    found = {"layers": layers(setup.model, "relu"), "output": OutputReading(loss=9.0, spread=spread)}
    mended = cures("logit_scale", setup, "2", **found)[0].apply(copy.deepcopy(setup))
    assert float(mended.model(setup.data[0][0]).detach().std(1).mean()) == pytest.approx(1.0, rel=1e-4)


def test_dead_units_are_revived() -> None:
    setup = classes(mlp([20, 16, 16, 5]))
    nn.init.constant_(setup.model[2].bias, -8.0)  # type: ignore[index]
    found = cures("dead_units", setup, "2", layers=layers(setup.model, "relu"))
    mended = found[0].apply(copy.deepcopy(setup))
    assert float((outputs(mended, ["3"])["3"].amax(0) > 0).float().mean()) > 0.9
    assert torch.equal(mended.model.get_submodule("2").weight, setup.model.get_submodule("2").weight)  # type: ignore[arg-type]
    assert [one.name for one in found[1:]] == ["fresh weights of layer 2", "fresh weights, scaled by the data"]


def test_identical_units_differ_afterwards() -> None:
    setup = classes(mlp([20, 16, 16, 5]))
    nn.init.constant_(setup.model[2].weight, 0.05)  # type: ignore[index]
    readings = layers(setup.model, "relu")
    readings = tuple(replace(one, identical_fraction=0.9 if one.layer == "2" else 0.0) for one in readings)
    mended = cures("identical_units", setup, "2", layers=readings)[0].apply(copy.deepcopy(setup))
    weight = mended.model.get_submodule("2").weight
    assert isinstance(weight, Tensor)
    assert len(torch.unique(weight.detach(), dim=0)) == 16
    assert torch.equal(mended.model.get_submodule("0").weight, setup.model.get_submodule("0").weight)  # type: ignore[arg-type]


def inputs(x: Tensor, **more: Any) -> tuple[InputReading, ...]:
    return (InputReading(name="0", kind="real", entries=20, mean=float(x.mean()), stdev=float(x.std()), **more),)


def test_inputs_are_standardized_and_the_code_says_by_what() -> None:
    setup = classes(mlp([20, 16, 5]))
    x, y = setup.data[0]
    setup = replace(setup, data=((x * 96.1 + 78.4, y),))
    cure = cures("input_scale", setup, inputs=inputs(setup.data[0][0]))[0]
    mended = cure.apply(setup).data[0]
    assert float(mended[0].mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(mended[0].std(correction=0)) == pytest.approx(1.0, rel=1e-5)
    assert mended[1] is y
    assert not cure.weights
    scope = {"x": setup.data[0][0]}
    exec(cure.code, scope)
    assert torch.allclose(scope["x"], mended[0], atol=2e-3)


def test_one_of_several_inputs_is_standardized_where_it_lies() -> None:
    setup = classes(mlp([20, 16, 5]))
    x, y = setup.data[0]
    setup = replace(setup, data=(((x, [x * 96.1 + 78.4]), y),))
    reading = InputReading(name="1.0", kind="real", entries=20, mean=78.4, stdev=96.1, taken_by="0")
    mended = cures("input_scale", setup, "0", inputs=(reading,))[0].apply(setup).data[0]
    assert float(mended[0][1][0].mean()) == pytest.approx(0.0, abs=1e-5)
    assert mended[0][0] is x
    assert mended[1] is y


def test_steep_features_are_standardized_one_by_one() -> None:
    setup = classes(mlp([20, 16, 5]))
    x, y = setup.data[0]
    steep = torch.cat([x[:, :1] * 1e4 + 7.0, x[:, 1:]], 1)
    cure = cures("input_scale", replace(setup, data=((steep, y),)), inputs=inputs(steep, steepest=1e4))[0]
    mended = cure.apply(replace(setup, data=((steep, y),))).data[0][0]
    assert torch.allclose(mended.std(0, correction=0), torch.ones(20), atol=1e-4)
    assert torch.allclose(mended.mean(0), torch.zeros(20), atol=1e-4)


def test_standardized_targets_are_judged_in_their_own_units() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 3)
    y = x.sum(1, keepdim=True) * 20 + 500
    setup = setup_of(nn.Linear(3, 1), x, y, nn.functional.mse_loss, kind="mse")
    cure = cures("loss_at_start", setup, targets=TargetReading(kind="real", count=50))[0]
    mended = cure.apply(setup)
    assert float(mended.data[0][1].mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(mended.data[0][1].std(correction=0)) == pytest.approx(1.0, rel=1e-5)
    own = float(mended.objective(mended.model, mended.data[0]).detach())
    assert mended.loss(mended.data[0]) == pytest.approx(own * float(y.var(correction=0)), rel=1e-4)


def test_the_output_bias_is_log_odds() -> None:
    x, y = torch.randn(100, 3), torch.zeros(100, 1)
    y[:20] = 1
    setup = setup_of(nn.Linear(3, 1), x, y, nn.functional.binary_cross_entropy_with_logits, kind="bce")
    cure = cures("loss_at_start", setup, targets=TargetReading(kind="binary", count=100))[0]
    bias = cure.apply(setup).model.bias
    assert isinstance(bias, Tensor)
    assert float(bias.detach()) == pytest.approx(-1.386294, rel=1e-5)  # log(0.2 / 0.8)


class Probabilities(nn.Module):
    """Ends in a function, and not in a module."""

    def __init__(self, body: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.function = body, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_probabilities_become_logits(kind: str) -> None:
    body = mlp([20, 16, 5])
    plain = classes(body)
    wanted = plain.loss(plain.data[0])
    output = OutputReading(loss=1.6, probabilities=kind)
    module = nn.Softmax(-1) if kind == "softmax" else nn.Sigmoid()
    for model in (nn.Sequential(body, module), Probabilities(body, module.forward)):
        setup = classes(model)
        cure = cures("outputs_are_probabilities", setup, output=output)[0]
        assert setup.loss(setup.data[0]) != pytest.approx(wanted, rel=1e-2)
        assert cure.judged(setup).loss(setup.data[0]) == pytest.approx(wanted, rel=1e-4)
        own = copy.deepcopy(setup)
        assert cure.apply(own).loss(setup.data[0]) == pytest.approx(wanted, rel=1e-4)
        if isinstance(model, nn.Sequential):
            exec(cure.code, {"torch": torch, "model": model})
            assert setup.loss(setup.data[0]) == pytest.approx(wanted, rel=1e-6)


def test_an_output_that_is_bounded_loses_its_bound() -> None:
    x = torch.randn(50, 20)
    body = mlp([20, 16, 1])
    setup = setup_of(nn.Sequential(body, nn.Sigmoid()), x, x[:, :1] * 20 + 500, nn.functional.mse_loss, kind="mse")
    found = cures("output_range", setup, targets=TargetReading(kind="real", count=50))
    assert [one.name for one in found] == ["Sigmoid removed, and targets standardized", "targets standardized"]
    mended = found[0].apply(copy.deepcopy(setup))
    assert torch.equal(mended.model(x), body(x))
    assert float(mended.data[0][1].std(correction=0)) == pytest.approx(1.0, rel=1e-5)
    hidden = setup_of(body, x, x[:, :1], nn.functional.mse_loss)
    assert [one.name for one in cures("output_range", hidden, targets=TargetReading(kind="real", count=50))] == [
        "targets standardized"
    ]


def test_training_mode_with_statistics_of_the_data() -> None:
    body = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5)).eval()
    setup = classes(body)
    cure = cures("mode", setup)[0]
    mended = cure.apply(setup)
    assert all(module.training for module in mended.model.modules())
    cure.settle(mended)
    norm = mended.model.get_submodule("1")
    seen = outputs(mended, ["0"])["0"]
    assert torch.allclose(norm.running_mean, seen.mean(0), atol=1e-6)  # type: ignore[arg-type]
    assert torch.allclose(norm.running_var, seen.var(0), atol=1e-6)  # type: ignore[arg-type]
    assert norm.momentum == 0.1
    assert not cures("mode", replace(setup, model=body.train()))


def step(lr: float, **more: Any) -> StepReading:
    return StepReading(optimizer="SGD", given=True, lr=lr, **{"settings": {}, **more})


def setting(cure: Cure, setup: Setup, key: str) -> float:
    return float(cure.apply(setup).recipe.build(setup.model).param_groups[0][key])


def test_learning_rates_follow_the_readings() -> None:
    setup = classes(mlp([20, 16, 5]))
    known = step(0.1, lambda_max=400.0, lambda_threshold=20.0)
    rates = [setting(one, setup, "lr") for one in cures("learning_rate_too_high", setup, step=known)]
    assert rates == pytest.approx([0.0025, 0.01, 0.001])  # half of what is stable: 0.1 * 20 / 400 / 2
    rates = [setting(one, setup, "lr") for one in cures("learning_rate_too_high", setup, step=step(0.1))]
    assert rates == pytest.approx([0.01, 0.001, 0.0001])
    slow = step(0.1, update_ratio=1e-6)
    rates = [setting(one, setup, "lr") for one in cures("updates_too_small", setup, step=slow)]
    assert rates == pytest.approx([100.0, 1000.0, 10.0])


def test_epsilon_lies_far_below_the_gradients() -> None:
    setup = replace(classes(mlp([20, 16, 5])), recipe=recipe("adam(eps=1e-2)", 1e-3))
    known = step(1e-3, settings={"eps": 1e-2})
    for gradient, eps in ((1e-3, 1e-8), (3e-8, 3e-10)):
        found = layers(setup.model, "relu", gradient_rms=gradient)
        assert setting(cures("epsilon_floor", setup, step=known, layers=found)[0], setup, "eps") == pytest.approx(eps)


def test_tiny_targets_are_standardized_where_numbers_or_gradients_are_too_small() -> None:
    x = torch.randn(50, 20)
    setup = setup_of(mlp([20, 16, 1]), x, x[:, :1] * 1e-4, nn.functional.mse_loss, kind="mse")
    setup = replace(setup, recipe=recipe("adam(eps=1e-2)", 1e-3))
    more: dict[str, Any] = {
        "step": step(1e-3, settings={"eps": 1e-2}),
        "targets": TargetReading(kind="real", count=50, stdev=1e-4),
    }
    for cause in ("epsilon_floor", "numeric_range"):
        mended = cures(cause, setup, **more)[1].apply(copy.deepcopy(setup))
        assert float(mended.data[0][1].std(correction=0)) == pytest.approx(1.0, rel=1e-5)
        assert mended.data[0][1].dtype == (torch.float64 if cause == "numeric_range" else torch.float32)


def test_weight_decay_is_a_hundredth_of_a_step() -> None:
    setup = replace(classes(mlp([20, 16, 5])), recipe=recipe("sgd(weight_decay=0.5)", 1e-2))
    known = step(1e-2, settings={"weight_decay": 0.5}, decay_ratio=10.0)
    assert setting(cures("weight_decay", setup, step=known)[0], setup, "weight_decay") == pytest.approx(5e-4)


def test_numbers_of_a_wider_dtype() -> None:
    setup = classes(mlp([20, 16, 5]).half())
    setup = replace(setup, data=((setup.data[0][0].half(), setup.data[0][1]),))
    cure = cures("numeric_range", setup)[0]
    assert cure.judged(setup).loss(setup.data[0]) == pytest.approx(
        float(nn.functional.cross_entropy(setup.model(setup.data[0][0]).detach().float(), setup.data[0][1])), rel=1e-6
    )
    mended = cure.apply(setup)
    assert {one.dtype for one in mended.model.parameters()} == {torch.float32}
    assert mended.data[0][0].dtype == torch.float32
    assert mended.data[0][1].dtype == torch.int64


class Cut(nn.Module):
    """A first layer that gets no gradient."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last, self.how = nn.Linear(20, 16), nn.Linear(16, 5), how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                h = self.first(x)
        else:
            h = self.first(x)
        h = h.detach() if self.how == "detach" else h.data if self.how == "data" else h
        out: Tensor = self.last(torch.tensor(h.tolist()) if self.how == "numbers" else h)
        return out


@pytest.mark.parametrize("how", ["detach", "data", "no_grad"])
def test_what_is_detached_gets_a_gradient(how: str) -> None:
    torch.manual_seed(0)
    setup = classes(Cut(how))
    mended = cures("detached", setup, "first")[0].apply(setup)
    whole = copy.deepcopy(setup.model)
    whole.how = ""  # type: ignore[assignment]
    gradients = [
        torch.autograd.grad(one(model, setup.data[0]), list(model.parameters()))
        for one, model in ((mended.objective, mended.model), (setup.objective, whole))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert torch.is_grad_enabled()


def test_what_no_gradient_can_pass_is_not_tried() -> None:
    assert cures("detached", classes(Cut("numbers")), "first") == []


def test_gates_stay_open_as_long_as_sequences_are() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.LSTM(3, 200, batch_first=True), nn.Linear(200, 5)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.cell(x)[0][:, -1])
            return out

    setup = setup_of(Reader(), torch.randn(9, 50, 3), torch.arange(9) % 5, nn.functional.cross_entropy)
    cell = cures("signal_lost", setup)[1].apply(setup).model.get_submodule("cell")
    gates = cell.get_parameter("bias_ih_l0").detach().chunk(4)
    assert torch.equal(gates[0], -gates[1])
    assert 1 <= float(gates[1].exp().min()) < 3
    assert 47 < float(gates[1].exp().max()) <= 49
    assert not gates[2].any()


def test_logits_that_a_temperature_makes_large_are_divided() -> None:
    body = mlp([20, 16, 5])
    setup = classes(Probabilities(body, lambda z: z * 200))
    z = body(setup.data[0][0]).detach()
    last = LayerReading(layer="body.2", kind="Linear", parameters=1, fan_in=16, output_rms=rms(z))
    output = OutputReading(loss=9.0, spread=float(200 * z.std(1).mean()), rms=200 * rms(z))
    mended = cures("logit_scale", setup, layers=(last,), output=output)[0].apply(setup)
    wanted = nn.functional.cross_entropy(z / z.std(1).mean(), setup.data[0][1])
    assert mended.loss(setup.data[0]) == pytest.approx(float(wanted), rel=1e-5)


def test_logits_of_a_bias_are_cured_by_another_bias() -> None:
    setup = classes(mlp([20, 16, 5]))
    y = setup.data[0][1]
    last = LayerReading(layer="2", kind="Linear", parameters=1, fan_in=16, output_rms=50.0, bias_rms=50.0)
    more = {
        "targets": TargetReading(kind="classes", count=96, classes=5),
        "output": OutputReading(loss=9.0, spread=60.0),
    }
    mended = cures("logit_scale", setup, layers=(last,), **more)[0].apply(setup)
    counts = torch.bincount(y, minlength=5) + 1.0
    assert torch.allclose(mended.model.get_parameter("2.bias"), (counts / counts.sum()).log())


def test_masks_up_to_255_are_brought_to_one() -> None:
    y = torch.randint(2, (9, 1)) * 255.0
    y[0] = 255.0
    setup = setup_of(nn.Linear(3, 1), torch.randn(9, 3), y, nn.functional.binary_cross_entropy_with_logits)
    masks = TargetReading(kind="binary", count=9, low=0.0, high=255.0)
    assert torch.equal(cures("targets", setup, targets=masks)[0].apply(setup).data[0][1], (y > 0).float())
    assert cures("targets", setup, targets=replace(masks, kind="classes")) == []


def test_fresh_weights_come_with_smaller_steps_last() -> None:
    setup = classes(mlp([20, 16, 5]))
    found = cures("signal_explodes", setup, step=step(0.1))
    assert setting(found[2], setup, "lr") == pytest.approx(0.01)
    assert rms(outputs(found[2].apply(setup), ["0"])["0"]) == pytest.approx(1.0, rel=1e-4)


def test_frozen_layers_are_trained() -> None:
    setup = classes(mlp([20, 16, 5]))
    setup.model[0].requires_grad_(False)  # type: ignore[index]
    mended = cures("detached", setup, "0")[0].apply(setup)
    assert all(one.requires_grad for one in mended.model.parameters())


def test_some_causes_have_no_cure_outside_the_code() -> None:
    setup = classes(mlp([20, 16, 5]))
    assert [cures(one, setup) for one in ("targets", "loss_ignores_output", "unheard_of")] == [[], [], []]


def test_an_epoch_sees_every_sample_once() -> None:
    seen: list[Tensor] = []

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == SAMPLES:
                seen.append(x[:, 0].detach().clone())
            return super().forward(x)

    x = torch.arange(2 * SAMPLES, dtype=torch.float32)[:, None] / 100
    setup = setup_of(Watched(1, 1), x, x.clone(), nn.functional.mse_loss)
    trained(setup, [1.0], seed=0, steps=2, tell=lambda done, planned: None)
    assert len(seen) == 2
    assert torch.equal(torch.cat(seen).sort().values, x[:, 0])
