"""`--batch-size` cuts where the parts make the whole, along the dimension of samples, and says why where it cannot."""

import json

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from hessdiag.cli import main
from hessdiag.curvature.dense import hessian
from hessdiag.errors import LoadError
from hessdiag.problem.load import ProblemRequest, load_problem
from hessdiag.problem.loading.cutting import Cut, proven
from hessdiag.problem.problem import Problem
from tests.problem.losses.test_averages import D, Graph, Keyed, LastStep, Packed, Pooled, _normal


class EveryStep(nn.Module):
    """Time first in inputs, outputs and targets."""

    def __init__(self):
        super().__init__()
        self.r, self.o = nn.RNN(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.o(self.r(x)[0])


def _plain():
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)), (_normal(7, 2), torch.randint(3, (7,))), "ce"


def _ignored():
    y = torch.randint(3, (7, 4))
    y[:3] = -100
    return nn.Sequential(nn.Linear(2, 3)), (_normal(7, 4, 2), y), "ce"


def _mapping():
    batch = {"mask": _normal(1, 2), "x": _normal(5, 2), "labels": torch.randint(3, (5,))}
    return Keyed(), batch, "ce"


def _images():
    return Pooled(), ([_normal(3, n, n + 1) for n in (2, 4, 3, 5, 3)], torch.randint(2, (5,))), "ce"


def _packed():
    return (
        Packed(),
        (pack_sequence([_normal(n, 2) for n in (2, 4, 1, 3, 3)], enforce_sorted=False), _normal(5, 1)),
        "mse",
    )


SEPARABLE = {
    "plain": (_plain, Cut(0, 0), [2, 2, 2, 1]),
    "ignored": (_ignored, Cut(0, 0), [2, 2, 2, 1]),
    "mapping": (_mapping, Cut(0, 0), [2, 2, 1]),
    "images": (_images, Cut(0, 0), [2, 2, 1]),
    "packed": (_packed, Cut(0, 0), [2, 2, 1]),
    "time first": (lambda: (LastStep(), (_normal(4, 5, 2), _normal(5, 2)), "mse"), Cut(0, 0), [2, 2, 1]),
    "as many steps as samples": (lambda: (LastStep(), (_normal(5, 5, 2), _normal(5, 2)), "mse"), Cut(0, 1), [2, 2, 1]),
    "time first in targets": (lambda: (EveryStep(), (_normal(6, 3, 2), _normal(6, 3, 2)), "mse"), Cut(1, 1), [2, 1]),
}


@pytest.mark.parametrize("case", SEPARABLE)
def test_parts_make_the_whole(case):
    torch.manual_seed(0)
    build, expected, lengths = SEPARABLE[case]
    model, batch, loss = build()
    problem = Problem(model.double(), data=[batch], loss=loss)
    cut = proven(problem, 2)
    assert cut == expected
    parts = list(cut.parts(batch, 2))
    assert [cut.length(part) for part in parts] == lengths
    kept = Problem(problem.model, data=parts, loss=loss)
    H = hessian(problem)
    assert (hessian(kept) - H).abs().max() <= 1e-10 * H.abs().max()


def _contrast(output, target):
    return F.cross_entropy(output @ output.T / 0.5, torch.arange(len(output)))


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 3)

    def forward(self, x):
        y = self.a(x)
        return y - y.mean(0)


