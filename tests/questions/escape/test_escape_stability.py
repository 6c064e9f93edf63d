"""Unstable learning rates are told from plateaus: ratios against LAPACK, runs of both kinds, and what is said of them."""

import json
import math
from dataclasses import replace

import escape_by_hand as by_hand
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import hessdiag
from hessdiag.nets.tasks.rosenbrock import rosenbrock
from hessdiag.problem.problem import Problem
from hessdiag.questions.escape import measure
from hessdiag.questions.escape.measure import escape
from hessdiag.questions.escape.result import Stability
from hessdiag.questions.escape.runs import stability as looking
from hessdiag.questions.escape.unstable import Unstable, shaken, unstable
from hessdiag.questions.escape.verdict import findings
from hessdiag.questions.escape.view import view
from hessdiag.report.view import Curves, Table
from tests.questions.escape.flat import deep, posed


@pytest.fixture(autouse=True)
def _unforeseen(monkeypatch):
    """Without looking at where runs start, which other tests do."""
    monkeypatch.setattr(measure, "FORESIGHT", 0.0)


class Bowl(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[0.3, -0.2]]).double())
        self.b = nn.Parameter(torch.tensor([0.1, 0.4]).double())

    @property
    def w(self):
        return torch.cat([self.a.reshape(-1), self.b])


torch.manual_seed(3)
ROOT = torch.randn(4, 4).double()
H = ROOT @ ROOT.T + torch.eye(4).double()
TOP = float(np.linalg.eigvalsh(H.numpy()).max())


def bowl():
    return Problem(Bowl(), data=[None], objective=lambda model, _: model.w @ H @ model.w / 2)


def one(problem, spec, lr, **more):
    found = escape(problem, optimizers=spec, lr=lr, seeds=1, **({"budget": 200} | more))
    return found, found.runs[0]


def digits():
    data = load_digits()
    x = torch.tensor(data.data[:300] / 16)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 10)).double()
    return Problem(model, data=[(x - x.mean(0), torch.tensor(data.target[:300]))], loss="ce")


@pytest.mark.parametrize(
    ("spec", "threshold"), [("sgd", 2.0), ("sgd(momentum=0.9)", 3.8), ("sgd(momentum=0.5, nesterov=True)", 1.5)]
)
def test_the_ratio_on_a_quadratic_is_that_of_lapack(spec, threshold):
    """The same at every look; with decay, which is a part of the curvature."""
    _, run = one(bowl(), spec, 0.7 * threshold / TOP, threshold=0.001)
    assert run.stability.threshold == pytest.approx(threshold, rel=1e-12)
    assert run.stability.ratio == pytest.approx([0.7] * len(run.stability.ratio), rel=1e-3)
    decayed = f"{spec.rstrip(')')}{', ' if '(' in spec else '('}weight_decay={TOP / 2})"
    _, run = one(bowl(), decayed, 0.4 * threshold / TOP, threshold=0.001)
    assert run.stability.ratio[-1] == pytest.approx(0.6, rel=1e-3)


def test_adams_ratio_is_in_its_metric():
    problem, seen = bowl(), []
    of_state = looking.of_state

    def spy(*args):
        seen.append(of_state(*args))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "of_state", spy)
        _, run = one(problem, "adam(eps=0.01)", 0.01, budget=30, threshold=0.001)
    assert run.stability.steps[0] == 1, "before its first step it has no metric"
    roots = [made.diagonal.rsqrt().numpy() for made in seen]
    expected = [0.01 / 38 * np.linalg.eigvalsh(root[:, None] * H.numpy() * root).max() for root in roots]
    assert run.stability.ratio == pytest.approx(expected, rel=0.03)


def test_what_it_costs_is_counted_apart():
    products = []
    matmul = looking.LocalHessian.__matmul__

    def counted(self, vectors):
        products.append(1)
        return matmul(self, vectors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking.LocalHessian, "__matmul__", counted)
        _, run = one(digits(), "sgd", 0.1, budget=600, batch_size=64)
    assert run.stability.products == len(products)
    assert len(products) <= looking.FIRST + looking.SHARE * run.spent.backprops + looking.MOST
    assert run.spent.products == 0
    assert run.spent.backprops == run.spent.steps
    assert run.stability.backprops == run.stability.steps


def test_looking_changes_nothing_of_a_run(monkeypatch):
    _, seen = one(digits(), "adam", 1e-2, budget=60, batch_size=64)
    monkeypatch.setattr(looking.StabilityLooks, "look", lambda *args, **more: None)
    _, unseen = one(digits(), "adam", 1e-2, budget=60, batch_size=64)
    assert seen.loss == unseen.loss
    assert unseen.stability is None


