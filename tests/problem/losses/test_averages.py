"""Averages over batches against the objective of the whole data set, written by hand for every layout of it."""

import functools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from hessdiag.curvature.dense import hessian
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.errors import LoadError
from hessdiag.problem.batches.batch import samples
from hessdiag.problem.describe import describe
from hessdiag.problem.losses.averages import of_labels
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.described import described
from hessdiag.questions.common.view import subject
from hessdiag.questions.diag_share.baselines import baselines
from hessdiag.questions.forward.model import forward_model

D = torch.float64
WEIGHT = torch.tensor([0.5, 2.0, 3.0], dtype=D)


def _normal(*shape):
    return torch.randn(*shape, dtype=D)


def _second_derivatives(value, model):
    """Row by row, twice backwards: nothing is batched, and nothing is weighted."""
    parameters = list(model.parameters())
    slope = torch.cat([part.reshape(-1) for part in torch.autograd.grad(value, parameters, create_graph=True)])
    rows = [torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True) for entry in slope]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def _tokens():
    """Logits (batch, time, classes), sequences of two lengths, padding ignored: a mean over tokens that count."""
    model = nn.Sequential(nn.Embedding(5, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    data = [
        (torch.randint(5, (2, 7)), torch.randint(4, (2, 7))),
        (torch.randint(5, (5, 3)), torch.randint(4, (5, 3))),
    ]
    data[1][1][2:] = -100

    def whole():
        rows = torch.cat([model(x).reshape(-1, 4) for x, _ in data])
        y = torch.cat([y.reshape(-1) for _, y in data])
        return F.cross_entropy(rows[y >= 0], y[y >= 0])

    return model, data, "ce", whole, [14 / 20, 6 / 20]


def _pixels():
    """Classes second, images of two sizes, some pixels ignored; torch's function itself."""
    model = nn.Conv2d(1, 3, 2, padding=1).double()
    data = [(_normal(2, 1, 3, 3), torch.randint(3, (2, 4, 4))), (_normal(1, 1, 5, 4), torch.randint(3, (1, 6, 5)))]
    data[0][1][:, 1:] = -100

    def whole():
        z = torch.cat([model(x).movedim(1, -1).reshape(-1, 3) for x, _ in data])
        y = torch.cat([y.reshape(-1) for _, y in data])
        return -z.log_softmax(-1)[y >= 0, y[y >= 0]].mean()

    return model, data, F.cross_entropy, whole, [8 / 38, 30 / 38]


def _class_weights():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    data = [(_normal(3, 3), torch.tensor([0, 0, 1])), (_normal(4, 3), torch.tensor([2, 1, 0, 0]))]
    loss = functools.partial(F.cross_entropy, weight=WEIGHT, ignore_index=1)

    def whole():
        z = torch.cat([model(x) for x, _ in data]).log_softmax(-1)
        y = torch.cat([y for _, y in data])
        kept = y != 1
        each = -z[range(7), y] * WEIGHT[y]
        return each[kept].sum() / WEIGHT[y][kept].sum()

    return model, data, loss, whole, [1 / 5, 4 / 5]


def _smoothed():
    """Class weights with label smoothing: one call on all of them, which torch divides by the sum of class weights."""
    model, data, _, _, _ = _class_weights()
    loss = nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.2, ignore_index=2)
    return (
        model,
        data,
        loss,
        lambda: loss(torch.cat([model(x) for x, _ in data]), torch.cat([y for _, y in data])),
        [3 / 6, 3 / 6],
    )


def _probabilities():
    """Soft targets (N, classes, positions): torch divides by N x positions, whatever their weights."""
    model = nn.Conv1d(2, 3, 1).double()
    data = [(_normal(2, 2, 5), _normal(2, 3, 5).softmax(1)), (_normal(4, 2, 2), _normal(4, 3, 2).softmax(1))]
    loss = nn.CrossEntropyLoss(WEIGHT)

    def whole():
        parts = [(-model(x).log_softmax(1) * y * WEIGHT[:, None]).sum() for x, y in data]
        return sum(parts) / 18

    return model, data, loss, whole, [10 / 18, 8 / 18]


def _nll():
    model = nn.Sequential(nn.Linear(3, 3), nn.LogSoftmax(-1)).double()
    data = [(_normal(3, 3), torch.tensor([0, -100, 1])), (_normal(2, 3), torch.tensor([2, 1]))]

    def whole():
        z, y = torch.cat([model(x) for x, _ in data]), torch.cat([y for _, y in data])
        return -z[y >= 0, y[y >= 0]].mean()

    return model, data, F.nll_loss, whole, [1 / 2, 1 / 2]


class LastStep(nn.Module):
    """torch's default recurrent layout: (time, batch, features)."""

    def __init__(self):
        super().__init__()
        self.r, self.o = nn.RNN(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.o(self.r(x)[0][-1])


def _time_major():
    model = LastStep().double()
    data = [(_normal(7, 2, 2), _normal(2, 2)), (_normal(3, 5, 2), _normal(5, 2))]

    def whole():
        errors = torch.cat([model(x) - y for x, y in data])
        assert errors.shape == (7, 2)
        return errors.square().mean()

    return model, data, "mse", whole, [2 / 7, 5 / 7]


def _broadcast():
    """One target for all steps of a sequence, broadcast by torch: a mean over elements of the output."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    data = [(_normal(2, 6, 2), _normal(2, 1, 2)), (_normal(4, 1, 2), _normal(4, 1, 2))]

    def whole():
        errors = torch.cat([(model(x) - y).reshape(-1) for x, y in data])
        return F.huber_loss(errors, torch.zeros_like(errors), delta=0.7)

    return model, data, nn.HuberLoss(delta=0.7), whole, [24 / 32, 8 / 32]


class Graph(nn.Module):
    """Edges (2, E) come first, nodes second."""

    def __init__(self, outputs):
        super().__init__()
        self.a, self.b = nn.Linear(2, 3), nn.Linear(3, outputs)

    def forward(self, edges, x):
        h = torch.tanh(self.a(x))
        return self.b(h.index_add(0, edges[1], h[edges[0]]))


def _graphs():
    model = Graph(1).double()
    data = [
        ((torch.randint(n, (2, edges)), _normal(n, 2)), torch.randint(2, (n, 1)).to(D)) for n, edges in ((4, 9), (9, 5))
    ]

    def whole():
        z = torch.cat([model(*x) for x, _ in data])
        return -F.logsigmoid(z * (2 * torch.cat([y for _, y in data]) - 1)).mean()

    return model, data, nn.BCEWithLogitsLoss(), whole, [4 / 13, 9 / 13]


class Pooled(nn.Module):
    """Images of different sizes, one argument each."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 2, 2)

    def forward(self, *images):
        return torch.stack([torch.tanh(self.c(image[None])).mean((0, 2, 3)) for image in images])


class Listed(Pooled):
    """The same, of a list as its one argument."""

    def forward(self, images):
        return super().forward(*images)


def _image_lists(as_one):
    model = (Listed if as_one else Pooled)().double()
    sizes = [(4, 5), (3, 3)], [(2, 4), (5, 5), (3, 4), (4, 4)]
    data = [([_normal(3, *size) for size in some], torch.randint(2, (len(some),))) for some in sizes]

    def whole():
        return F.cross_entropy(torch.cat([Pooled.forward(model, *x) for x, _ in data]), torch.cat([y for _, y in data]))

    return model, data, nn.CrossEntropyLoss(), whole, [2 / 6, 4 / 6]


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.r, self.o = nn.GRU(2, 2), nn.Linear(2, 1)

    def forward(self, sequences):
        return self.o(self.r(sequences)[1][-1])


def _packed():
    model = Packed().double()
    lengths = [(4, 2), (1, 3, 5)]
    rows = [[_normal(length, 2) for length in some] for some in lengths]
    data = [(pack_sequence(some, enforce_sorted=False), _normal(len(some), 1)) for some in rows]

    def whole():
        z = torch.cat([model.o(model.r(row)[1][-1])[None] for some in rows for row in some])
        return (z - torch.cat([y for _, y in data])).abs().add(1).log().mean()

    def loss(output, target):
        return (output - target).abs().add(1).log().mean()

    return model, data, loss, whole, [2 / 5, 3 / 5]


class Keyed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 3)

    def forward(self, mask, x):
        return self.a(x * mask)


def _mappings():
    """A mask that all samples share comes first."""
    model = Keyed().double()
    data = [{"mask": _normal(1, 2), "x": _normal(n, 2), "labels": torch.randint(3, (n,))} for n in (3, 1)]

    def whole():
        z = torch.cat([model(batch["mask"], batch["x"]) for batch in data])
        return F.cross_entropy(z, torch.cat([batch["labels"] for batch in data]))

    return model, data, "ce", whole, [3 / 4, 1 / 4]


class Language(nn.Module):
    """A model with a loss of its own, of the next token or of the same."""

    def __init__(self, shift):
        super().__init__()
        self.e, self.o, self.shift = nn.Embedding(5, 3), nn.Linear(3, 5), shift

    def forward(self, input_ids, labels):
        z = self.o(torch.tanh(self.e(input_ids)))
        kept, y = (z[:, :-1], labels[:, 1:]) if self.shift else (z, labels)
        return SimpleNamespace(loss=F.cross_entropy(kept.reshape(-1, 5), y.reshape(-1)), logits=z)


def _language(shift):
    model = Language(shift).double()
    data = [{"input_ids": torch.randint(5, shape), "labels": torch.randint(5, shape)} for shape in ((3, 2), (1, 8))]
    data[1]["labels"][0, 5:] = -100

    def whole():
        parts = [(model.o(torch.tanh(model.e(b["input_ids"]))), b["labels"]) for b in data]
        if shift:
            parts = [(z[:, :-1], y[:, 1:]) for z, y in parts]
        z, y = (torch.cat([part[i].flatten(0, 1) for part in parts]) for i in (0, 1))
        return F.cross_entropy(z[y >= 0], y[y >= 0])

    return model, data, "output", whole, [3 / 7, 4 / 7] if shift else [6 / 11, 5 / 11]


CASES = {
    "tokens": _tokens,
    "pixels": _pixels,
    "class weights": _class_weights,
    "label smoothing": _smoothed,
    "probabilities": _probabilities,
    "log-probabilities": _nll,
    "time-major": _time_major,
    "broadcast targets": _broadcast,
    "graphs": _graphs,
    "lists of images": functools.partial(_image_lists, False),
    "lists of images for one argument": functools.partial(_image_lists, True),
    "packed sequences": _packed,
    "mappings": _mappings,
    "next tokens": functools.partial(_language, True),
    "same tokens": functools.partial(_language, False),
}


@pytest.mark.parametrize("case", CASES)
def test_batches_are_averaged_as_the_whole_data_set_would_be(case):
    torch.manual_seed(0)
    model, data, loss, whole, weights = CASES[case]()
    problem = Problem(model, data=data, loss=loss)
    assert problem.batch_weights == pytest.approx(weights, rel=1e-12)
    expected = _second_derivatives(whole(), model)
    assert (hessian(problem) - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_gauss_newton_matrices_are_averaged_alike(loss):
    """Of a linear model, G is the Hessian of the whole data set."""
    torch.manual_seed(0)
    model = nn.Linear(2, 3).double()
    data = [(_normal(2, 4, 2), torch.randint(3, (2, 4))), (_normal(5, 1, 2), torch.randint(3, (5, 1)))]
    data[0][1][0] = -100
    if loss == "mse":
        data = [(x, _normal(*x.shape[:2], 3)) for x, _ in data]
    z = torch.cat([model(x).flatten(0, 1) for x, _ in data])
    y = torch.cat([y.flatten(0, 1) for _, y in data])
    value = F.cross_entropy(z[y >= 0], y[y >= 0]) if loss == "ce" else F.mse_loss(z, y)
    expected = _second_derivatives(value, model)
    found = GaussNewtonOperator(Problem(model, data=data, loss=loss)) @ torch.eye(9, dtype=D)
    assert (found - expected).abs().max() <= 1e-12


@pytest.mark.parametrize(("reduction", "weights"), [("batchmean", [2 / 7, 5 / 7]), ("mean", [12 / 22, 10 / 22])])
def test_divergences_are_means_of_samples_or_of_elements(reduction, weights):
    data = [(_normal(2, 3), _normal(2, 6).softmax(1)), (_normal(5, 3), _normal(5, 2).softmax(1))]
    objective = functools.partial(F.kl_div, reduction=reduction)
    problem = Problem(nn.Linear(3, 2).double(), data=[(x, y) for x, y in data], loss=objective)
    vars(problem)["output"] = lambda batch: batch[1]  # outputs of the targets' shapes
    assert problem.batch_weights == pytest.approx(weights)


def test_labels_are_targets_wherever_they_stand():
    torch.manual_seed(0)
    model, data, loss, _, _ = _language(True)
    problem = Problem(model, data=data, loss=loss)
    assert (problem.averaged.count, problem.n_targets) == (7, 14)


def test_sums_are_added():
    torch.manual_seed(0)
    model = LastStep().double()
    data = [(_normal(7, 2, 2), _normal(2, 2)), (_normal(3, 5, 2), _normal(5, 2))]
    problem = Problem(model, data=data, loss=functools.partial(F.mse_loss, reduction="sum"))
    expected = _second_derivatives(sum((model(x) - y).square().sum() for x, y in data), model)
    assert (hessian(problem) - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_a_batch_in_which_nothing_counts_is_left_out():
    torch.manual_seed(0)
    model = nn.Linear(2, 3).double()
    x, y = _normal(4, 2), torch.tensor([0, 2, 1, 1])
    nothing = (_normal(3, 2), torch.full((3,), -100))
    problem = Problem(model, data=[nothing, (x, y)], loss="ce")
    expected = _second_derivatives(F.cross_entropy(model(x), y), model)
    assert (hessian(problem) - expected).abs().max() <= 1e-12
    assert "1 of 2 batches are left out" in problem.notes[0]
    with pytest.raises(LoadError, match="every target is ignored"):
        _ = Problem(model, data=[nothing, nothing], loss="ce").batch_weights


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        (((torch.zeros(2, 9), torch.zeros(5, 3)), torch.zeros(5)), 5),  # edges, nodes
        ((torch.zeros(9, 2, 3), torch.zeros(2, 1)), 2),  # time first
        ({"edge_index": torch.zeros(2, 9), "x": torch.zeros(5, 3), "pos": torch.zeros(5, 2)}, 5),
        ((torch.zeros(6, 3), torch.zeros(6, 3), torch.zeros(6)), 6),  # three of a kind, for an objective
        ([torch.zeros(3, 4, 5), torch.zeros(3, 6, 6), torch.zeros(3, 2, 2)], 3),  # images of three sizes
        (([torch.zeros(3, 4, 5), torch.zeros(3, 6, 6)], [{"boxes": torch.zeros(7, 4)}, {"boxes": torch.zeros(1, 4)}]), 2),
        (pack_sequence([torch.zeros(4, 2), torch.zeros(2, 2), torch.zeros(1, 2)]), 3),
        ((torch.zeros(4, 3), torch.tensor(0.5)), 4),  # a scalar for a target
        (None, 1),
    ],
)  # fmt: skip
def test_samples(batch, count):
    assert samples(batch) == count


def test_packed_sequences_stay_packed():
    rows = [torch.randn(3, 2), torch.randn(1, 2)]
    packed = pack_sequence(rows, enforce_sorted=False)
    problem = Problem(Packed(), data=[(packed, torch.zeros(2, 1))], loss="mse")
    assert describe(problem)["samples"] == 2
    assert describe(problem)["input_shape"] == [2]
    measured = forward_model(problem, seeds=2, init="he_normal")  # which calls the model in its own way
    assert [layer.name for layer in measured.inits[0].layers] == ["o"]
    padded, lengths = pad_packed_sequence(problem.data[0][0], batch_first=True)
    assert lengths.tolist() == [3, 1]
    assert torch.equal(padded[0], rows[0])


def _said(problem):
    return dict(subject(described(problem)))


def test_what_was_averaged_over_is_said():
    torch.manual_seed(0)
    model, data, loss, _, _ = _tokens()
    said = _said(Problem(model, data=data, loss=loss))
    assert said["loss"] == "ce (mean over 20 targets in 2 batches, which weigh 0.7 and 0.3)"
    model, data, loss, _, _ = _packed()
    said = _said(Problem(model, data=data, loss=loss))
    expected = "(unknown, averaged over 5 samples by the target's length in 2 batches, which weigh 0.4 and 0.6)"
    assert said["loss"] == f"loss {expected}"
    plain = Problem(nn.Linear(2, 3), data=[(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))] * 2, loss="ce")
    assert _said(plain)["loss"] == "ce (mean over 8 targets in 2 batches)"
    assert _said(Problem(plain.model, data=plain.data[:1], loss="ce"))["loss"] == "ce (mean)"
    assert _said(Problem(plain.model, data=plain.data, loss=nn.CrossEntropyLoss(reduction="sum")))["loss"] == (
        "CrossEntropyLoss (sum over 2 batches)"
    )


