"""A cure is tried on copies: what trains afterwards and did not before, and what is never claimed."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hessdiag.optimizers.recipe import recipe
from hessdiag.problem.batches.batch import hash_tensors
from hessdiag.problem.problem import Problem
from hessdiag.questions.check import training, trial
from hessdiag.questions.check.comparison import Outcome, compared
from hessdiag.questions.check.cures.cure import Cure
from hessdiag.questions.check.readings import InputReading, LayerReading, OutputReading, StepReading, TargetReading
from hessdiag.questions.check.result import Cause, Check, Trial, TrialRun
from hessdiag.questions.common.runs.progress import silent

CLASSES = 6


def data(n: int = 128, scale: float = 1.0, shift: float = 0.0) -> list[tuple[Tensor, Tensor]]:
    """Clusters around random centres, of which a network learns most in a few hundred steps."""
    source = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, 24, generator=source)
    y = torch.randint(CLASSES, (n,), generator=source)
    x = 0.5 * centres[y] + 0.5 * torch.randn(n, 24, generator=source)
    return [(x * scale + shift, y)]


def mlp(depth: int, kind: type[nn.Module] = nn.ReLU, width: int = 32) -> nn.Sequential:
    torch.manual_seed(1)
    widths = [24, *[width] * (depth - 1), CLASSES]
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), kind()]
    return nn.Sequential(*parts[:-1])


def cause(name: str, layer: str | None = None) -> Cause:
    return Cause(id=name, layer=layer, value=1.0, threshold=0.5, quantity="", confidence=0.9, says="", remedy="")


def tried(
    model: nn.Module, batches: Any, name: str, layer: str | None = None, spec: str = "sgd", lr: float = 0.1, **more: Any
) -> Trial | None:
    linear = [path for path, one in model.named_modules() if isinstance(one, nn.Linear)]
    act = "sigmoid" if any(isinstance(one, nn.Sigmoid) for one in model.modules()) else "relu"
    layers = tuple(
        LayerReading(
            layer=path,
            kind="Linear",
            parameters=1,
            fan_in=32,
            activation=act if path != linear[-1] else None,
            dead_fraction=float(path == layer),
            identical_fraction=0.9,
            gradient_rms=1e-4,
        )
        for path in linear
    )
    x = batches[0][0]
    found = Check(
        causes=(cause(name, layer),),
        layers=layers,
        inputs=(InputReading(name="0", kind="real", entries=24, mean=float(x.mean()), stdev=float(x.std())),),
        targets=TargetReading(kind="classes", count=len(x), classes=CLASSES),
        output=OutputReading(loss=2.0, chance=math.log(CLASSES), spread=1.0, **more.pop("output", {})),
        step=StepReading(optimizer="", given=True, lr=lr, settings={"eps": 1e-2}, **more),
    )
    problem = Problem(model, data=batches, loss="ce")
    return trial.tried(found, problem, recipe(spec, lr), seed=0, progress=silent)


def broken(name: str) -> tuple[nn.Sequential, Any, dict[str, Any]]:
    """Networks with one defect each."""
    model, batches = mlp(4), data()
    how: dict[str, Any] = {}
    with torch.no_grad():
        if name == "dead_units":
            nn.init.constant_(model[2].bias, -9.0)  # type: ignore[arg-type]
            how = {"layer": "2"}
        elif name == "weight_scale":
            model[2].weight.mul_(1000)  # type: ignore[operator]
            how = {"layer": "2"}
        elif name == "identical_units":
            for parameter in model.parameters():
                nn.init.constant_(parameter, 0.05)
        elif name == "input_scale":
            batches = data(scale=200, shift=90)
        elif name == "signal_lost":
            model, how = mlp(24), {"spec": "adam", "lr": 1e-3}
        elif name == "gradient_vanishes":
            model = mlp(10, nn.Sigmoid)
        elif name == "epsilon_floor":
            for parameter in model.parameters():
                parameter.mul_(0.3)
            how = {"spec": "adam(eps=1e-2)", "lr": 1e-3}
        elif name == "mode":
            parts: list[nn.Module] = []
            for index in range(8):
                parts += [nn.Linear(32 if index else 24, 32), nn.BatchNorm1d(32), nn.ReLU()]
            model = nn.Sequential(*parts, nn.Linear(32, CLASSES)).eval()
        elif name == "learning_rate_too_high":
            how = {"lr": 50.0}
        elif name == "updates_too_small":
            how = {"lr": 1e-6, "update_ratio": 1e-8}
    return model, batches, how


@pytest.mark.parametrize(
    "name",
    [
        "dead_units",
        "weight_scale",
        "identical_units",
        "input_scale",
        "signal_lost",
        "gradient_vanishes",
        "epsilon_floor",
        "mode",
        "learning_rate_too_high",
        "updates_too_small",
    ],
)
def test_it_trains_with_the_cure_and_not_before(name: str) -> None:
    model, batches, how = broken(name)
    before = hash_tensors(iter(model.state_dict().values()))
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    found = tried(model, batches, name, **how)
    assert found is not None
    assert found.helped, found.because
    assert found.cause == name
    assert found.after.accuracy is not None
    assert found.before.accuracy is not None
    assert found.after.accuracy > 0.9
    assert found.before.accuracy < 0.75
    assert len(found.after.losses) == training.SHOWN
    assert hash_tensors(iter(model.state_dict().values())) == before
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mended_weights_are_those_before_training() -> None:
    model, batches, how = broken("dead_units")
    found = tried(model, batches, "dead_units", **how)
    assert found is not None
    assert found.mended is not None
    wanted = {
        name: torch.zeros_like(value) if name == "2.bias" else value for name, value in model.state_dict().items()
    }
    assert all(torch.equal(found.mended[name], value) for name, value in wanted.items())
    model, batches, how = broken("input_scale")
    found = tried(model, batches, "input_scale", **how)
    assert found is not None
    assert found.mended is None


def test_removing_a_softmax_is_judged_by_one_loss() -> None:
    model, batches, _ = broken("healthy")
    found = tried(
        nn.Sequential(model, nn.Softmax(-1)),
        batches,
        "outputs_are_probabilities",
        lr=0.05,
        output={"probabilities": "softmax"},
    )
    assert found is not None
    assert found.helped, found.because
    first = [run.losses[0] for run in (found.before, found.after)]
    assert first[0] == pytest.approx(first[1], rel=1e-5)  # the same network, by the same loss


def test_a_cure_that_does_nothing_did_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Cure("nothing", "Does nothing.", "pass", lambda setup: setup)
    monkeypatch.setattr(trial, "cures_of", lambda found, cause, setup: [nothing])
    model, batches, how = broken("dead_units")
    found = tried(model, batches, "dead_units", **how)
    assert found is not None
    assert not found.helped
    assert found.because.startswith("Neither trains: after 300 steps")
    assert found.before == found.after
    model, batches, how = broken("healthy")
    found = tried(model, batches, "dead_units", **how)
    assert found is not None
    assert not found.helped
    assert found.because.startswith("Both train: ")


def test_the_second_cure_is_tried_where_the_first_does_not_help() -> None:
    model, batches, _ = broken("healthy")
    with torch.no_grad():  # weights below zero of what is never negative: no bias revives that
        nn.init.constant_(model[2].weight, -0.2)  # type: ignore[arg-type]
        nn.init.constant_(model[2].bias, -9.0)  # type: ignore[arg-type]
    found = tried(model, batches, "dead_units", layer="2")
    assert found is not None
    assert found.helped
    assert found.cure == "fresh weights of layer 2"


def test_a_cause_without_a_cure_is_not_tried() -> None:
    model, batches, _ = broken("healthy")
    assert tried(model, batches, "targets") is None


def test_time_limits_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    model, batches, how = broken("dead_units")
    found = tried(model, batches, "dead_units", **how)
    assert found is not None
    assert found.steps == training.FEWEST
    assert len(found.before.losses) == len(found.after.losses) == training.FEWEST + 1


def test_an_interrupt_passes() -> None:
    model, batches, _ = broken("healthy")
    found = Check(causes=(cause("signal_lost"),))

    def interrupt(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trial.tried(found, Problem(model, data=batches, loss="ce"), recipe("sgd", 0.1), seed=0, progress=interrupt)


def outcome(final: float, start: float = 2.5) -> Outcome:
    return Outcome(TrialRun(losses=(start, final), final=final), start)


def test_what_counts_as_help() -> None:
    assert compared(outcome(2.3), outcome(0.5), 2.3, 9)[0]
    assert not compared(outcome(2.3), outcome(2.2), 2.3, 9)[0]  # not clearly below chance
    assert compared(outcome(2.3), outcome(2.06), 2.3, 9)[0]
    assert not compared(outcome(0.25), outcome(0.05), 2.3, 9)[0]  # 0.2 is less than a tenth of chance
    assert compared(outcome(0.30), outcome(0.05), 2.3, 9)[0]
    assert compared(outcome(math.nan), outcome(0.5), 2.3, 9)[0]
    assert not compared(outcome(2.3), outcome(math.nan), 2.3, 9)[0]
    sharp = replace(outcome(2.2), run=TrialRun(losses=(), final=2.2, accuracy=0.5))
    assert compared(replace(outcome(2.3), run=TrialRun(losses=(), final=2.3, accuracy=0.29)), sharp, 2.3, 9)[0]
    assert not compared(replace(outcome(2.3), run=TrialRun(losses=(), final=2.3, accuracy=0.31)), sharp, 2.3, 9)[0]
    assert compared(outcome(2.0), outcome(1.5), None, 9)[0]  # by a fifth of the other's
    assert not compared(outcome(2.0), outcome(1.7), None, 9)[0]


def test_the_sentence_has_both_numbers() -> None:
    before = replace(outcome(2.3), run=TrialRun(losses=(), final=2.3, accuracy=0.1))
    assert compared(before, outcome(0.5), 2.3, 9)[1] == (
        "After 9 steps the loss is 0.500 with the cure, 2.30 and the accuracy 10 % without (chance: 2.30)."
    )
    assert compared(before, outcome(math.nan), 2.3, 9)[1].startswith("Training with the cure diverges: after 9 steps")


class WithLoss(nn.Module):
    """Computes its own loss of a mapping, as those of Hugging Face do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(4)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.body(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits} if labels is not None else logits


def test_a_model_that_computes_its_loss_is_mended_too() -> None:
    [(x, y)] = data(scale=200, shift=90)
    problem = Problem(WithLoss(), data=[{"x": x, "labels": y}], loss="output")
    found = Check(
        causes=(cause("input_scale", "body.0"),),
        inputs=(InputReading(name="x", kind="real", entries=24, mean=90.0, stdev=200.0, taken_by="body.0"),),
    )
    result = trial.tried(found, problem, recipe("sgd", 0.1), seed=0, progress=silent)
    assert result is not None
    assert result.helped, result.because
    assert result.code.startswith("x = (x - ")
    assert result.after.accuracy is not None
    assert result.after.accuracy > 0.9


def test_a_model_that_keeps_what_it_computed_is_tried() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(3)
            self.kept: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.body(x)
            return self.kept

    model, batches = Keeps(), data(scale=200.0)
    model(batches[0][0])  # torch does not copy what has a graph
    found = tried(model, batches, "input_scale")
    assert found is not None
    assert found.helped, found.because