@pytest.mark.parametrize("factor", [1.3, 2.7, 50.0])
def test_a_diverging_run_is_named_with_its_number(factor):
    found, run = one(bowl(), "sgd", factor * 2 / TOP)
    assert run.outcome == "diverged"
    assert run.notes[0].startswith(
        f"unstable: lr x curvature is {factor:.2g} times what sgd stands (2), where it starts"
    )
    first = found.findings[0]
    assert (first.level, first.says) == ("bad", "sgd is unstable: its learning rate is too large.")
    assert "its loss grew beyond all bounds" in first.because
    most = float(first.remedy.removeprefix("a learning rate below "))
    assert 0.9 * 2 / TOP < most <= 2 / TOP
    assert not any(word in finding.says for finding in found.findings for word in ("on the plateau", "leave"))
    assert not any("diverges" in finding.says for finding in found.findings), "once is enough"
    assert view(found).headline[0] == "unstable"


def test_just_below_it_is_not():
    found, run = one(bowl(), "sgd", 0.95 * 2 / TOP, threshold=1e-6)
    assert unstable(run, found.plateaus[0]) is None
    assert not any("unstable" in text for finding in found.findings for text in (finding.says, finding.because))


def test_a_run_that_goes_up_and_down_is_no_plateau():
    """Cross-entropy grows but linearly: at a much too high learning rate its loss stays finite, and high."""
    found, run = one(digits(), "sgd", 60.0, budget=300, batch_size=300)
    assert run.outcome == "stuck"
    assert shaken(run, found.plateaus[0])
    assert "its loss goes up and down, which is no plateau" in run.notes[0]
    assert any(finding.says == "sgd is unstable: its learning rate is too large." for finding in found.findings)
    assert not any("does not" in finding.says or "stay" in finding.says for finding in found.findings)
    runs = next(block for block in view(found).extra if block.title == "Every run")
    assert runs.rows[0][runs.columns.index("outcome")] == "unstable"


@pytest.mark.parametrize(
    ("spec", "lr"), [("sgd", 0.1), ("sgd(momentum=0.9)", 0.01), ("adam(eps=1e-3)", 1e-3), ("adagrad(eps=1.0)", 1e-2)]
)
def test_a_plateau_is_never_called_unstable(spec, lr, monkeypatch):
    monkeypatch.undo()  # with a look at where it starts
    found, run = one(deep(), spec, lr)
    assert run.outcome == "stuck"
    assert run.stability.ratio, "it was looked at"
    assert unstable(run, found.plateaus[0]) is None
    assert any("does not leave the plateau" in finding.says for finding in found.findings)
    assert not any("unstable" in text for one in found.findings for text in (one.says, one.because, one.remedy))


def test_a_leap_off_a_plateau_tells_no_curvature_of_where_it_landed(monkeypatch):
    monkeypatch.undo()
    found, run = one(deep(), "sgd", 10.0)
    assert run.outcome == "diverged"
    assert "lr x curvature passed what sgd stands (2) between steps" in run.notes[0]
    assert "try a tenth of the learning rate, for curvature grows where a plateau ends" in run.notes[0]
    assert "unstable" in found.findings[0].says


def test_adams_first_steps_do_not_count():
    """It divides by gradients that it saw once, is far above its threshold, and trains."""
    found, run = one(digits(), "adam", 0.1, budget=200, batch_size=300)
    assert run.escaped
    assert max(run.stability.ratio) > 1.5
    assert not any("unstable" in finding.says for finding in found.findings)
    stuck = replace(run, outcome="stuck", escaped=False, loss=(1.0, 3.0, 1.0), at=run.at[:3])
    early = Stability(steps=(1, 3, 9, 27), backprops=(1, 3, 9, 27), ratio=(900.0, 40.0, 0.3, 0.4), loss=(1.0,) * 4)
    assert unstable(replace(stuck, stability=early), found.plateaus[0]) is None
    late = replace(early, ratio=(900.0, 0.5, 1.6, 2.2))
    assert unstable(replace(stuck, stability=late), found.plateaus[0]).ratio == 1.6


def test_optimizers_without_a_threshold_are_not_looked_at():
    for spec in ("tr-uniform", "rprop"):
        _, run = one(bowl(), spec, None, budget=20)
        assert run.stability is None
        assert not any("not measured" in note for note in run.notes)