def test_a_graph_has_as_many_samples_as_nodes():
    torch.manual_seed(0)
    y = torch.tensor([0, -100, 1, -100, 1, 0, -100])
    problem = Problem(Graph(2).double(), data=[((torch.randint(7, (2, 12)), _normal(7, 2)), y)], loss="ce")
    described = describe(problem)
    assert (described["samples"], described["targets"], described["averaged_over"]["count"]) == (7, 7, 4)
    assert described["input_shape"] == [2]
    assert _said(problem)["loss"] == "ce (mean over 4 targets)"
    base = baselines(problem)
    assert (base.n, base.n_outputs, base.ols_data_d) == (7, 14, 2)


def test_every_token_is_a_target_of_the_baselines():
    torch.manual_seed(0)
    model, data, loss, _, _ = _tokens()
    base = baselines(Problem(model, data=data, loss=loss))
    assert (base.n, base.n_outputs) == (29, 29 * 4)


@pytest.mark.parametrize("shift", [True, False])
def test_whether_first_labels_count_is_asked_of_one_sequence_that_has_others(shift):
    asked = []

    def value(batch):
        asked.append(len(batch["labels"]))
        labels = batch["labels"][:, 1:] if shift else batch["labels"]
        if not bool((labels != -100).any()):
            raise LoadError("a mean over nothing")
        return labels[labels != -100].double().mean()

    labels = torch.tensor([[4, -100, -100, -100], [-100, 1, 2, 3], [5, 6, -100, 7], [9, -100, 8, -100]])
    found = of_labels({"input_ids": labels.clone(), "labels": labels}, value)
    assert found.count == (6 if shift else 9)
    assert asked == [1, 1]
