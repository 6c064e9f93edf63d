"""Labels and ids out of range: named before a GPU meets them, and nothing is computed once its context is gone."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hessdiag.cli import main
from hessdiag.errors import LoadError
from hessdiag.problem.batches import indices
from hessdiag.problem.loading import fit, own_loss, synthetic
from hessdiag.problem.losses import averages
from hessdiag.problem.losses.loss import resolve
from hessdiag.problem.problem import Problem


class Tokens(nn.Module):
    """Eleven words, six positions."""

    def __init__(self):
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(11, 4), nn.Embedding(6, 4), nn.Linear(4, 11)

    def forward(self, ids):
        return self.head(torch.tanh(self.words(ids) + self.places(torch.arange(ids.shape[1]))))


IDS = torch.arange(10).flip(0).reshape(2, 5)
X = torch.ones(3, 4)
LABELS = torch.tensor([0, 2, -100])
ROWS = torch.arange(3)


def gathered(output, labels):
    return -output.gather(1, labels.clamp_min(0)[:, None]).mean()


def indexed(output, labels):
    return -output[ROWS, labels.clamp_min(-3)].mean()


def counted(output, labels):
    return output.index_add(1, labels, output[:, :3]).mean()


def classes():
    return nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("make", "x", "y", "loss", "said"),
    [
        (Tokens, IDS, IDS, "ce", None),
        (Tokens, IDS + 2, IDS, "ce", "ids run from 2 to 11, out of bounds: the table words.weight has 11 rows"),
        (Tokens, IDS - 1, IDS, "ce", "ids run from -1 to 8, out of bounds: the table words.weight has 11 rows"),
        (Tokens, IDS.reshape(1, 10), IDS.reshape(1, 10), "ce", "positions up to 9 .* table places.weight has 6 rows"),
        (Tokens, IDS, IDS + 2, "ce", "labels run from 2 to 11, out of bounds: there are 11 classes"),
        (lambda: nn.EmbeddingBag(9, 3, mode="sum"), IDS, LABELS[:2], "ce", "0 to 9, .* table weight has 9 rows"),
        (lambda: nn.EmbeddingBag(9, 3, mode="max"), IDS, LABELS[:2], "ce", "0 to 9, .* table weight has 9 rows"),
        (classes, X, LABELS, "ce", None),
        (classes, X, LABELS + 1, "ce", "labels run from -99 to 3, out of bounds: there are 3 classes"),
        (classes, X, torch.tensor([1, 2, 3]), "ce", "labels that count from 0: y - 1"),
        (classes, X, LABELS, nn.CrossEntropyLoss(ignore_index=7), "labels run from -100 to 2"),
        (classes, X, torch.tensor([7, 0, 1]), nn.CrossEntropyLoss(ignore_index=7), None),
        (classes, X, torch.tensor([3, 0, 1]), nn.CrossEntropyLoss(label_smoothing=0.1), "labels run from 0 to 3"),
        (classes, X, torch.tensor([3, 0, 1]), nn.MultiMarginLoss(), "labels run from 0 to 3"),
        (lambda: nn.Linear(4, 1), X, ROWS, "ce", "there is 1 class.*\n.*--loss bce"),
        (classes, X, LABELS + 1, gathered, "looks up places from 0 to 3, out of bounds: there are 3"),
        (classes, X, LABELS, indexed, None),
        (classes, X, LABELS + 1, indexed, "looks up places from -3 to 3, out of bounds: there are 3"),
        (classes, X, ROWS + 1, counted, "looks up places from 1 to 3, out of bounds: there are 3"),
    ],
)
def test_what_is_out_of_range_is_named(make, x, y, loss, said):
    torch.manual_seed(0)
    model = make()
    problem = Problem(model, data=[(x, y)], loss=loss)
    if said is None:
        with indices.Watch(model):
            fit.check(problem)
        return
    for where in (indices.Watch(model), torch.enable_grad()):  # before the lookup, and after torch refused it
        with pytest.raises(LoadError, match=said) as caught, where:
            fit.check(problem)
        assert str(caught.value).count("\n") == 1


def test_images_with_labels_of_pixels():
    model = nn.Conv2d(3, 2, 1)  # two classes on two by three pixels
    problem = Problem(model, data=[(torch.ones(1, 3, 2, 3), torch.tensor([[[0, 1, 0], [2, 0, 0]]]))], loss="ce")
    with pytest.raises(LoadError, match="labels run from 0 to 2, out of bounds: there are 2 classes"):
        fit.check(problem)


def test_class_weights_are_looked_up_by_labels_too():
    loss = resolve(nn.CrossEntropyLoss(weight=torch.ones(3)))
    with pytest.raises(LoadError, match="labels run from 0 to 4"):
        averages.of_loss(loss, (X, torch.tensor([0, 4, -100])))


def test_each_batch_is_watched_once(monkeypatch):
    watches = []
    monkeypatch.setattr(indices, "watched", lambda model: watches.append(model) or indices.Watch(model))
    model = classes()
    problem = Problem(model, data=[(X, LABELS), (X, ROWS + 1)], loss="ce")
    problem.evaluate(problem.data[0])
    problem.evaluate(problem.data[0])
    assert len(watches) == 1
    with pytest.raises(LoadError, match="labels run from 1 to 3"):
        problem.evaluate(problem.data[1])


class Sized(Tokens):
    """Whose config names more words than there are."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=1000, max_position_embeddings=6)

    def forward(self, input_ids, labels=None):
        logits = super().forward(input_ids)
        loss = None if labels is None else nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return SimpleNamespace(logits=logits, loss=loss)


def test_made_up_batches_are_tried_under_watch(monkeypatch):
    monkeypatch.setattr(indices, "watched", indices.Watch)
    with pytest.raises(LoadError, match=r"the sequence has positions up to 15 .* the table places.weight has 6 rows"):
        synthetic._probe(Tokens())
    with pytest.raises(LoadError, match=r"ids run from .* out of bounds: the table words.weight has 11 rows"):
        own_loss.make(Sized())
    tried = []
    monkeypatch.setattr(indices, "watched", lambda model: tried.append(model) or indices.Watch(model))
    assert own_loss._output(Sized(), {"input_ids": torch.full((1, 2), 11)}) is None
    assert len(tried) == 1


def test_on_a_cpu_nothing_is_watched():
    with indices.watched(classes()):
        assert not indices.watching()


class Dying(nn.Module):
    """As a GPU does whose context ended."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 3), 0

    def forward(self, x):
        self.calls += 1
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronous")


def test_a_lost_context_is_not_computed_on_again():
    model = Dying()
    with pytest.raises(LoadError, match="a label or an id") as caught:
        fit.check(Problem(model, data=[(X, LABELS)], loss="ce"))
    assert model.calls == 1
    assert "does not take" not in str(caught.value)


def test_a_context_lost_anywhere_is_told_in_the_same_words(capsys, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA`")

    monkeypatch.setattr("hessdiag.questions.eigs.measure.extreme_eigenpairs", fails)
    monkeypatch.setattr("hessdiag.questions.eigs.measure.dense_eigenpairs", fails)
    assert main.run(["eigs", "builtin:mlp(depth=3, width=4)", "--device", "cpu"]) == 3
    said = capsys.readouterr().err
    assert "a label or an id" in said
    assert "internal error" not in said