def test_a_model_without_second_derivatives_says_so():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square().sum()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, slope):
            return 2 * slope * ctx.saved_tensors[0]

    problem = Problem(Bowl(), data=[None], objective=lambda model, _: Once.apply(model.w))
    _, run = one(problem, "sgd", 0.1, budget=20)
    assert run.escaped
    assert run.stability is None
    assert any(note.startswith("how near it is to turning unstable was not measured: ") for note in run.notes)


def test_searches_are_not_looked_at(monkeypatch):
    looked = []
    look = looking.StabilityLooks.__init__
    monkeypatch.setattr(looking.StabilityLooks, "__init__", lambda self, *a: (looked.append(1), look(self, *a))[1])
    escape(bowl(), optimizers="sgd", seeds=1, budget=50)
    assert len(looked) == 1


def test_a_race_on_scores_names_it_too():
    found = escape(posed(rosenbrock()), optimizers="sgd", lr=1.0, seeds=1)
    assert any("unstable" in finding.says for finding in found.findings) == any(
        run.stability is not None and max(run.stability.ratio) > 1.1 for run in found.runs
    )


def test_charts_and_tables_show_it():
    ratios = Stability(steps=(0, 10, 100), backprops=(0, 10, 100), ratio=(0.2, 0.5, 0.9), loss=(0.5,) * 3, products=17)
    runs = (by_hand.run("sgd", 0, 30, lr=0.1, stability=ratios), by_hand.run("tr-rmsprop", 0, 6, products=2))
    contenders = (by_hand.contender("tr-rmsprop", runs, "second"), by_hand.contender("sgd", runs, lr=0.1))
    result = by_hand.result(seeds=1, runs=runs, contenders=contenders)
    chart = next(block for block in view(result).blocks if isinstance(block, Curves))
    panel = next(panel for panel in chart.panels if panel.y_axis == "lr x curvature")
    assert (panel.levels, [curve.name for curve in panel.curves]) == ((1.0,), ["sgd"])
    assert panel.curves[0].y == (0.2, 0.5, 0.9)
    assert "above 1 steps grow" in chart.caption
    table = next(
        block for block in view(result).blocks if isinstance(block, Table) and block.title.startswith("Learning rate x")
    )
    assert table.rows == (("sgd", "0.1", "2", "0.200", "0.900", "0.900", "17"),)


def test_documents_without_it_are_read(tmp_path):
    runs = (
        by_hand.run("sgd", 0, 30, lr=0.1, stability=Stability(steps=(0,), backprops=(0,), ratio=(0.2,), loss=(1.0,))),
    )
    result = by_hand.result(seeds=1, runs=runs, contenders=(by_hand.contender("sgd", runs, lr=0.1),))
    document = json.loads(result.to_json())
    assert document["result"]["runs"][0]["stability"]["ratio"] == [0.2]
    del document["result"]["runs"][0]["stability"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    assert hessdiag.load(tmp_path / "old.json").runs[0].stability is None


def test_unstable_runs_are_counted_apart_from_those_that_stay():
    above = Stability(steps=(0, 1), backprops=(0, 1), ratio=(3.0, 9.0), loss=(0.5, 0.5))
    thrown = by_hand.run("sgd", 0, None, lr=0.1, outcome="diverged", stability=above)
    bouncing = by_hand.run("sgd", 1, None, lr=0.1, stability=above)
    bouncing = replace(bouncing, loss=tuple(0.499 * (1 + index % 2) for index in range(len(bouncing.loss))))
    stays = by_hand.run("sgd", 2, None, lr=0.1, stability=replace(above, ratio=(0.1, 0.1)))
    runs = (thrown, bouncing, stays, *(by_hand.run("adam", seed, 20, lr=1e-3) for seed in range(3)))
    contenders = (by_hand.contender("adam", runs, lr=1e-3), by_hand.contender("sgd", runs, lr=0.1))
    result = by_hand.result(runs=runs, contenders=contenders)
    said = [finding.says for finding in findings(result)]
    assert "sgd is unstable in 2 of 3 runs: its learning rate is too large." in said
    assert "sgd(lr=0.1) stays on the plateau in 1 of 3 runs." in said
    assert not any("diverges" in one for one in said)


def test_documents_may_lack_what_the_plateau_was_or_have_an_absurd_rate():
    stuck = by_hand.run("sgd")
    shaking = replace(stuck, loss=(1.0, 0.9, 1.3, *stuck.loss[3:]))
    for lacking in ({"reference": None}, {"floor": None}):
        assert shaken(shaking, by_hand.plateau(**lacking))
    for rate in (0.0, -1.0, math.inf, math.nan):
        assert Unstable(3, 2.0, None, 2.0, rate, "sgd").instead(None) == "a tenth of the learning rate"