class Secret(nn.Module):
    """Samples see each other in the gradient alone."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 3)

    def forward(self, x):
        y = self.a(x)
        return y + y.mean(0) - y.mean(0).detach()


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 3)

    def forward(self, x):
        return self.a(x) + torch.randn(len(x), 3, dtype=x.dtype)


def _mlp(*inner):
    return nn.Sequential(nn.Linear(2, 3), *inner, nn.Linear(3, 3))


def _labels(n=6):
    return torch.randint(3, (n,))


def _penalized(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum") + model[0].weight.square().sum()


REFUSED = {
    "batch statistics": (lambda: (_mlp(nn.BatchNorm1d(3)), (_normal(6, 2), _labels()), {"loss": "ce", "train_mode": True}), "1 normalizes by the statistics of the batch"),
    "statistics not kept": (lambda: (_mlp(nn.BatchNorm1d(3, track_running_stats=False)), (_normal(6, 2), _labels()), {"loss": "ce"}), "1 normalizes by the statistics"),
    "dropout": (lambda: (_mlp(nn.Dropout(0.5)), (_normal(6, 2), _labels()), {"loss": "ce", "train_mode": True}), "another mask for every part"),
    "graph": (lambda: (Graph(3), ((torch.randint(6, (2, 9)), _normal(6, 2)), _labels()), {"loss": "ce"}), r"shape \(2, 9\) does not run over samples, as edges"),
    "in-batch negatives": (lambda: (_mlp(), (_normal(6, 2), _labels()), {"loss": _contrast}), "_contrast is no mean over samples"),
    "samples that see each other": (lambda: (Centred(), (_normal(6, 2), _labels()), {"loss": "ce"}), "the model mixes samples"),
    "gradients that see each other": (lambda: (Secret(), (_normal(6, 2), _labels()), {"loss": "ce"}), "the value comes apart, but its gradient does not"),
    "random": (lambda: (Noisy(), (_normal(6, 2), _labels()), {"loss": "ce"}), "the forward pass is random"),
    "an objective": (lambda: (_mlp(), (_normal(6, 2), _labels()), {"objective": _penalized}), "the objective is no mean"),
    "unknown function with ignored targets": (lambda: (_mlp(), (_normal(6, 2), torch.tensor([0, 1, 2, -100, -100, 1])), {"loss": lambda z, y: F.cross_entropy(z, y)}), "no mean over samples"),
    "one scalar": (lambda: (_mlp(), torch.tensor(1.0, dtype=D), {"objective": lambda m, b: m(b.expand(1, 2)).sum()}), "no dimension"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_come_apart_is_refused_with_the_reason(case):
    torch.manual_seed(0)
    build, reason = REFUSED[case]
    model, batch, options = build()
    with pytest.raises(LoadError, match=reason) as error:
        proven(Problem(model.double(), data=[batch], **options), 4)
    assert "\n" not in error.value.what


def test_large_batches_are_proven_on_two_parts(monkeypatch):
    """A coupling beyond these is not seen; the whole is never evaluated."""
    monkeypatch.setattr("hessdiag.problem.loading.cutting.WHOLE_NUMBERS", 10)
    torch.manual_seed(0)
    largest = []

    class Watched(nn.Linear):
        def forward(self, x):
            largest.append(len(x))
            return super().forward(x)

    x, y = _normal(50, 2), torch.randint(3, (50,))
    assert proven(Problem(Watched(2, 3).double(), data=[(x, y)], loss="ce"), 4) == Cut(0, 0)
    assert max(largest) == 8


SCRIPT = """
import torch
from torch import nn
from tests.problem.losses.test_averages import Graph, LastStep, _normal

def recurrent():
    torch.manual_seed(0)
    return LastStep().double(), [(_normal(9, 2, 2), _normal(2, 2)), (_normal(3, 6, 2), _normal(6, 2))], "mse"

def graph():
    torch.manual_seed(0)
    return Graph(2).double(), ((torch.randint(8, (2, 9)), _normal(8, 2)), torch.randint(2, (8,))), "ce"

def normalized():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    return model.double(), (_normal(8, 2), torch.randint(2, (8,))), "ce"

def misfit():
    return nn.Linear(3, 2).double(), (_normal(8, 2), torch.randint(2, (8,))), "ce"
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    return f"{tmp_path / 'train.py'}:"


def test_time_major_batches_are_cut_along_their_samples(script):
    whole = load_problem(ProblemRequest(f"{script}recurrent()", device="cpu"))
    parts = load_problem(ProblemRequest(f"{script}recurrent()", device="cpu", batch_size=4))
    assert [tuple(x.shape) for x, _ in parts.data] == [(9, 2, 2), (3, 4, 2), (3, 2, 2)]
    assert parts.batch_weights == (0.25, 0.5, 0.25)
    H = hessian(whole)
    assert (hessian(parts) - H).abs().max() <= 1e-10 * H.abs().max()


def test_a_refusal_ends_with_three_and_one_reason(script, capfd):
    assert main.run(["diag-share", f"{script}graph()", "--batch-size", "3", "--no-progress"]) == 3
    said = capfd.readouterr().err
    assert "--batch-size 3 would change what is measured" in said
    assert "(2, 9)" in said
    assert (
        main.run(["diag-share", f"{script}graph()", "--batch-size", "8", "--no-progress", "--json"]) == 0
    )  # all of it
    assert json.loads(capfd.readouterr().out)["problem"]["samples"] == 8
    assert main.run(["diag-share", f"{script}normalized()", "--batch-size", "3", "--train-mode", "--no-progress"]) == 3
    assert "1 normalizes by the statistics of the batch" in capfd.readouterr().err
    assert main.run(["diag-share", f"{script}normalized()", "--batch-size", "3", "--no-progress"]) == 0


def test_a_batch_that_does_not_fit_is_told_from_one_that_cannot_be_cut(script):
    with pytest.raises(LoadError, match="the model does not take this batch"):
        load_problem(ProblemRequest(f"{script}misfit()", device="cpu", batch_size=3))


def test_fewer_samples_may_be_taken_where_a_batch_cannot_be_cut(script):
    """`vanishing --batch`: a smaller batch, not parts of one."""
    request = ProblemRequest(f"{script}normalized()", device="cpu", samples=3, train_mode=True)
    assert [len(x) for x, _ in load_problem(request).data] == [3]
